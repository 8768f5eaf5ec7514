"""What the runtime tests keep between runs of one machine, and the locks by which concurrent runs share it.

$XDG_CACHE_HOME/parhelia-tests, else /var/cache/parhelia-tests:
the engine's data, the base image's archive, a newer runsc.
Every entry is made under a lock, in a temporary place, and renamed: what is there is whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

BASE_PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates")
LOCKS = Path("/run/parhelia-tests-locks")
HOST_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


def cache_directory() -> Path:
    """The directory, made where it is missing."""
    directory = Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "parhelia-tests"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextlib.contextmanager
def locked(name: str, operation: int = fcntl.LOCK_EX) -> Iterator[int]:
    """Hold the machine's lock `name`; yields its descriptor. The kernel frees it when this process ends."""
    LOCKS.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(LOCKS / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, operation)
        yield descriptor
    finally:
        os.close(descriptor)


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """The cache's entry `name`; where it is missing, `make` writes it to the path it is given."""
    path = cache_directory() / name
    with locked(f"make-{name}"):
        if not path.exists():
            with scratch(f"new-{name}") as directory:
                make(directory / name)
                (directory / name).rename(path)
    return path


@contextlib.contextmanager
def scratch(name: str) -> Iterator[Path]:
    """A directory of this process in the cache, gone afterwards (device nodes and other users' files included)."""
    directory = cache_directory() / f"{name}.{os.getpid()}"
    directory.mkdir()
    try:
        yield directory
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", str(directory)], check=False)


def command(*argv: str, timeout: float = 600) -> str:
    """Run a set-up step; its failure ends the test run with what the step said."""
    done = subprocess.run(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def base_archive() -> Path:
    """A tar archive of a minimal Debian trixie with Python 3.13: what stands in for python:3.13-slim-trixie."""
    return cached("base-trixie.tar", _debootstrap)


def _debootstrap(archive: Path) -> None:
    tree = archive.parent / "tree"
    include = f"--include={','.join(BASE_PACKAGES)}"
    command("debootstrap", "--variant=minbase", include, "trixie", str(tree), timeout=1200)
    left_out = [
        f"--exclude=./{path}" for path in ("var/cache/apt/archives/*.deb", "var/lib/apt/lists/*", "dev/*", "proc/*")
    ]
    command("tar", "--numeric-owner", *left_out, "-C", str(tree), "-cf", str(archive), ".")
