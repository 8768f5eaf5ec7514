"""What changed, gathered for a moment and told once: bounded however much a session changes.

Rules kept here: changes of one kind to one path within a window are one; past `MAX_KEPT` different ones the rest of a
kind are summed as `(many)`, so that memory and the log stay bounded; no notification is dropped, each is in one count.
The kernel merges equal notifications that nobody has read yet (inotify(7)): a count may be less than the changes.
"""

from __future__ import annotations

import threading
from enum import StrEnum
from typing import Final

from agent.record.event import Integrity
from agent.values import dataclass, field

MANY: Final = "(many)"
MAX_KEPT: Final = 256


class Change(StrEnum):
    """What happened to a file, as far as inotify tells; a closed set."""

    CREATED = "created"
    MODIFIED = "modified"
    DELETED = "deleted"
    MOVED = "moved"
    ATTRIBUTES = "attributes"


@dataclass(slots=True)
class Seen:
    """One change as it will be told. `before`: the digest of what was there, where it was known."""

    kind: Integrity
    path: str
    change: Change
    before: str | None = None
    count: int = field(default=1)


class Changes:
    """`note` from one thread, `take` from another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[Integrity, str, Change], Seen] = {}
        self.waiting = threading.Event()

    def note(self, kind: Integrity, path: str, change: Change, before: str | None = None) -> None:
        """Something changed now."""
        with self._lock:
            key = (kind, path, change)
            if key not in self._kept and len(self._kept) >= MAX_KEPT:
                key, before = (kind, MANY, change), None
            known = self._kept.get(key)
            if known is None:
                self._kept[key] = Seen(kind, key[1], change, before)
            else:
                known.count += 1
        self.waiting.set()

    def take(self) -> list[Seen]:
        """Everything gathered since the last call, in the order in which it began."""
        with self._lock:
            taken, self._kept = self._kept, {}
            self.waiting.clear()
        return list(taken.values())
