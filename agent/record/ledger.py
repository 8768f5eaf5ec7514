"""The one writer of the audit log: takes events, chains them, commits them in groups, counts them.

Rules:
- An event is chained the moment it is taken, under one lock, so the order of the log is the order of acceptance. A
  thread of its own writes what is queued: one write and one fdatasync(2) for a group, begun when 64 events wait, when
  the oldest has waited 20 ms, or when somebody waits for the disk.
- `accept` raises where the event was not taken: the writer failed, the queue is full, the log is closed, the event has
  no canonical form. Under ``durable: strict`` it returns only once the event is synced.
- `post` never waits. While the disk fails it still takes events, as far as the queue's bounds go.
- What is written fails whole: a batch stays queued and is tried again, with back-off. What was not taken is counted, by
  type, and told by an `audit.gap` event as soon as writing works.
- Only taken events are counted, each once: the counters are the sum of the log's lines. Whoever watches sees the same.
- The details named in `agent.record.stamps.STAMPS` are the writer's: an event cannot choose them.
- What is taken and not written yet, bursts included, is in memory that a successor can have (`agent.record.unwritten`).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from agent.record.branch import again, began
from agent.record.chain import CanonicalError, Head, link, timestamp
from agent.record.coalesce import Coalescer
from agent.record.event import Event, Json, RecordError
from agent.record.log import DEFAULT_ROTATE_BYTES, Log, LogError, WriterBusy
from agent.record.losses import Losses
from agent.record.metrics import Metrics, Numbers
from agent.record.notices import recovered
from agent.record.replay import events_after
from agent.record.stamps import Stamps
from agent.record.unwritten import Unkept, write_left
from agent.record.waiting import Queued, Waiting
from agent.values import replace

__all__ = ["AuditSettings", "Ledger", "WriterBusy"]

log = logging.getLogger(__name__)

GROUP_EVENTS = 64
GROUP_SECONDS = 0.020
_RETRY_FIRST, _RETRY_MOST = 0.1, 5.0
_STRICT_SECONDS = 10.0
_NANO = 1_000_000_000


class AuditSettings(Protocol):
    """The `audit` section of a policy, as far as the writer obeys it (`on_failure` is the gate's)."""

    @property
    def durable(self) -> str: ...


class Ledger:
    """A `gate.Recorder`. `start` it, `post` and `accept` from any thread, `close` it.

    `policy_digest` is what goes into events that name none; `durability` is ``group`` or ``strict``. The queue is
    bounded by `queue_events` and `queue_bytes`.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        session_id: str,
        boot: str,
        policy_digest: Callable[[], str] | str = "",
        metrics: Metrics | None = None,
        durability: str = "group",
        rotate_bytes: int = DEFAULT_ROTATE_BYTES,
        queue_events: int = 16 * 1024,
        queue_bytes: int = 32 * 1024 * 1024,
        coalescer: Coalescer | None = None,
        unwritten: Unkept | None = None,
    ) -> None:
        self._log = Log(Path(directory), rotate_bytes=rotate_bytes)
        self._stamps = Stamps(session_id, boot, policy_digest)
        self._metrics = metrics or Metrics(version="")
        self._strict = durability == "strict"
        self._coalescer = coalescer or Coalescer()
        self._unwritten = unwritten or Unkept()
        self._redact: Callable[[Event], Event] = lambda event: event
        self._watcher: Callable[[Event], None] | None = None
        self._steady: Callable[[], bool] = lambda: True
        self._io = threading.Lock()  # taken before the other one: whoever holds it may touch the files
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._done = threading.Condition(self._lock)
        self._queue = Waiting(queue_events, queue_bytes)
        self._head = Head("")
        self._synced, self._on_disk = 0, (self._head, boot)  # the last event that is, and its boot
        self._hurry = 0
        self._losses = Losses()
        self._failure: LogError | None = None
        self._retry_at, self._retry_delay = 0.0, _RETRY_FIRST
        self._told = (0, 0)  # how many of the log's recoveries are told, and the seq of the last such event
        self._running = self._closing = self._giving_up = False
        self._thread = threading.Thread(target=self._run, name="audit-writer", daemon=True)

    def start(self, counted: int | None = None) -> None:
        """Open the log and go on where it ends. `counted`: go on for another writer, with what it left; its metrics,
        which these go on with, count all up to this `seq`. Raises WriterBusy, LogError (both are RecordError)."""
        head = write_left(self._log, self._log.open(), self._unwritten)
        for event in [] if counted is None else events_after(self._log.directory, counted):
            self._metrics.count(event)
        with self._lock:
            self._head = head or Head(str(uuid.uuid4()))
            self._synced = self._head.seq
            self._on_disk = self._head, self._stamps.boot
            self._running = True
            self._metrics.set_sequence(self._synced)
            self._tell_recovered()
            self._release(list(self._unwritten.left().bursts))
        self._thread.start()

    def configure(self, settings: AuditSettings) -> None:
        """Obey the `audit` section of a (re)loaded policy."""
        with self._lock:
            self._strict = settings.durable == "strict"

    def redact_with(self, redact: Callable[[Event], Event]) -> None:
        """Pass every event through `redact` from now on: what it takes out is in no line of the log."""
        self._redact = redact

    def watch_with(self, watcher: Callable[[Event], None] | None) -> None:
        """Show `watcher` every event that is taken, in order and under the ledger's lock: it returns at once, calls
        nothing of the ledger, and raises nothing."""
        self._watcher = watcher

    def redacted(self, event: Event) -> Event:
        """The event as a line of the log would have it."""
        return self._redact(event)

    def write_while(self, steady: Callable[[], bool]) -> None:
        """Ask `steady` before each write. While it says no, nothing is written and nothing accepted."""
        self._steady = steady

    def branch(self, directory: Path, boot: str, details: Mapping[str, Json]) -> None:
        """End the stream where it is on disk; go on in a new one, in a directory of its own (`agent.record.branch`).

        The counters begin anew, as the sum of the new stream's lines. Raises LogError where the directory cannot be
        had: nothing is written then until a later call succeeds.
        """
        with self._io:
            self._log.close()
            self._log = Log(directory, rotate_bytes=self._log.rotate_bytes)
            self._log.open_new()
            with self._lock:
                self._begin_anew(replace(self._stamps, boot=boot), details)

    def post(self, event: Event) -> None:
        """Take the event without waiting for anything. Raises RecordError where it was lost (and has been counted)."""
        event = self._redact(event)
        with self._lock:
            now = time.monotonic_ns()
            if self._running and not self._closing and self._coalescer.offer(event, now, timestamp(time.time_ns())):
                self._unwritten.hold(self._coalescer, self._queue)
                self._work.notify()
                return
            self._admit(event)

    def accept(self, event: Event) -> None:
        """Take the event; on return the caller may act on it. Raises RecordError where it was not taken."""
        event = self._redact(event)
        with self._lock:
            if self._failure is not None:
                self._lose(event, str(self._failure))
                raise RecordError(str(self._failure)) from self._failure
            seq = self._admit(event)
            if self._strict and not self._wait_synced(seq, _STRICT_SECONDS):
                self._losses.disown(seq, str(self._failure or "not synced in time"))
                raise RecordError(str(self._failure or "the audit log did not reach the disk in time"))

    def flush(self, timeout: float = 5.0) -> None:
        """Wait until all that was taken so far, held bursts included, is synced.

        Raises RecordError where writing fails or takes longer than `timeout` seconds.
        """
        with self._lock:
            self._release(self._coalescer.drain())
            if not self._wait_synced(self._head.seq, timeout):
                raise RecordError(str(self._failure or "the audit log did not reach the disk in time"))

    def close(self, timeout: float = 5.0) -> None:
        """Write what is queued, stop, release the log. Raises RecordError naming what could not be written."""
        with self._lock:
            if not self._running:
                return
            self._release(self._coalescer.drain())
            self._closing = True
            self._work.notify()
        self._thread.join(timeout)
        with self._lock:
            left, lost, self._running = len(self._queue), self._losses.total, False
        if self._thread.is_alive():
            raise RecordError(f"the audit log did not close within {timeout:g} s; {left} events are not on disk")
        self._log.close()
        if left or lost:
            raise RecordError(f"{left} queued and {lost} lost events are not in the audit log: {self._failure}")

    def counts(self) -> tuple[str, Path, int, Numbers]:
        """Boot, directory, `seq` of the last event taken, and the metrics in which it and all before it are counted."""
        with self._lock:
            return self._stamps.boot, self._log.directory, self._head.seq, self._metrics.numbers()

    @property
    def boot(self) -> str:
        """Of the stream that is written."""
        return self._stamps.boot

    @property
    def synced(self) -> int:
        """`seq` of the last event known to be on disk."""
        return self._synced

    @property
    def seq(self) -> int:
        """`seq` of the last event taken."""
        return self._head.seq

    @property
    def failure(self) -> str | None:
        """Why writing does not work at the moment, None while it does."""
        return None if (failure := self._failure) is None else str(failure)

    # -- under the lock --------------------------------------------------------------------------------------------

    def _admit(self, event: Event) -> int:
        if self._closing:
            self._lose(event, "the audit log is closing")
            raise RecordError("the audit log is closing")
        return self._take_or_lose(event)

    def _take_or_lose(self, event: Event) -> int:
        try:
            return self._take(event)
        except RecordError as error:
            self._lose(event, str(error))
            raise

    def _take(self, event: Event) -> int:
        if not self._running:
            raise RecordError("the audit log is not open")
        if self._queue.full:
            raise RecordError(str(self._failure or "the audit log's queue is full"))
        count = event.details.get("count", 1)
        if type(count) is not int or count < 1:
            raise RecordError(f"details.count is {count!r}, not a positive integer")
        try:
            line, head = link(self._head, event, self._stamps.of(event), time.time_ns())
        except CanonicalError as error:
            raise RecordError(f"{event.type} cannot be written: {error}") from error
        self._head = head
        self._unwritten.line(line, event)
        self._queue.add(head, line)
        self._metrics.count(event)
        if self._watcher is not None:
            self._watcher(event)
        if len(self._queue) in (1, GROUP_EVENTS) or self._hurry:
            self._work.notify()
        return head.seq

    def _lose(self, event: Event, reason: str) -> None:
        self._metrics.lost(self._losses.add(event, reason))
        self._work.notify()

    def _release(self, lines: list[Event]) -> None:
        """Write what was held back; what cannot be taken is counted as lost by `_take_or_lose`."""
        for event in lines:
            try:
                self._take_or_lose(event)
            except RecordError as error:
                log.error("a burst of denials could not be recorded: %s", error)

    def _wait_synced(self, seq: int, timeout: float) -> bool:
        if self._synced >= seq:
            return True
        self._hurry += 1
        self._work.notify()
        try:
            self._done.wait_for(lambda: self._synced >= seq or self._failure is not None or not self._running, timeout)
        finally:
            self._hurry -= 1
        return self._synced >= seq

    def _tell_recovered(self) -> None:
        for found in self._log.recovered[self._told[0] :]:
            self._release([recovered(found)])
            self._told = (self._told[0] + 1, self._head.seq)

    def _begin_anew(self, stamps: Stamps, details: Mapping[str, Json]) -> None:
        first = began(*self._on_disk, details)
        waiting = self._queue.take_all()
        self._unwritten.begin_anew()
        self._told, self._failure = (0, 0), None
        self._stamps, self._head, self._synced = stamps, Head(str(uuid.uuid4())), 0
        self._metrics.begin_anew()
        self._release([first, *map(again, waiting)])

    # -- the writer's thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Until closed. If anything unforeseen ends this thread, nothing is accepted any more."""
        try:
            while batch := self._next_batch():
                self._commit(batch)
        finally:
            with self._lock:
                self._running = False
                self._done.notify_all()

    def _next_batch(self) -> list[Queued]:
        """Wait for the next group; empty where the writer is to end."""
        with self._lock:
            while True:
                now = time.monotonic()
                self._release(self._coalescer.due(time.monotonic_ns()))
                if self._giving_up:
                    return []
                if self._failure is None and self._losses:
                    with suppress(RecordError):  # still full: tried again after the next commit
                        self._take(self._losses.notice())
                        self._losses.told()
                if self._queue:
                    wait = self._group_wait(now)
                    if wait <= 0:
                        return self._queue.group()
                elif self._closing:
                    return []
                else:
                    wait = None
                held = self._coalescer.deadline_ns
                if held is not None:
                    until = max(0.0, held / _NANO - now)
                    wait = until if wait is None else min(wait, until)
                self._work.wait(wait)

    def _group_wait(self, now: float) -> float:
        """Seconds until the group at the head of the queue is to be written."""
        if self._closing:
            return 0
        if self._failure is not None:
            return self._retry_at - now
        if self._hurry or len(self._queue) >= GROUP_EVENTS:
            return 0
        return self._queue.since + GROUP_SECONDS - now

    def _commit(self, batch: list[Queued]) -> None:
        with self._io:
            if not self._steady():
                self._failed(LogError("the agent stood still and may have been restored: a new stream is to begin"))
            elif self._queue.begins_with(batch):  # else a new stream has begun meanwhile
                self._write(batch)

    def _write(self, batch: list[Queued]) -> None:
        try:
            self._log.append(b"".join(queued.line for queued in batch), batch[0].head.seq, batch[-1].head.seq)
        except LogError as error:
            self._failed(error)
            return
        self._committed(batch)
        told, seq = self._told
        if told and seq <= batch[-1].head.seq:
            try:
                self._log.settle(told)
            except LogError as error:
                log.error("%s; the next start will tell it again", error)
            self._told = (0, 0)
        with self._lock:
            self._tell_recovered()

    def _failed(self, error: LogError) -> None:
        with self._lock:
            if self._failure is None:
                log.error("%s; trying again until it works", error)
                self._retry_delay = _RETRY_FIRST
            self._failure = error
            self._giving_up = self._closing
            self._retry_at = time.monotonic() + self._retry_delay
            self._retry_delay = min(_RETRY_MOST, self._retry_delay * 2)
            self._done.notify_all()

    def _committed(self, batch: list[Queued]) -> None:
        with self._lock:
            self._queue.drop(batch)
            if self._failure is not None:
                log.warning("the audit log can be written again")
                self._failure = None
            self._synced = batch[-1].head.seq
            self._on_disk = batch[-1].head, self._stamps.boot
            self._metrics.set_sequence(self._synced)
            self._done.notify_all()
            self._unwritten.tidy(self._queue, self._coalescer)
