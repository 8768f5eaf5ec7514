"""The gate fails closed: whatever goes wrong on the way, the answer is a denial."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import date

import pytest

from agent.gate import Gate
from agent.policy.load import LayerSource, load_policy
from agent.policy.model import Policy
from agent.policy.request import EgressRequest, Origin, Stage
from agent.record.event import Event, EventType, RecordError

TEXT = "version: 1\negress: {allow: [good.test]}\naudit: {on_failure: %s}\n"
TODAY = date(2026, 11, 22)


def loaded(on_failure: str = "deny") -> Policy:
    return load_policy([LayerSource("test", (("policy.yaml", TEXT % on_failure),))], {})


def asking(host: str) -> EgressRequest:
    return EgressRequest(host, 443, TODAY, Origin("proxy"), stage=Stage.CONNECT, addresses=("93.184.216.34",))


class Sheet:
    """A recorder that keeps events, or fails as told."""

    def __init__(self, fails: bool = False) -> None:
        self.events: list[Event] = []
        self.fails = fails

    def post(self, event: Event) -> None:
        self._take(event)

    def accept(self, event: Event) -> Awaitable[None] | None:
        self._take(event)
        return None

    def _take(self, event: Event) -> None:
        if self.fails:
            raise RecordError("disk full")
        self.events.append(event)


class SlowSheet(Sheet):
    """A recorder whose acceptance is a round trip."""

    def accept(self, event: Event) -> Awaitable[None]:
        async def later() -> None:
            await asyncio.sleep(0)
            self._take(event)

        return later()


def test_an_allowed_connection_is_recorded_before_it_is_returned() -> None:
    sheet = Sheet()
    assert Gate(loaded, sheet, "session:x").check(asking("good.test")).permitted
    (event,) = sheet.events
    assert (event.type, event.resource, event.actor) == (EventType.NETWORK_EGRESS, "good.test:443", "session:x")


def test_a_denial_is_recorded_and_stands_where_it_cannot_be() -> None:
    for sheet, recorded in ((Sheet(), 1), (Sheet(fails=True), 0)):
        decision = Gate(loaded, sheet, "session:x").check(asking("evil.test"))
        assert not decision.permitted
        assert decision.rule == "egress-default"
        assert len(sheet.events) == recorded


@pytest.mark.parametrize(("on_failure", "permitted"), [("deny", False), ("continue", True)])
def test_an_allow_that_cannot_be_recorded_follows_the_policy(on_failure: str, permitted: bool) -> None:
    policy = loaded(on_failure)
    gate = Gate(lambda: policy, Sheet(fails=True), "session:x")
    assert gate.check(asking("good.test")).permitted is permitted
    slow = Gate(lambda: policy, SlowSheet(fails=True), "session:x")
    decision = asyncio.run(slow.check_async(asking("good.test")))
    assert decision.permitted is permitted
    if not permitted:
        assert decision.rule == "audit-unavailable"


def test_a_policy_that_raises_is_a_denial() -> None:
    def broken() -> Policy:
        raise RuntimeError("no policy")

    decision = Gate(broken, Sheet(), "session:x").check(asking("good.test"))
    assert (decision.permitted, decision.rule) == (False, "agent-fault")
    later = asyncio.run(Gate(broken, Sheet(), "session:x").check_async(asking("good.test")))
    assert (later.permitted, later.rule) == (False, "agent-fault")


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # which is what is shown
def test_the_synchronous_gate_never_trusts_an_acceptance_that_is_still_pending() -> None:
    pending = SlowSheet()
    decision = Gate(loaded, pending, "session:x").check(asking("good.test"))
    assert not decision.permitted
