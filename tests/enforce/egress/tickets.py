"""Tickets for tests: an allowed connection under given limits, and what was reported of it."""

from __future__ import annotations

from datetime import date
from typing import Any

from agent.enforce.egress.quota import Excess, Quota, Ticket
from agent.policy.decision import Decision, Verdict
from agent.policy.model import EgressLimits, HostLimits, Mode
from agent.policy.request import EgressRequest, Origin
from tests.enforce.egress.proxy import rule

TODAY = date(2026, 11, 22)


def request(host: str = "api.good.test") -> EgressRequest:
    return EgressRequest(host=host, port=443, today=TODAY, origin=Origin(mechanism="proxy", request_id="r"))


def allowed(*limits: HostLimits, mode: Mode = Mode.ENFORCE, pattern: str = "api.good.test") -> Decision:
    """An allow by one rule for each of the limits."""
    rules = tuple(rule(pattern, limits=given, mode=mode) for given in limits)
    return Decision(Verdict.ALLOW, "allow", "allowed", "d" * 64, grants=rules)


class Desk:
    """A quota with a clock that is set by hand. `told`: what was reported."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.told: list[Excess] = []
        self.quota = Quota(lambda: self.now)

    def open(
        self, *limits: HostLimits, host: str = "api.good.test", session: EgressLimits | None = None, **more: Any
    ) -> Ticket:
        """Raises LimitExceeded."""
        observing = more.pop("observing", False)
        decision = allowed(*limits, **more)
        return self.quota.open(
            request(host),
            decision,
            session or EgressLimits(),
            lambda _, excess: self.told.append(excess),
            observing=observing,
        )

    def rules(self) -> list[tuple[str, bool]]:
        return [(excess.rule, excess.enforced) for excess in self.told]
