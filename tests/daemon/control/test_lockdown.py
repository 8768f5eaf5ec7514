"""A lockdown is taken over from a guard before this one, and from nobody else, whatever is asked for first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.daemon.beside.companions import Company
from agent.daemon.control.freezing import Freezer
from agent.daemon.control.lockdown import TAKEN_OVER, Lockdown
from agent.daemon.policies.store import PolicyStore
from agent.policy.lockdown import Lock, Measure
from agent.record.ledger import Ledger
from agent.record.metrics import Metrics
from tests.daemon.base.test_spec import SPEC
from tests.escape.runtime import read_log


def told(tmp_path: Path, test: Callable[[Lockdown], Awaitable[None]], before: Lock) -> list[tuple[Any, Any]]:
    """(cause, measures) of each record."""

    async def body() -> None:
        ledger = Ledger(tmp_path / "log", session_id="s", boot="b", policy_digest="d", metrics=Metrics(version="t"))
        ledger.start()
        store = PolicyStore([])
        store.lock(before)
        link = SimpleNamespace(follow=lambda _: None)
        company = SimpleNamespace(ledger=ledger, spec=SPEC, store=store, link=link)
        try:
            await test(Lockdown(cast(Company, company), Freezer(lambda: 0)))
        finally:
            ledger.close()

    asyncio.run(body())
    return [(event["details"].get("cause"), event["details"]["measures"]) for event in read_log(tmp_path / "log")]


@pytest.fixture(autouse=True)
def _without_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    async def keep(_: Lockdown, name: str) -> None:
        assert name

    monkeypatch.setattr(Lockdown, "_keep", keep)


async def _asked_then_started(lockdown: Lockdown) -> None:
    await lockdown.engage(Measure.CUT, "a detector")
    await lockdown.start()


def test_what_a_detector_asks_for_before_it_is_started_is_not_taken_for_another_guards(tmp_path: Path) -> None:
    assert told(tmp_path, _asked_then_started, Lock.NONE) == [("a detector", ["cut"])]


def test_what_a_guard_before_had_begun_is_taken_over_first(tmp_path: Path) -> None:
    assert told(tmp_path, _asked_then_started, Lock.EGRESS) == [(TAKEN_OVER, ["cut"]), ("a detector", ["cut"])]


def test_it_can_be_lifted_before_it_is_started(tmp_path: Path) -> None:
    async def lift(lockdown: Lockdown) -> None:
        assert await lockdown.lift("enough", "operator")
        await lockdown.start()

    assert told(tmp_path, lift, Lock.EGRESS) == [(TAKEN_OVER, ["cut"]), ("enough", [])]
