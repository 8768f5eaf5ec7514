"""The agent's version, read from the installed distribution: pyproject.toml is its one home.

Where it is installed is a directory named NAME-VERSION.dist-info on the path of modules (PyPA, "Recording installed
projects"); importlib.metadata finds it too, and takes as long as the rest of the command line.
"""

from __future__ import annotations

import os
import sys

_INFO = ("parhelia_agent-", ".dist-info")


def version() -> str:
    """The installed version, ``unknown`` where the package was never installed."""
    start, end = _INFO
    for directory in sys.path:
        try:
            names = os.listdir(directory)  # noqa: PTH208  (imports nothing that takes time)
        except OSError:
            continue
        for name in names:
            if name.startswith(start) and name.endswith(end):
                return name.removeprefix(start).removesuffix(end)
    return "unknown"
