"""Bursts of the same denial, told in few lines with exact sums.

Rules: the first few of a burst are written in full, at once. What follows within the window is held and becomes one
line with `details.count`, `first_seen` and `last_seen` (and the rest of the last one's details) when the window ends.
Nothing is dropped: `offer` either says "write it" or has counted it. Only events that are alike in everything an alert
or a reader groups by are ever summed; but past `keys` bursts at once, what is alike in all but resource and source is
summed under the resource ``(many)``, so that a flood of different names does not fill the log. Pure: the caller brings
the time.
"""

from __future__ import annotations

from collections.abc import Hashable

from agent.record.event import DENIALS, Event, EventType, Result
from agent.values import dataclass, replace

MANY = "(many)"
_SECOND = 1_000_000_000
_COALESCED = DENIALS | {EventType.AUTH_FAILURE}


@dataclass(slots=True)
class _Burst:
    ends: int
    seen: int = 0
    held: int = 0
    first: str = ""
    last: str = ""
    event: Event | None = None


class Coalescer:
    """`first` events of a burst pass per `window_ns`; at most `keys` bursts are followed one by one."""

    def __init__(self, *, first: int = 5, window_ns: int = _SECOND, keys: int = 1024) -> None:
        self._first = first
        self._window = window_ns
        self._keys = keys
        self._bursts: dict[Hashable, _Burst] = {}
        self.held: Event | None = None
        """What `offer` held last, as its burst keeps it."""

    def offer(self, event: Event, now_ns: int, timestamp: str) -> bool:
        """True where the event is held (and will come out of `due` or `drain`), False where it is to be written now."""
        if event.type not in _COALESCED or event.result is not Result.DENIED:
            return False
        rule = event.details.get("rule")
        key = (event.type, event.actor, event.action, event.resource, event.source_ip, rule)
        burst = self._bursts.get(key)
        if burst is None and len(self._bursts) >= self._keys:
            key = (event.type, event.actor, event.action, MANY, None, rule)
            burst = self._bursts.get(key)
        if burst is None:
            burst = self._bursts[key] = _Burst(ends=now_ns + self._window)
        burst.seen += 1
        if burst.seen <= self._first:
            return False
        burst.first = burst.first or timestamp
        burst.held += event.count
        burst.last, burst.event = timestamp, event if key[3] == event.resource else replace(event, resource=MANY)
        self.held = burst.event
        return True

    def sums(self) -> list[Event]:
        """The lines of everything held, which stays held."""
        return [_line(burst) for burst in self._bursts.values() if burst.held]

    @property
    def deadline_ns(self) -> int | None:
        """When the next window with something held ends."""
        return min((burst.ends for burst in self._bursts.values() if burst.held), default=None)

    def due(self, now_ns: int) -> list[Event]:
        """The lines of all windows that have ended. A burst that goes on is held from its first event then."""
        lines = []
        for key, burst in list(self._bursts.items()):
            if burst.ends > now_ns:
                continue
            if burst.held:
                lines.append(_line(burst))
                self._bursts[key] = _Burst(ends=now_ns + self._window, seen=self._first)
            else:
                del self._bursts[key]
        return lines

    def drain(self) -> list[Event]:
        """The lines of everything held."""
        lines = [_line(burst) for burst in self._bursts.values() if burst.held]
        self._bursts.clear()
        return lines


def _line(burst: _Burst) -> Event:
    if burst.event is None:
        raise AssertionError("a burst that holds nothing has no line")
    details = {**burst.event.details, "count": burst.held, "first_seen": burst.first, "last_seen": burst.last}
    return replace(burst.event, details=details)
