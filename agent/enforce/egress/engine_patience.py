"""How long an intercepted connection may take for a request's head, and how long it may rest.

Rules kept here: a TLS handshake with the first request's head, every later head from its first byte, and every TLS
record is complete within the time for a head, or the connection is cut; time in which the engine itself does not read
is not the client's. Rest is what mitmproxy counts (no byte from either side), bounded by the session's and the rule's
idle time; a shorter one that comes with a new policy holds within `LOOK_SECONDS`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from mitmproxy.proxy.server import TimeoutWatchdog

LOOK_SECONDS: Final = 30.0


class HeadClock:
    """Calls `late()` once when what the client has begun is not complete after `seconds`. It runs from the start."""

    def __init__(self, seconds: float, late: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._late = late
        self._reading = True
        self._due: float | None = self._loop.time() + seconds
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(seconds, self._ring)

    def heard(self, *, incomplete: bool) -> None:
        """The client has sent something. `incomplete`: something is begun and not complete."""
        if not incomplete:
            self._due = None
        elif self._due is None:
            self._due = self._loop.time() + self._seconds
            if self._timer is None:
                self._timer = self._loop.call_later(self._seconds, self._ring)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While the client is not read."""
        began, self._reading = self._loop.time(), False
        try:
            yield
        finally:
            self._reading = True
            if self._due is not None:
                self._due += self._loop.time() - began

    def stop(self) -> None:
        self._due = None
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self) -> None:
        """The timer is not moved with every head, which would cost more: it looks when it rings."""
        self._timer = None
        if self._due is None:
            return
        left = self._due - self._loop.time()
        if left > 0 or not self._reading:
            self._timer = self._loop.call_later(max(left, 0.1), self._ring)
            return
        self._late()


class Rest(TimeoutWatchdog):
    """mitmproxy's watchdog, which notices that its time has become shorter."""

    async def watch(self) -> None:
        try:
            while True:
                await self.can_timeout.wait()
                left = self.timeout - (time.time() - self.last_activity)
                if left < 0:
                    await self.callback()
                    return
                await asyncio.sleep(min(left + 0.001, LOOK_SECONDS))
        except asyncio.CancelledError:
            return
