"""A restored agent: a new boot, and a new stream that is linked to the one before.

Rules kept here: an agent that may have been restored from a checkpoint writes nothing more to the stream it had:
another copy of it may do the same. It goes on in a directory of its own inside the old one, which whatever hides that
one hides too, with a boot of its own, under which it also pushes. Until that directory is there nothing is recorded, so
what must be recorded is refused.

Two copies also have the same state of every random generator, and with it the same keys of the connections to come.
So the egress process, which makes them, is replaced by one that starts afresh (what was connected is dead anyway), and
this process's generators are stirred. The next one makes an interception CA with a key of its own
(`agent.enforce.egress.ca`), which stands in the session's bundle in the place of the old one, and gets another token.
Not renewed, because the session's programs hold them, are the placeholders of its secrets: they are worth something to
this agent alone, and stand for the same values in every copy.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from agent.daemon.base.spec import RunSpec
from agent.daemon.survival.pulse import Pulse
from agent.record.branch import DIRECTORY
from agent.record.event import Json, RecordError
from agent.record.ledger import Ledger
from agent.version import version

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 1.0
STIRRED: Final = 64
PAUSE: Final = "restored: the agent stood still"
MOVED: Final = "restored: the session's sockets have left its network"
TOLD: Final = "restored: told by the platform"


class Surroundings(Protocol):
    """What this needs of `agent.daemon.beside.companions.Company`."""

    @property
    def spec(self) -> RunSpec: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def renew_egress(self) -> Callable[[], Awaitable[None]]: ...
    @property
    def moved(self) -> Callable[[], int]: ...


class Restoring:
    """The companion. `pulse`: what notices, made with the callback that it is given."""

    def __init__(
        self, company: Surroundings, pulse: Callable[[Callable[[float], None], Callable[[], int]], Pulse] | None = None
    ) -> None:
        self._company = company
        self._loop = asyncio.get_running_loop()
        self._moved = company.moved()
        self._pulse = (pulse or _pulse)(self._paused, company.moved)
        self._beginning: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """From here on nothing is written after a pause but to a new stream."""
        self._company.ledger.write_while(self._pulse.steady)
        self._pulse.start()

    async def stop(self) -> None:
        await asyncio.to_thread(self._pulse.stop)
        if self._beginning is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._beginning, RETRY_SECONDS)

    async def restored(self, actor: str) -> str:
        """The platform says so, which is the sure way; returns the new boot, to whose stream the next event belongs.

        Raises RecordError where there is no place for it; then nothing is written any more until there is.
        """
        return await self._begin({"reason": TOLD, "told_by": actor})

    def _paused(self, seconds: float) -> None:
        self._loop.call_soon_threadsafe(self._begin_soon, seconds)

    def _begin_soon(self, seconds: float) -> None:
        log.warning("the agent stood still for %.1f s, or has been moved: a new stream begins", seconds)
        self._beginning = self._loop.create_task(self._begin_some_time(int(seconds)))

    async def _begin_some_time(self, seconds: int) -> None:
        while True:
            try:
                reason = PAUSE if self._company.moved() == self._moved else MOVED
                await self._begin({"reason": reason, "seconds": seconds})
            except RecordError as error:
                log.error("no new stream yet: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _begin(self, details: dict[str, Json]) -> str:
        """Raises RecordError where there is no place for it."""
        boot = uuid.uuid4().hex[:12]  # of the kernel's random numbers, which no checkpoint holds
        directory = Path(self._company.spec.audit_dir) / f"{DIRECTORY}{boot}"
        told = {"version": version(), "directory": directory.name, **details}
        await asyncio.to_thread(self._company.ledger.branch, directory, boot, told)
        self._pulse.settled()
        self._moved = self._company.moved()
        _stir()
        await self._company.renew_egress()
        return boot


def _pulse(paused: Callable[[float], None], moved: Callable[[], int]) -> Pulse:
    return Pulse(paused, moved=moved)


def _stir() -> None:
    """Mix the kernel's random numbers into the generators of this process (RAND_add(3))."""
    import ssl  # at no session's start

    ssl.RAND_add(os.urandom(STIRRED), STIRRED)
    random.seed()
