"""The egress process's recorder: events travel to the guard, which owns the audit log.

Rules kept here: nothing blocks (frames wait in one bounded buffer); an allow that cannot be put in the buffer, or is
not answered because the channel ends, is not accepted; a denial is never lost while the process lives: past the bound,
equal denials are folded into one event whose `count` is exact, and what cannot be told apart in bounded memory is
folded by rule under the resource ``(many)``. What the guard has not said it took can be left for another guard
(`last_words`): that may be told twice, and is not lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from itertools import count
from typing import Final

from agent.channel import Channel, Message, frame
from agent.record.event import Event, Json, RecordError, fields_of
from agent.values import replace

MAX_BACKLOG: Final = 2 * 1024 * 1024
MAX_PENDING: Final = 8192
MAX_FOLDED: Final = 256
MENTION_SECONDS: Final = 0.002

type _Key = tuple[str, str, Json, str]


class ChannelRecorder:
    """`gate.Recorder` over the channel. Must be made inside the running loop; the socket must be non-blocking.

    `on_end` is called once, when the channel is found closed while writing. `remember`: the other end says which
    denials it has taken; the others are kept.
    """

    def __init__(
        self,
        channel: Channel,
        on_end: Callable[[str], None],
        *,
        max_backlog: int = MAX_BACKLOG,
        remember: bool = False,
    ) -> None:
        self._sock = channel.sock
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._max_backlog = max_backlog
        self._backlog = bytearray()
        self._pending: dict[int, asyncio.Future[None]] = {}
        self._folded: dict[_Key, Event] = {}
        self._remember = remember
        self._untaken: dict[int, bytes] = {}
        self._numbers = count(1)
        self._scheduled = False
        self._mentioning = False  # a flush is on its way, some time
        self._stuck = False  # the channel takes no more for now
        self._empty = asyncio.Event()
        self._empty.set()
        self._closed = False

    def post(self, event: Event) -> None:
        """Take a denial. Raises RecordError only where the channel has ended."""
        if self._closed:
            raise RecordError("the guard is gone")
        if len(self._backlog) > self._max_backlog or self._folded:
            self._fold(event)
        else:
            self._send_event(event, wanted=False)

    def accept(self, event: Event) -> asyncio.Future[None]:
        """Take an allow; the future is done when the guard's writer has it, or fails with RecordError."""
        if self._closed:
            raise RecordError("the guard is gone")
        if len(self._backlog) > self._max_backlog or len(self._pending) >= MAX_PENDING:
            raise RecordError("too many records wait for the guard")
        number = self._send_event(event, wanted=True)
        future = self._pending[number] = self._loop.create_future()
        return future

    def settle(self, number: int, error: str | None) -> None:
        """The guard's answer to `accept`. An unknown number is a fault of the guard: KeyError."""
        future = self._pending.pop(number)
        if future.done():  # the connection that waited was given up
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(RecordError(error))

    def taken(self, through: int) -> None:
        """The guard has recorded every denial up to this number."""
        for number in list(self._untaken):  # in order
            if number > through:
                return
            del self._untaken[number]

    def last_words(self) -> bytes:
        """The denials that the guard has not said it took, as they would travel."""
        self._unfold()
        return b"".join(self._untaken.values())

    def mention(self, message: Message) -> bool:
        """What nobody depends on: left out, and False, where the guard is far behind.

        It goes with the next event and before it, or by itself `MENTION_SECONDS` later: each write wakes the guard.
        """
        if self._closed or len(self._backlog) > self._max_backlog:
            return False
        self._backlog += frame(message)
        self._empty.clear()
        if not self._scheduled and not self._mentioning:
            self._mentioning = True
            self._loop.call_later(MENTION_SECONDS, self._flush_mentioned)
        return True

    def send(self, message: Message) -> None:
        """Anything else for the guard (`ca`, `ready`, `stats`), in order with the events."""
        if not self._closed:
            self._push(frame(message))

    def close(self) -> None:
        """The channel has ended: whoever waits is refused."""
        self._closed = True
        self._empty.set()
        self._loop.remove_writer(self._sock.fileno())
        for future in self._pending.values():
            if not future.done():
                future.set_exception(RecordError("the guard is gone"))
        self._pending.clear()

    async def drain(self, seconds: float) -> None:
        """Wait, at most this long, until everything is sent."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()

    def _send_event(self, event: Event, *, wanted: bool) -> int:
        number = next(self._numbers)
        data = frame({"type": "event", "n": number, "accept": wanted, "event": fields_of(event)})
        if self._remember and not wanted:
            self._untaken[number] = data
        self._push(data)
        return number

    def _fold(self, event: Event) -> None:
        rule = event.details.get("rule")
        key: _Key = (event.type, event.resource, rule, event.result)
        if key not in self._folded and len(self._folded) >= MAX_FOLDED:
            key = (event.type, "(many)", rule, event.result)
            event = replace(event, resource="(many)")
        before = self._folded.get(key)
        total = event.count + (before.count if before is not None else 0)
        self._folded[key] = replace(event, details={**event.details, "count": total})

    def _push(self, data: bytes) -> None:
        self._backlog += data
        self._empty.clear()
        if not self._scheduled:  # one write for all that happens in one turn of the loop
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush_mentioned(self) -> None:
        self._mentioning = False
        if self._backlog and not self._scheduled:
            self._scheduled = True
            self._flush()

    def _flush(self) -> None:
        if self._closed:
            return
        try:
            while self._backlog:
                sent = self._sock.send(self._backlog)
                del self._backlog[:sent]
                if not self._backlog:
                    self._unfold()
        except BlockingIOError:
            self._loop.add_writer(self._sock.fileno(), self._flush)
            self._stuck = True
            return
        except OSError as error:
            self.close()
            self._on_end(f"channel: {error}")
            return
        if self._stuck:
            self._loop.remove_writer(self._sock.fileno())
            self._stuck = False
        self._scheduled = False
        self._empty.set()

    def _unfold(self) -> None:
        folded, self._folded = self._folded, {}
        for event in folded.values():
            self._send_event(event, wanted=False)
