"""Detectors over the events of a session: sees what the log takes, tells and answers what `detect` looks for.

Rules kept here: every event is seen after the log has taken it and before anything else happens to it, in the order of
the log; what is decided about it costs the log no wait; a detection is recorded before it is answered; a fault of a
detector never costs an event or an answer, and is said once. What was seen lives in this process: with it it is lost.

Bytes are taken once a second from what the egress process reports.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from agent.daemon.base.journal import Journal
from agent.policy.detection import Detection, Sighting, Watch
from agent.policy.lockdown import Measure
from agent.policy.model import Policy
from agent.policy.model_detect import Detector
from agent.record.event import Event, RecordError
from agent.record.ledger import Ledger
from agent.session.levels import Level, Point

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
ANSWER_SECONDS = 5.0


class Counted(Protocol):
    """Who knows how many bytes went out."""

    @property
    def bytes_up(self) -> int: ...


class Home(Protocol):
    @property
    def home(self) -> str: ...


class Surroundings(Protocol):
    """What detectors need of `agent.daemon.beside.companions.Company`."""

    @property
    def policy(self) -> Callable[[], Policy]: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def link(self) -> Counted: ...
    @property
    def places(self) -> Home: ...


class Containment(Protocol):
    """What contains the session (`agent.daemon.control.lockdown`)."""

    @property
    def measure(self) -> Measure | None:
        """What holds now."""

    async def engage(self, measure: Measure, cause: str) -> object: ...


class Detecting:
    """The companion. `clock`: monotonic nanoseconds."""

    def __init__(
        self, company: Surroundings, containment: Containment, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._company = company
        self._containment = containment
        self._clock = clock
        self._engaging: Measure | None = None
        self._answers: set[asyncio.Task[object]] = set()
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()  # the ledger's threads, and the loop's
        self._policy = company.policy()
        self._watch = Watch(self._policy, company.places.home)
        self._sent = company.link.bytes_up
        self._failed = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """From here on every event is seen."""
        self._company.ledger.watch_with(self._saw)
        self._task = asyncio.create_task(self._look_at_bytes())

    async def stop(self) -> None:
        """The last bytes, and the bursts that the log still holds, are looked at first."""
        self._stopping = True  # the session is over: what is still seen is told, and there is nobody to contain
        if self._task is not None:
            self._task.cancel()
        self._count_bytes()
        with suppress(RecordError):  # what could not be written is the ledger's to tell
            await asyncio.to_thread(self._company.ledger.flush)
        await asyncio.sleep(0)  # what was handed to the loop before is told before
        self._company.ledger.watch_with(None)
        if self._answers:
            await asyncio.wait(self._answers, timeout=ANSWER_SECONDS)

    # --- on any thread, under the ledger's lock

    def _saw(self, event: Event) -> None:
        try:
            with self._lock:
                self._follow()
                found = self._watch.saw(_sighting(event), self._clock()) if self._watch.watches(event.type) else []
        except Exception as error:  # the event is taken all the same
            self._fault(error)
            return
        for detection in found:
            self._loop.call_soon_threadsafe(self._detected, detection)

    def _follow(self) -> None:
        policy = self._company.policy()
        if policy is not self._policy:
            self._watch.follow(policy)
            self._policy = policy

    def _fault(self, error: Exception) -> None:
        if self._failed:
            return
        self._failed = True
        log.error("a detector failed", exc_info=error)
        reason = f"a detector failed on something, which it may not have counted: {type(error).__name__}"
        self._loop.call_soon_threadsafe(self._company.journal.degraded, Point.AGENT, Level.PARTIAL, reason)

    # --- on the loop

    async def _look_at_bytes(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self._count_bytes()
            except Exception as error:  # the next look counts what this one did not
                self._fault(error)

    def _count_bytes(self) -> None:
        sent = self._company.link.bytes_up
        with self._lock:
            self._follow()
            more, self._sent = sent - self._sent, sent
            found = self._watch.uploaded(more, self._clock())
        for detection in found:
            self._detected(detection)

    def _detected(self, detection: Detection) -> None:
        detector = detection.detector
        self._company.journal.detected(detection)
        log.warning("detector %s: %d within %d s", detector.id, detection.occurrences, detector.within)
        self._answer(detector)

    def _answer(self, detector: Detector) -> None:
        """The strongest of its measures, unless as much holds already or is about to."""
        measures = [each.measure for each in detector.respond if each.measure is not None]
        if not measures or self._stopping:
            return
        measure = max(measures, key=[*Measure].index)
        if any(held is not None and measure in held.all for held in (self._engaging, self._containment.measure)):
            return
        self._engaging = measure
        task: asyncio.Task[object] = self._loop.create_task(self._engage(measure, detector.id))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _engage(self, measure: Measure, detector: str) -> None:
        try:
            await self._containment.engage(measure, f"the detector {detector}")
        except Exception as error:  # what could not be contained is on record, and tried again by the next detection
            log.exception("no lockdown")
            reason = f"the detector {detector} could not contain the session: {type(error).__name__}: {error}"
            self._company.journal.degraded(Point.AGENT, Level.PARTIAL, reason)
        finally:
            if self._engaging is measure:
                self._engaging = None


def _sighting(event: Event) -> Sighting:
    rule, severity = event.details.get("rule"), event.details.get("severity")
    return Sighting(
        event=event.type.value,
        result=event.result.value,
        resource=event.resource,
        rule=rule if isinstance(rule, str) else "",
        severity=severity if isinstance(severity, str) else "",
        many=event.count,
    )
