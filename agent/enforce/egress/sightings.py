"""Giving the guard time to see whose connection it is, before a refusal sends the client away.

Whose a connection is only the guard can see, and only while its process holds it open. An allow waits for the guard
anyway; a refusal doesn't, and its client closes within a fraction of a millisecond. So a refusal's answer (never its
record) waits until the guard has looked, at most `PATIENCE`, and only while few others wait: in a flood of refusals the
answers go out at once, and lines whose client is gone by then name no process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from agent.channel import Message

PATIENCE: Final = 0.1
"""Seconds that a refusal waits for the guard's look."""
MOST_WAITING: Final = 8
"""Refusals that wait at one time."""


class Sightings:
    """Tells the guard about accepted connections, by number, and knows up to which number it has looked.

    `mention` sends it a message, and returns False where it did not.
    """

    def __init__(self, mention: Callable[[Message], bool]) -> None:
        self._mention = mention
        self._last = 0
        self._seen = 0
        self._waiting: dict[asyncio.Future[None], int] = {}

    def opened(self, source: tuple[str, int], destination: tuple[str, int], *, udp: bool = False) -> int:
        """A connection with these two ends was accepted, or (`udp`) a datagram came; its number.

        0 where the guard is too far behind to be told.
        """
        ends = {"source": source, "destination": destination}
        if not self._mention({"type": "opened", "n": self._last + 1, **ends, "udp": udp}):
            return 0
        self._last += 1
        return self._last

    def seen(self, through: int) -> None:
        """The guard has looked at every connection up to this number."""
        self._seen = max(self._seen, through)
        for waiting, number in self._waiting.items():
            if number <= through:
                _release(waiting)

    async def wait(self, number: int) -> None:
        """Until the guard has looked at this connection, or `PATIENCE` is over; not at all where too many wait."""
        if number <= self._seen or len(self._waiting) >= MOST_WAITING:
            return
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[None] = loop.create_future()
        self._waiting[waiting] = number
        patience = loop.call_later(PATIENCE, _release, waiting)
        try:
            await waiting
        finally:
            patience.cancel()
            del self._waiting[waiting]


def _release(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
