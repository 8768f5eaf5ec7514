"""The end of a log and what is added to it, across rotations: for readers that watch.

Only whole lines are given out; a line that is being written is given once its newline is there. Nothing is checked
here (that is `agent.record.verify`): a watcher must also see a line that an intruder wrote.
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

from agent.record.log import CURRENT, ROTATED, lines_backwards


class Follower:
    """`last` lines first, then `more` as often as wanted, `close` at the end. All raise OSError where reading fails."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd = -1
        self._offset = 0

    def last(self, count: int) -> list[bytes]:
        """The last `count` whole lines, oldest first; from here `more` goes on."""
        lines: deque[bytes] = deque()
        for path in reversed(self._paths()):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            if self._fd < 0:
                self._fd, self._offset = fd, _whole_end(fd)
            for start, end in lines_backwards(fd):
                if len(lines) >= count:
                    break
                line = os.pread(fd, end - start, start)
                if line.endswith(b"\n"):
                    lines.appendleft(line)
            if fd != self._fd:
                os.close(fd)
            if len(lines) >= count:
                break
        return list(lines)

    def more(self) -> list[bytes]:
        """The whole lines that have come since."""
        lines = self._read_on()
        while self._next_file():
            lines += self._read_on()
        return lines

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _read_on(self) -> list[bytes]:
        if self._fd < 0:
            return []
        size = os.fstat(self._fd).st_size
        self._offset = min(self._offset, size)  # cut: go on with what is written from here
        lines: list[bytes] = []
        while block := os.pread(self._fd, size - self._offset, self._offset):
            whole, newline, _ = block.rpartition(b"\n")
            if not newline:
                break
            self._offset += len(whole) + 1
            lines += (whole + newline).splitlines(keepends=True)
        return lines

    def _next_file(self) -> bool:
        """Go to the file after the one that is open; False where it is the newest."""
        paths = self._paths()
        after = paths
        if self._fd >= 0:
            here = os.fstat(self._fd)
            for index, path in enumerate(paths):
                there = path.stat()
                if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                    after = paths[index + 1 :]
                    break
            else:
                after = paths[-1:]  # the file is gone altogether: go on with the newest
        if not after:
            return False
        self.close()
        self._fd, self._offset = os.open(after[0], os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), 0
        return True

    def _paths(self) -> list[Path]:
        names = sorted(entry.name for entry in self._directory.iterdir() if ROTATED.fullmatch(entry.name))
        current = self._directory / CURRENT
        return [self._directory / name for name in names] + ([current] if current.exists() else [])


def _whole_end(fd: int) -> int:
    for start, end in lines_backwards(fd):
        return end if os.pread(fd, 1, end - 1) == b"\n" else start
    return 0
