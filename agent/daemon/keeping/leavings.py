"""What a run puts on the machine and must take away: temporary directory, canary, run directory, control groups, the
links to the hook's and the control socket, and placeholders of protected names.

Their names follow from the specification (`agent.daemon.base.names`; those of placeholders are listed in the run
directory), so that whoever is left at the end (the keeper; the guard where the keeper is dead) can take them away.
Where nobody was left, because both were killed at once, the end of a later run does: a run whose directory the keeper
does not hold any more (flock(2)) is over. Nothing here follows what the session may have put there.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from agent.daemon.base.names import canaries, control_link, group_name, hook_link, own_directory
from agent.daemon.base.spec import RunSpec
from agent.daemon.protection.owned import give_back
from agent.daemon.protection.reserved import release
from agent.linux import cgroups
from agent.values import replace

_INSTANCE = re.compile(r"(?P<session>.+)-(?P<boot>[0-9a-f]{12})")
_HELD = "held"
"""The file of a run whose keeper has locked, or had, its directory. It names the kernel, which alone knows of the lock:
a directory that several machines or sandboxes share has runs of the others too."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def sweep(spec: RunSpec) -> None:
    """Take it all away. Never raises: what is left over is harmless."""
    release(spec.run_dir)
    give_back(spec.run_dir)
    shutil.rmtree(own_directory(spec), ignore_errors=True)  # by descriptors: a symlink in it is removed, not followed
    shutil.rmtree(spec.run_dir, ignore_errors=True)
    cgroups.remove(group_name(spec.boot))
    for canary in canaries(spec):
        with suppress(OSError):
            found = canary.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                canary.unlink()
    for link in (hook_link(spec), control_link(spec.run_root)):
        with suppress(OSError):
            if link.is_symlink() and not link.exists():
                link.unlink()


def hold(run_dir: str) -> int:
    """Say that this run is not over, for as long as this process lives or the descriptor that is returned is open.
    Raises OSError, where nobody can take it for over either: it has no `_HELD`."""
    descriptor = os.open(run_dir, _DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open(
        os.open(_HELD, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400, dir_fd=descriptor), "w"
    ) as file:
        file.write(_kernel())
    return descriptor


def lives(run_dir: str) -> bool | None:
    """Is the run of this directory under way, its keeper alive? None where this account cannot tell. False too for the
    runs of another kernel, and where nobody has said so yet (`hold`), an instant after the directory is made. Never
    raises."""
    try:
        if not os.path.lexists(f"{run_dir}/{_HELD}"):
            return False
        descriptor = os.open(run_dir, _DIRECTORY)
    except PermissionError:
        return None
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _kernel() -> str:
    """Which boot of which kernel this is (random(4)). Raises OSError."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")


def sweep_dead(spec: RunSpec) -> None:
    """Take away what runs that are over left below the same run root. Never raises."""
    with suppress(OSError):
        for name in os.listdir(spec.run_root):  # noqa: PTH208
            found = _INSTANCE.fullmatch(name)
            if found is not None and name != Path(spec.run_dir).name:
                there = f"{spec.run_root}/{name}"
                _sweep_if_dead(replace(spec, run_dir=there, session_id=found["session"], boot=found["boot"]))


def _sweep_if_dead(spec: RunSpec) -> None:
    with suppress(OSError, ValueError):
        descriptor = os.open(spec.run_dir, _DIRECTORY)
        try:
            if os.fstat(descriptor).st_uid != os.geteuid() or Path(spec.run_dir, _HELD).read_text() != _kernel():
                return
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sweep(spec)
        finally:
            os.close(descriptor)
