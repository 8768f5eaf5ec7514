"""What an audit writer could not take or could not vouch for, until an `audit.gap` event has told it."""

from __future__ import annotations

from agent.record.event import Event
from agent.record.notices import gap


class Losses:
    """Occurrences by event type, and the numbers of events that are in the log although their caller was told that they
    are not. Not thread-safe."""

    def __init__(self) -> None:
        self._lost: dict[str, int] = {}
        self._disowned: list[int] = []
        self._reason = ""

    def __bool__(self) -> bool:
        return bool(self._lost or self._disowned)

    @property
    def total(self) -> int:
        """Occurrences lost and not told."""
        return sum(self._lost.values())

    def add(self, event: Event, reason: str) -> int:
        """The event was not taken; how many occurrences that is."""
        count = max(1, event.count)
        self._lost[event.type.value] = self._lost.get(event.type.value, 0) + count
        self._reason = reason
        return count

    def disown(self, seq: int, reason: str) -> None:
        """The event will be in the log, but its caller was told that it is not: the gap event says so."""
        self._disowned.append(seq)
        self._reason = reason

    def notice(self) -> Event:
        """The event that tells them."""
        return gap(self._lost, self._disowned, self._reason)

    def told(self) -> None:
        """They are told."""
        self._lost, self._disowned = {}, []
