"""The end of a log and what is added to it, across rotations: for readers that watch.

Only whole lines are given out; a line that is being written is given once its newline is there. Nothing is checked
here (that is `agent.record.verify`): a watcher must also see a line that an intruder wrote.
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

from agent.record.log import lines_backwards, open_files


class Follower:
    """`last` lines first, then `more` as often as wanted, `close` at the end. All raise OSError where reading fails."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd = -1
        self._offset = 0

    def last(self, count: int) -> list[bytes]:
        """The last `count` whole lines, oldest first; from here `more` goes on."""
        lines: deque[bytes] = deque()
        files = [fd for _, fd in open_files(self._directory)]
        if files:
            self._fd = files[-1]
            self._offset = _whole_end(self._fd)
        for fd in reversed(files):
            size = self._offset if fd == self._fd else os.fstat(fd).st_size
            for start, end in lines_backwards(fd, size):
                if len(lines) >= count:
                    break
                lines.appendleft(os.pread(fd, end - start, start))
            if fd != self._fd:
                os.close(fd)
        return list(lines)

    def more(self) -> list[bytes]:
        """The whole lines that have come since."""
        lines = self._read_on()
        while (following := self._following()) >= 0:
            lines += self._read_on()  # what was written between the last reading and the rotation
            self.close()
            self._fd, self._offset = following, 0
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
        block = os.pread(self._fd, size - self._offset, self._offset)
        whole, newline, _ = block.rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        return [line + b"\n" for line in whole.split(b"\n")] if newline else []

    def _following(self) -> int:
        """A descriptor of the file after the one that is open, -1 where it is the newest.

        A file that is not the newest is written to no more. One that is gone altogether is followed by the newest.
        """
        files = [fd for _, fd in open_files(self._directory)]
        own = next((n for n, fd in enumerate(files) if self._fd >= 0 and os.path.sameopenfile(fd, self._fd)), None)
        unknown = files[:1] if self._fd < 0 else files[-1:]
        after = unknown if own is None else files[own + 1 : own + 2]
        for fd in files:
            if fd not in after:
                os.close(fd)
        return after[0] if after else -1


def _whole_end(fd: int) -> int:
    for start, end in lines_backwards(fd, os.fstat(fd).st_size):
        return end if os.pread(fd, 1, end - 1) == b"\n" else start
    return 0
