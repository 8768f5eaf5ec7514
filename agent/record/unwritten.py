"""What the writer has taken and not yet written, in memory that outlives it: a successor writes it.

Rules kept here: a record is whole or not there, whenever its writer dies; lines are kept as they are chained, so that
the successor adds them to the log as they are and the chain goes on; of a burst that is held back, every event is kept
until the line that sums it up is. What is kept is dropped when nothing of it is unwritten any more. It is on no disk
and does not outlive the machine: that is the log's part.

The memory is a file without a name (agent.linux.memory), of which only what is in use takes space. It has two halves:
when one is full, what is still unwritten moves to the other.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
import weakref
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

import orjson

from agent.record.chain import Head, read, timestamp
from agent.record.coalesce import MANY, Coalescer
from agent.record.event import Event, event_of, fields_of
from agent.record.log import Log
from agent.record.waiting import Waiting
from agent.values import dataclass, replace

HALF: Final = 64 << 20
"""Bytes: more than the writer's queue and the bursts it follows can come to."""
_START: Final = struct.Struct("=Q")  # which half counts
_RECORD: Final = struct.Struct("=IB16s")  # length of the data, kind, which burst
_PLAIN, _SUM, _HELD = 1, 2, 3
_KEEP: Final = 1 << 20
_GROWTH: Final = 8 << 20
"""Bytes that may be added before what is still unwritten is moved."""
_NO_BURST: Final = bytes(16)


@dataclass(frozen=True, slots=True)
class Left:
    """What a writer left: lines of the log in order, and events that sum up what it held back."""

    lines: tuple[bytes, ...]
    bursts: tuple[Event, ...]


class Unkept:
    """Keeps nothing: a writer without a successor."""

    def line(self, line: bytes, event: Event) -> None:
        """One more line waits to be written."""

    def hold(self, coalescer: Coalescer, queued: Waiting) -> None:
        """The coalescer has held back one more event. `queued`: what waits to be written."""

    def tidy(self, queued: Waiting, coalescer: Coalescer) -> None:
        """Exactly this is still unwritten, and what the coalescer holds back; drop all else, once it is much or all."""

    def begin_anew(self) -> None:
        """What is unwritten is taken again, in a new stream."""

    def left(self) -> Left:
        """What a predecessor left. A sum whose line is there is not there twice."""
        return Left((), ())


class Unwritten(Unkept):
    """Not thread-safe: the writer's lock is held. `descriptor`: of such a file, a predecessor's or an empty one (now
    its own)."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._release = weakref.finalize(self, os.close, descriptor)
        if os.fstat(descriptor).st_size == 0:
            os.ftruncate(descriptor, _START.size + 2 * HALF)
        self._memory = mmap.mmap(self.descriptor, _START.size + 2 * HALF)
        self._half = _START.unpack_from(self._memory)[0] & 1
        self._end = self._moved = self._begin

    def line(self, line: bytes, event: Event) -> None:
        kind, burst = (_SUM, burst_of(event)) if "first_seen" in event.details else (_PLAIN, _NO_BURST)
        self._put(kind, burst, line)

    def hold(self, coalescer: Coalescer, queued: Waiting) -> None:
        held = coalescer.held
        if held is None:
            raise AssertionError("nothing is held back")
        self._hold(held, timestamp(time.time_ns()))
        if self._end - self._moved > _GROWTH:
            self.tidy(queued, coalescer)

    def tidy(self, queued: Waiting, coalescer: Coalescer) -> None:
        if not len(queued) and coalescer.deadline_ns is None:
            self._clear()
        elif self._end - self._moved > _GROWTH:
            self._move(queued.lines, coalescer.sums())

    def begin_anew(self) -> None:
        self._clear()

    def _hold(self, event: Event, seen: str) -> None:
        self._put(_HELD, burst_of(event), orjson.dumps({**fields_of(event), "seen": seen}))

    def _clear(self) -> None:
        used, self._end = self._end - self._begin, self._begin
        self._moved = self._end
        self._memory[self._begin : self._begin + _RECORD.size] = bytes(_RECORD.size)
        if used > _KEEP:
            os.ftruncate(self.descriptor, _START.size)
            os.ftruncate(self.descriptor, _START.size + 2 * HALF)

    def _move(self, lines: list[bytes], sums: list[Event]) -> None:
        self._half ^= 1
        self._end = self._begin
        self._memory[self._begin : self._begin + _RECORD.size] = bytes(_RECORD.size)
        for line in lines:
            self._put(_PLAIN, _NO_BURST, line)
        for event in sums:
            self._hold(event, str(event.details["last_seen"]))
        self._moved = self._end
        _START.pack_into(self._memory, 0, self._half)

    def left(self) -> Left:
        lines: list[bytes] = []
        bursts: dict[bytes, Event] = {}
        for kind, burst, data in self._records():
            if kind == _HELD:
                fields = orjson.loads(data)
                bursts[burst] = _summed(bursts.get(burst), event_of(fields), str(fields["seen"]))
                continue
            lines.append(data)
            if kind == _SUM:
                bursts.pop(burst, None)
        return Left(tuple(lines), tuple(bursts.values()))

    def close(self) -> None:
        self._memory.close()
        self._release()

    @property
    def _begin(self) -> int:
        return int(_START.size + self._half * HALF)

    def _put(self, kind: int, burst: bytes, data: bytes) -> None:
        at, size = self._end, _RECORD.size + len(data)
        if at + size + _RECORD.size > self._begin + HALF:
            raise OverflowError("more is unwritten than can be")
        self._memory[at + _RECORD.size : at + size] = data
        _RECORD.pack_into(self._memory, at + size, 0, 0, _NO_BURST)  # the end, before there is something before it
        self._memory[at : at + _RECORD.size] = _RECORD.pack(len(data), kind, burst)
        self._end = at + size

    def _records(self) -> Iterator[tuple[int, bytes, bytes]]:
        at, most = self._begin, self._begin + HALF - _RECORD.size
        while at <= most:
            length, kind, burst = _RECORD.unpack_from(self._memory, at)
            if not kind or at + _RECORD.size + length > most:
                return
            at += _RECORD.size
            yield kind, burst, self._memory[at : at + length]
            at += length


def write_left(log: Log, head: Head | None, unwritten: Unkept) -> Head | None:
    """Add to the log, whose end is `head`, the lines that another writer left; its new end. Raises LogError."""
    last = head or Head("")
    links = [(line, read(line)) for line in unwritten.left().lines]
    after = [(line, link) for line, link in links if link.stream != last.stream or link.seq > last.seq]
    if not after or after[0][1].previous != last.hash:
        return head
    end = after[-1][1]
    log.append(b"".join(line for line, _ in after), after[0][1].seq, end.seq)
    return Head(end.stream, end.seq, end.hash)


def burst_of(event: Event) -> bytes:
    """Which burst an event belongs to, by what `agent.record.coalesce` goes by."""
    source = None if event.resource == MANY else event.source_ip
    key = (event.type, event.actor, event.action, event.resource, source, event.details.get("rule"))
    return blake2b(repr(key).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _summed(before: Event | None, event: Event, seen: str) -> Event:
    details = event.details
    count = event.count + (0 if before is None else before.count)
    first = details.get("first_seen", seen) if before is None else before.details["first_seen"]
    return replace(event, details={**details, "count": count, "first_seen": first, "last_seen": seen})
