"""The hook's two clients as programs to start: Python's, and the native one where a C compiler is."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from agent.enforce.commands import hook_client
from tests.conftest import require

BUILD = Path(__file__).parents[3] / "container" / "build-hook.sh"


@functools.cache
def native_client() -> Path:
    """The native client, compiled for this run of the suite, in a place that every user may enter."""
    require(any(shutil.which(name) for name in ("cc", "gcc", "clang")), "no C compiler")
    place = Path(tempfile.mkdtemp(prefix="hook-client-", dir="/tmp"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    place.chmod(0o755)
    subprocess.run([BUILD, place / "parhelia-hook"], check=True, timeout=60)
    return place / "parhelia-hook"


def command_of(kind: str) -> tuple[str, ...]:
    """How the client of this kind (``python``, ``native``) is started."""
    return (str(native_client()),) if kind == "native" else (sys.executable, "-IS", hook_client.__file__)
