"""What the supervisor has in hand, in memory that outlives it: one notification for each of its threads.

A task whose notification was received and not answered waits for ever once the supervisor is dead, unless somebody
else who holds the listener answers it. Rules kept here: the kernel writes a notification into this memory itself, so
there is no moment at which it is received and not here; it is wiped when it has been answered, and only then; what a
predecessor left is denied, never decided: it may have been answered by half.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Iterator
from typing import Final

from agent.linux import notify
from agent.linux.memory import nameless

SLOTS: Final = 2
"""The loop's thread, and the clock's."""
_SLOT_BYTES: Final = 4096


class NotifyJournal:
    """`descriptor`: of one that a predecessor wrote; None: a new one. It is its own, and closed when this is gone."""

    def __init__(self, descriptor: int | None = None) -> None:
        made = descriptor is None
        self.descriptor = nameless("parhelia-notified") if descriptor is None else descriptor
        if made:
            os.ftruncate(self.descriptor, SLOTS * _SLOT_BYTES)
        weakref.finalize(self, os.close, self.descriptor)
        self._memory = memoryview(mmap.mmap(self.descriptor, SLOTS * _SLOT_BYTES))

    def slot(self, index: int) -> memoryview:
        """Where the kernel writes for one thread (see `agent.linux.notify.receive`)."""
        return self._memory[index * _SLOT_BYTES : (index + 1) * _SLOT_BYTES]

    def wipe(self, index: int) -> None:
        """It has been answered; and RECV wants zeroes."""
        at = index * _SLOT_BYTES
        self._memory[at : at + notify.SIZE] = bytes(notify.SIZE)

    def left(self) -> Iterator[tuple[int, notify.Notification]]:
        """What a predecessor had in hand, and the slot that it is in."""
        for index in range(SLOTS):
            found = notify.parse(self.slot(index))
            if found.id:
                yield index, found
