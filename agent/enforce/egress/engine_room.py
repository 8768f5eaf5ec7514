"""The memory that a worker's connections may take together for what waits. Pure.

Rules kept here: what a connection holds is bounded, and so is what all of them do, however many there are; past that,
each may still have a little, so that those which are in a hurry and those which hold much do not wait for each other.
"""

from __future__ import annotations

from typing import Final

MOST_HELD: Final = 4 * 1024 * 1024
"""Bytes of one connection, one way."""
MOST_IN_ALL: Final = 64 * 1024 * 1024
LITTLE: Final = 64 * 1024


class Room:
    """What all connections hold, in bytes."""

    def __init__(self) -> None:
        self.taken = 0

    def share(self) -> Share:
        return Share(self)


class Share:
    """What one of them does."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.held = 0

    def hold(self, count: int) -> None:
        """It is this many bytes now."""
        self._room.taken += count - self.held
        self.held = count

    def enough(self, count: int, most: int = MOST_HELD) -> bool:
        """Is `count`, a part of what is held, as much as there may be?"""
        return count > most or (count > LITTLE and self._room.taken > MOST_IN_ALL)
