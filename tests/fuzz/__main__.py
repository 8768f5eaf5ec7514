"""``python -m tests.fuzz TARGET [libFuzzer options]``: a target under atheris, which guides by coverage.

atheris is no dependency of the project: install it by hand into an environment of its own, and let that one see the
project's packages through PYTHONPATH. ``-max_total_time=600`` ends it; a crash leaves its input in the working
directory. ``shell`` needs no atheris: it writes its own texts (`tests.fuzz.shell`).
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


def main() -> None:
    if sys.argv[1:2] == ["shell"]:
        from tests.fuzz.shell import main as shell

        shell()
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(include=["agent.enforce.egress", "agent.policy"]):
        from tests.fuzz.targets import TARGETS
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz shell|{'|'.join(TARGETS)} [libFuzzer options]")
    target, seeds = TARGETS[sys.argv[1]]
    corpus = Path(tempfile.mkdtemp(prefix="fuzz-"))
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    atheris.Setup([sys.argv[0], *sys.argv[2:], os.fspath(corpus)], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
