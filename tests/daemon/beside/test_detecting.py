"""Detectors on a real ledger: what it takes is seen, told and answered, from whatever thread, and a fault is said."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.base.journal import Journal
from agent.daemon.beside import detecting
from agent.daemon.beside.detecting import Detecting
from agent.policy.detection import severities
from agent.policy.lockdown import Measure
from agent.policy.model import Policy
from agent.record.ledger import Ledger
from agent.record.metrics import Metrics
from tests.daemon.base.test_spec import SPEC
from tests.escape.runtime import read_log
from tests.policy.given import policy
from tests.record.logs import denial

DETECTORS = """\
version: 1
detect:
  - id: many
    when: {events: network.egress_blocked, result: denied}
    count: 10
    within: 60s
    severity: critical
    reason: too many
  - {id: export, upload: 1000, within: 60s}
"""
KILL = "version: 1\ndetect: [{id: k, when: {events: network.egress_blocked}, count: 2, within: 1h, respond: kill}]\n"


@dataclass
class Link:
    bytes_up: int = 500


@dataclass
class Places:
    home: str = "/home/session"


@dataclass
class Company:
    ledger: Ledger
    journal: Journal
    in_force: Policy
    link: Link = field(default_factory=Link)
    places: Places = field(default_factory=Places)
    engaged: list[tuple[Measure, str]] = field(default_factory=list)
    broken: bool = False
    measure: Measure | None = None

    def policy(self) -> Policy:
        return self.in_force

    async def engage(self, measure: Measure, cause: str) -> None:
        self.engaged.append((measure, cause))
        if self.broken:
            raise OSError("no such cgroup")
        self.measure = measure


def beside(
    tmp_path: Path, test: Callable[[Company], Awaitable[None]], text: str = DETECTORS
) -> tuple[list[dict[str, Any]], Company, Metrics]:
    """The detections, told while the test ran beside a companion under the policy."""
    metrics = Metrics(version="t")
    company: list[Company] = []

    async def body() -> None:
        in_force = policy(text)
        metrics.set_policy("d", detectors=severities(in_force))
        ledger = Ledger(tmp_path / "log", session_id="s", boot="b", policy_digest="d", metrics=metrics)
        ledger.start()
        company.append(Company(ledger, Journal(ledger, SPEC), in_force))
        companion = Detecting(company[0], company[0])
        await companion.start()
        try:
            await test(company[0])
        finally:
            await companion.stop()
            ledger.close()

    asyncio.run(body())
    told = [event for event in read_log(tmp_path / "log") if event["details"]["event_type"] == "detection.triggered"]
    return told, company[0], metrics


def test_ten_denials_from_several_threads_are_one_detection_with_its_event_and_counter(tmp_path: Path) -> None:
    async def flood(company: Company) -> None:
        def work(number: int) -> None:
            for each in range(5):
                company.ledger.post(denial(f"{number}-{each}.test:443"))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)

    (told,), company, metrics = beside(tmp_path, flood)
    assert (told["actor"], told["resource"], told["resource_type"]) == ("agent", SPEC.session_id, "session")
    details = told["details"]
    assert {
        "detector": "many",
        "rule": "many",
        "where": "l0/a.yaml:3",
        "severity": "critical",
        "occurrences": 10,
        "counted": "events",
        "window_seconds": 60,
        "response": ["record"],
        "reason": "too many",
    }.items() <= details.items()
    assert company.engaged == []
    assert b'detections_total{detector="many",severity="critical"} 1.0' in metrics.render()


def test_a_burst_that_the_log_still_held_at_the_end_is_counted(tmp_path: Path) -> None:
    async def burst(company: Company) -> None:
        for _ in range(10):
            company.ledger.post(denial())

    (told,), _, _ = beside(tmp_path, burst)
    assert told["details"]["occurrences"] == 10


def test_nine_denials_are_none(tmp_path: Path) -> None:
    async def nine(company: Company) -> None:
        for number in range(9):
            company.ledger.post(denial(f"{number}.test:443"))

    assert beside(tmp_path, nine)[0] == []


def test_bytes_are_those_sent_since_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detecting, "LOOK_SECONDS", 0.01)

    async def export(company: Company) -> None:
        company.link.bytes_up += 999
        await asyncio.sleep(0.1)
        assert company.ledger.seq == 0
        company.link.bytes_up += 1
        async with asyncio.timeout(60):
            while not company.ledger.seq:
                await asyncio.sleep(0.01)

    (told,), _, _ = beside(tmp_path, export)
    assert (told["details"]["counted"], told["details"]["occurrences"]) == ("bytes", 1000)


def test_a_look_at_the_bytes_that_fails_is_told_and_the_next_one_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detecting, "LOOK_SECONDS", 0.01)

    async def export(company: Company) -> None:
        def broken() -> Policy:
            raise OSError("no policy")

        monkeypatch.setattr(company, "policy", broken)
        company.link.bytes_up += 1000
        async with asyncio.timeout(60):
            while not company.ledger.seq:
                await asyncio.sleep(0.01)
            monkeypatch.delattr(company, "policy")
            while company.ledger.seq < 2:
                await asyncio.sleep(0.01)

    (told,), _, _ = beside(tmp_path, export)
    assert told["details"]["occurrences"] == 1000
    (degraded,) = [event for event in read_log(tmp_path / "log") if event["details"]["event_type"] == "agent.degraded"]
    assert degraded["details"]["reason"].startswith("a detector failed")


def test_a_detector_may_contain_the_session_and_is_recorded_before(tmp_path: Path) -> None:
    async def two(company: Company) -> None:
        company.ledger.post(denial("a.test:443"))
        company.ledger.post(denial("b.test:443"))
        async with asyncio.timeout(60):
            while not company.engaged:
                await asyncio.sleep(0.01)
        assert company.ledger.seq == 3

    (told,), company, _ = beside(tmp_path, two, KILL)
    assert told["details"]["response"] == ["kill"]
    assert company.engaged == [(Measure.KILL, "the detector k")]


ANSWERS = """\
version: 1
detect:
  - {id: cuts, when: {events: network.egress_blocked}, count: 1, within: 1s, respond: cut-egress}
  - {id: freezes, when: {events: network.egress_blocked}, count: 3, within: 1h, respond: [record, cut-egress, freeze]}
"""


def test_a_stronger_measure_is_added_and_the_same_is_not_engaged_twice(tmp_path: Path) -> None:
    async def three(company: Company) -> None:
        for number in range(3):
            company.ledger.post(denial(f"{number}.test:443"))
            await asyncio.sleep(0.01)
        async with asyncio.timeout(60):
            while len(company.engaged) < 2:
                await asyncio.sleep(0.01)

    _, company, _ = beside(tmp_path, three, ANSWERS)
    assert company.engaged == [(Measure.CUT, "the detector cuts"), (Measure.FREEZE, "the detector freezes")]


def test_a_measure_that_cannot_be_taken_is_on_record_and_tried_again(tmp_path: Path) -> None:
    async def broken(company: Company) -> None:
        company.broken = True
        company.ledger.post(denial("a.test:443"))
        await asyncio.sleep(0.05)
        company.ledger.post(denial("b.test:443"))
        await asyncio.sleep(0.05)
        company.ledger.post(denial("c.test:443"))
        async with asyncio.timeout(60):
            while (Measure.FREEZE, "the detector freezes") not in company.engaged:
                await asyncio.sleep(0.01)

    _, company, _ = beside(tmp_path, broken, ANSWERS)
    assert company.engaged[0] == (Measure.CUT, "the detector cuts"), "as often as a second begins"
    assert company.engaged[-1] == (Measure.FREEZE, "the detector freezes")
    degraded = [event for event in read_log(tmp_path / "log") if event["details"]["event_type"] == "agent.degraded"]
    assert ["no such cgroup" in event["details"]["reason"] for event in degraded] == [True] * len(company.engaged)


def test_what_is_seen_after_the_end_is_told_and_contains_nobody(tmp_path: Path) -> None:
    async def burst(company: Company) -> None:
        for _ in range(10):
            company.ledger.post(denial())  # five of them the log holds until it is flushed, which is at the end

    told, company, _ = beside(tmp_path, burst, KILL.replace("count: 2", "count: 10"))
    assert [each["details"]["detector"] for each in told] == ["k"]
    assert company.engaged == []


def test_a_lockdown_that_was_lifted_is_engaged_again_by_the_next_detection(tmp_path: Path) -> None:
    async def lifted(company: Company) -> None:
        for number in range(2):
            company.ledger.post(denial(f"{number}-a.test:443"))
            async with asyncio.timeout(60):
                while len(company.engaged) <= number:
                    await asyncio.sleep(0.01)
            company.measure = None  # by an operator
            await asyncio.sleep(1.05)  # while the detector rests

    _, company, _ = beside(tmp_path, lifted, ANSWERS)
    assert company.engaged == [(Measure.CUT, "the detector cuts")] * 2


def test_another_policy_in_force_is_followed_from_the_next_event(tmp_path: Path) -> None:
    async def change(company: Company) -> None:
        company.ledger.post(denial("a.test:443"))
        company.in_force = policy(KILL)
        company.ledger.post(denial("b.test:443"))
        company.ledger.post(denial("c.test:443"))

    (told,), _, _ = beside(tmp_path, change)
    assert (told["details"]["detector"], told["details"]["occurrences"]) == ("k", 2)


def test_a_detector_that_fails_costs_no_event_and_is_said_once(tmp_path: Path) -> None:
    async def broken(company: Company) -> None:
        company.policy = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
        for number in range(5):
            company.ledger.post(denial(f"{number}.test:443"))
        await asyncio.to_thread(company.ledger.flush)
        await asyncio.sleep(0)
        company.policy = lambda: company.in_force  # type: ignore[method-assign]

    told, _, _ = beside(tmp_path, broken)
    events = read_log(tmp_path / "log")
    assert told == []
    assert [event["details"]["event_type"] for event in events] == ["network.egress_blocked"] * 5 + ["agent.degraded"]
    assert "ZeroDivisionError" in events[-1]["details"]["reason"]
