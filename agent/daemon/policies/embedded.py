"""Where the default policy lies that ships with the agent.

`agent/embedded` is the package's copy of the top-level `policies/`: a link in a checkout, plain files in a wheel. So
the policy in force without any `--policy` is the reviewed one of the same version; nothing on the machine shadows it.
"""

from __future__ import annotations

from pathlib import Path

import agent


def embedded_policy_dir() -> Path:
    """The directory of the default policy's *.yaml files, with `bundles/` below it; links resolved.

    Raises FileNotFoundError where the installation is damaged: a missing default policy never passes for an empty one.
    """
    return (Path(agent.__file__).parent / "embedded").resolve(strict=True)
