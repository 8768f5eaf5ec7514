"""Protected places that another process moves or makes while the launch holds them: looked for again, held there too.

A mount stands on one entry of one directory: what is moved into another directory is open there. So when all mounts
are made the launcher says which places are not where they were, and the trees are looked through once more; what has
come is to be held as well, and so on.

Rules kept here: the rounds are bounded; what is known to be open when they end is said, and so is a place that was seen
to move, for whoever moved it may go on; what was deleted, as repositories are in trees that many work in, is not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from agent.daemon.protection.protecting import Protection, shown_place
from agent.session.plan import Hold

ROUNDS = 24
AGAIN = 6
PAUSE_SECONDS = 0.002
"""So many rounds, of them so many where nothing is missing but something has changed, each after such a pause."""

type Stamp = tuple[int, int, int, int]
"""Device, inode, and when its contents and when it itself was changed (ns). Of a rename, and of a change of mode or
owner, only the latter tells (inode(7))."""


class Rounds:
    """Of one launch. `look` gives what is to be held as things are now; `protection`: what was, the last time. All
    methods raise OSError."""

    def __init__(self, look: Callable[[], Protection]) -> None:
        self._began = time.time_ns()
        self.protection = look()
        self._look = look
        self._told = dict(self.protection.held)
        self._stamps = dict(_stamps(self.protection.held))
        self._rounds = ROUNDS
        self._again = AGAIN
        self._open: dict[str, None] = {}
        self._moved: dict[str, None] = {}

    def more(self, lost: Sequence[str]) -> list[tuple[str, Hold]]:
        """What the launcher is to hold besides, where it has found `lost` not to be held at its path; nothing where all
        is, or the rounds are over."""
        missing, away, changed = self._missing(lost)
        while not missing and not away and changed and self._again > 0:
            self._again -= 1
            time.sleep(PAUSE_SECONDS)
            missing, away, changed = self._missing(lost)
        if away and not missing:
            self._again -= 1
        if self._rounds <= 0 or not (missing or (away and self._again > 0)):
            self._open |= dict.fromkeys(path for path, _ in missing)
            return []
        self._rounds -= 1
        self._told |= missing
        return [*missing, *away]

    @property
    def weak(self) -> tuple[str, ...]:
        """In sentences, what is not held, or was moved and may be moved again."""
        moved = sorted(self._moved.keys() - self._open.keys())
        return (
            *_said(list(self._open), "is protected, and was moved or made while the session was prepared"),
            *_said(moved, "is protected, and another process moved or changed it while the session was prepared"),
        )

    def _missing(self, lost: Sequence[str]) -> tuple[list[tuple[str, Hold]], list[tuple[str, Hold]], bool]:
        """What is there and not held; what is to be held and not there; whether something has changed since the last
        look: then there may be more that was elsewhere just now."""
        self.protection = self._look()
        there, not_held = dict(self.protection.held), frozenset(lost)
        missing = [(path, how) for path, how in there.items() if path in not_held or self._told.get(path) is not how]
        away = [(path, self._told[path]) for path in lost if path not in there and path in self._told]
        return missing, away, self._compare()

    def _compare(self) -> bool:
        before, now = self._stamps, dict(_stamps(self.protection.held))
        self._stamps = before | now
        self._moved |= dict.fromkeys(path for path, stamp in now.items() if self._has_moved(before.get(path), stamp))
        return any(before.get(path, stamp) != stamp for path, stamp in now.items())

    def _has_moved(self, before: Stamp | None, now: Stamp) -> bool:
        if before is None or before[:2] != now[:2]:
            return now[2] < self._began < now[3]
        return before[2] == now[2] and before[3] != now[3]


def _stamps(places: Iterable[tuple[str, Hold]]) -> Iterator[tuple[str, Stamp]]:
    for path, _ in places:
        try:
            info = os.lstat(path)
        except OSError:
            continue  # gone by now
        yield path, (info.st_dev, info.st_ino, info.st_mtime_ns, info.st_ctime_ns)


def _said(places: Sequence[str], what: str) -> tuple[str, ...]:
    if not places:
        return ()
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    return (f"{shown_place(places[0])}{more} {what}",)
