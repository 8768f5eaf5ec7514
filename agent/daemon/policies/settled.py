"""Is somebody still writing a file? Asked before a policy is read, so that half of one is never believed.

Rule kept here: only a certain yes is one; where the kernel does not tell, the answer is no, and the files' rest
decides.

Source: fcntl(2), F_SETLEASE: a read lease is refused with EAGAIN while the file is open for writing anywhere. It is
given back at once; a writer that comes in between waits for that, and the signal about it is one that is ignored by
default. gVisor has no leases, and a file of another account needs CAP_LEASE.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Iterable
from pathlib import Path

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def being_written(directories: Iterable[Path]) -> Path | None:
    """The first policy file of these directories that a program has open for writing; None where none is known."""
    for directory in directories:
        try:
            files = sorted(file for file in directory.iterdir() if file.name.endswith(".yaml"))
        except OSError:
            continue
        for file in files:
            if open_for_writing(file):
                return file
    return None


def open_for_writing(file: Path) -> bool:
    """Has a program opened it for writing? False also where that cannot be known."""
    try:
        descriptor = os.open(file, _OPEN)
    except OSError as error:
        return error.errno == errno.EWOULDBLOCK  # leased by a writer
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False
