"""After a pause, or told so, the agent goes on in a new stream under a new boot; nothing is lost or written twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agent.daemon.base.spec import RunSpec
from agent.daemon.survival import restoring
from agent.daemon.survival.pulse import LIMIT, Pulse
from agent.daemon.survival.restoring import Restoring
from agent.record.branch import parent_of
from agent.record.family import verify_family
from agent.record.ledger import Ledger
from tests.daemon.base.test_spec import SPEC
from tests.record.logs import allowed, denial, events, open_ledger, wait_until


@dataclass
class Company:
    spec: RunSpec
    ledger: Ledger
    clock: Clock
    renewed: int = 0

    async def renew_egress(self) -> None:
        self.renewed += 1

    def moved(self) -> int:
        return self.clock.moves


@dataclass
class Clock:
    """What the agent's clocks show: those of now, and what has passed while it stood still; and how many restores have
    shown without them."""

    passed: float = 0.0
    moves: int = 0

    def __call__(self) -> tuple[float, float]:
        return (100.0 + self.passed, 100.0 + self.passed)


def beside(log: Path, test: Callable[[Restoring, Ledger, Clock], Awaitable[None]]) -> Company:
    async def body() -> Company:
        ledger, clock = open_ledger(log, boot="first"), Clock()
        ledger.accept(allowed("before.test:443"))
        ledger.flush()
        company = Company(replace(SPEC, audit_dir=str(log)), ledger, clock)
        companion = Restoring(company, lambda told, moved: Pulse(told, clock, moved))
        await companion.start()
        try:
            await test(companion, ledger, clock)
        finally:
            await companion.stop()
            ledger.close()
        return company

    return asyncio.run(body())


def children(log: Path) -> list[Path]:
    return sorted(log.glob("restored-*"))


def test_after_a_pause_the_first_line_is_of_a_new_boot_and_the_old_stream_has_no_more(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def pause(companion: Restoring, ledger: Ledger, clock: Clock) -> None:
        clock.passed += LIMIT * 6
        ledger.post(denial("after.test:443"))  # before anybody else has noticed
        await asyncio.to_thread(wait_until, lambda: bool(children(log)) and ledger.synced == 2, "the new stream")
        assert ledger.boot != "first"

    assert beside(log, pause).renewed == 1, "the egress process starts afresh"
    assert [each.body["resource"] for each in events(log)] == ["before.test:443"]
    (child,) = children(log)
    first, second = events(child)
    parent = parent_of(first.details)
    assert parent is not None and (parent.seq, parent.boot) == (1, "first")
    assert child.name == f"restored-{first.details['boot']}" == first.details["directory"]
    assert (first.details["reason"], first.details["seconds"]) == (restoring.PAUSE, int(LIMIT * 6))
    assert second.body["resource"] == "after.test:443"
    whole, found = verify_family(log)
    assert whole.ok and [each.ok for each in found] == [True]


def test_a_restore_that_shows_at_once_needs_no_pause(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def moved(companion: Restoring, ledger: Ledger, clock: Clock) -> None:
        clock.moves += 1
        ledger.post(denial("after.test:443"))
        await asyncio.to_thread(wait_until, lambda: bool(children(log)) and ledger.synced == 2, "the new stream")

    assert beside(log, moved).renewed == 1
    assert [each.body["resource"] for each in events(log)] == ["before.test:443"]
    (child,) = children(log)
    assert events(child)[0].details["reason"] == restoring.MOVED


def test_told_by_the_platform_it_needs_no_pause_and_each_time_is_another_stream(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def told(companion: Restoring, ledger: Ledger, clock: Clock) -> None:
        first = await companion.restored("user:root")
        await asyncio.to_thread(ledger.flush)
        second = await companion.restored("user:root")
        assert ledger.boot == second != first

    assert beside(log, told).renewed == 2
    begun = [link for child in children(log) for link in events(child) if link.seq == 1]
    firsts = {str(link.details["boot"]): link.details for link in begun}
    assert len(firsts) == 2
    assert {details["reason"] for details in firsts.values()} == {restoring.TOLD}
    assert {details["told_by"] for details in firsts.values()} == {"user:root"}
    assert {details["parent_boot"] for details in firsts.values()} & set(firsts), "the second is a child of the first"
    assert all(report.ok for report in [verify_family(log)[0], *verify_family(log)[1]])


def test_where_there_is_no_place_for_it_nothing_is_recorded_until_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setattr(restoring, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(restoring, "DIRECTORY", "gone/restored-")

    async def pause(companion: Restoring, ledger: Ledger, clock: Clock) -> None:
        (log / "gone").write_text("a file where the directory would be")
        clock.passed += LIMIT * 6
        ledger.post(denial("after.test:443"))
        await asyncio.to_thread(wait_until, lambda: ledger.failure is not None, "the write that must not be")
        assert ledger.synced == 1
        (log / "gone").unlink()
        await asyncio.to_thread(wait_until, lambda: ledger.failure is None and ledger.synced == 2, "the new stream")

    beside(log, pause)
    assert len(events(log)) == 1
    (child,) = (log / "gone").iterdir()
    assert [each.details["event_type"] for each in events(child)] == ["agent.start", "network.egress_blocked"]
