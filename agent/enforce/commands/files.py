"""Looking at a file that may be executed: what it is, which of the machine's programs, and its first line.

Rules kept here: what was seen is remembered only of files that the session cannot change (a file's times do not show
every change: a shared mapping on a tmpfs leaves none), by device, inode, size and both times, since others can.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from typing import Final

from agent.enforce.commands.program import FIRST_LINE, File, Seen, script_line
from agent.enforce.commands.programs import Programs
from agent.enforce.memory import Unreadable, path_of
from agent.enforce.walk import Closed

_REMEMBERED: Final = 2048

type _Key = tuple[int, int, int, int, int, str]


class Files:
    """`programs`: the machine's own, which a file is compared with. For one thread only."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._seen: OrderedDict[_Key, Seen] = OrderedDict()

    def look(self, opened: int) -> Seen:
        """The program that is open (for its path only), and what its first line names where it is a script. Raises
        OSError with the kernel's errno, Unreadable where it may be executed but not read."""
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EACCES, "not a regular file")
        path = path_of(opened)
        if self._programs.changeable(status):
            return self._read(opened, path, status)
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, path)
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = self._read(opened, path, status)
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
        return seen

    def _read(self, opened: int, path: str, status: os.stat_result) -> Seen:
        try:
            reader = os.open(f"/proc/self/fd/{opened}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except PermissionError as error:
            if not status.st_mode & 0o111:
                raise Closed(path) from error  # the kernel refuses it as well
            raise Unreadable(f"{path} may be executed but not read: what it runs is not known") from error
        try:
            head = os.pread(reader, FIRST_LINE, 0)
            also = self._programs.names(path, status, reader)
            file = File(path, status.st_dev, status.st_ino, also, not head.startswith(b"\x7fELF"))
            return file, script_line(head)
        finally:
            os.close(reader)
