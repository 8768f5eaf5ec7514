"""Events that are taken and not on disk yet, in their order, within bounds. Not thread-safe: whoever owns it locks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from agent.record.chain import Head
from agent.values import dataclass

_MAX_BATCH_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Queued:
    """One line, the head that it makes, and when it was taken (monotonic seconds)."""

    head: Head
    line: bytes
    at: float


class Waiting:
    """A queue of at most so many events, and hardly more than so many bytes."""

    def __init__(self, events: int, size: int) -> None:
        self._bounds = (events, size)
        self._lines: deque[Queued] = deque()
        self._size = 0

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def full(self) -> bool:
        return len(self._lines) >= self._bounds[0] or self._size >= self._bounds[1]

    @property
    def since(self) -> float:
        """When the oldest was taken. Raises IndexError where there is none."""
        return self._lines[0].at

    def add(self, head: Head, line: bytes) -> None:
        self._lines.append(Queued(head, line, time.monotonic()))
        self._size += len(line)

    def group(self) -> list[Queued]:
        """The oldest ones that are to be written together; they stay here until `drop`."""
        batch: list[Queued] = []
        size = 0
        for queued in self._lines:
            if batch and size + len(queued.line) > _MAX_BATCH_BYTES:
                break
            batch.append(queued)
            size += len(queued.line)
        return batch

    def begins_with(self, batch: Sequence[Queued]) -> bool:
        """Is that group still waiting?"""
        return bool(self._lines) and self._lines[0] is batch[0]

    def drop(self, batch: Sequence[Queued]) -> None:
        """That group is on disk."""
        for queued in batch:
            self._lines.popleft()
            self._size -= len(queued.line)

    @property
    def lines(self) -> list[bytes]:
        """All of them, which go on waiting."""
        return [queued.line for queued in self._lines]

    def take_all(self) -> list[bytes]:
        """All lines; none waits any more."""
        lines = self.lines
        self._lines.clear()
        self._size = 0
        return lines
