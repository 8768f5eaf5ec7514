"""Somebody who exchanges two names as fast as he can, as another session of the account would."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.linux.process import set_pdeathsig
from agent.linux.syscalls import syscall

_AT_FDCWD = -100
_EXCHANGE = 2  # RENAME_EXCHANGE, linux/fs.h


@contextmanager
def swapping(one: Path, other: Path, uid: int | None = None) -> Iterator[None]:
    """For as long as it is open; a name that is not there at the moment is waited for. `uid`: as whom."""
    child = os.fork()
    if child == 0:
        try:
            if uid is not None:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            set_pdeathsig(signal.SIGKILL)
            first, second = os.fsencode(one), os.fsencode(other)
            while True:
                with suppress(OSError):
                    syscall("renameat2", _AT_FDCWD, first, _AT_FDCWD, second, _EXCHANGE)
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
