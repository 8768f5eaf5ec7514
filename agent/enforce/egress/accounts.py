"""What is counted of a host, or of all the hosts below a wildcard: bytes, connections, and how many began lately.

Rules kept here: counts only grow, but for connections that end; what is kept has one size, whatever happens. In any 60
seconds no more connections begin than are allowed; the window is kept in slots of one second, so up to 61 seconds
count.
"""

from __future__ import annotations

from typing import Final

_WINDOW: Final = 60


class Rate:
    """How many connections began in the last minute. Memory: 61 numbers."""

    __slots__ = ("_last", "_slots", "_sum")

    def __init__(self) -> None:
        self._slots = [0] * (_WINDOW + 1)
        self._last = 0
        self._sum = 0

    def recent(self, now: int) -> int:
        """The count of this second and the 60 before; `now` in whole seconds, never going back."""
        if now - self._last > _WINDOW:
            self._slots, self._sum, self._last = [0] * (_WINDOW + 1), 0, now
        while self._last < now:
            self._last += 1
            slot = self._last % (_WINDOW + 1)
            self._sum -= self._slots[slot]
            self._slots[slot] = 0
        return self._sum

    def add(self, now: int, count: int = 1) -> None:
        self.recent(now)
        self._slots[now % (_WINDOW + 1)] += count
        self._sum += count


class Account:
    """One host's, or one wildcard's: `up`, `down` bytes so far, `open` connections. `name`: the host or the wildcard,
    empty for hosts that share."""

    __slots__ = ("down", "name", "open", "rate", "up")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.up = Meter()
        self.down = Meter()
        self.open = 0
        self.rate = Rate()


class Meter:
    """Bytes of one account in one direction."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0
