"""The gate: the one fail-closed place where a request becomes a decision, a record and an answer.

decide -> record -> return. Any exception on the way is a denial. A denial never waits for the record and stands even
where it cannot be recorded (the recorder counts the loss and records a gap afterwards). An allow that must be recorded
is recorded before it is returned; if the record cannot be written, `audit.on_failure` of the policy says deny or
continue. What is returned is decided by the policy in force at that moment, also where it changed meanwhile.

Counting is the recorder's business: the counters are derived from accepted events in one place (`agent.record.ledger`),
so that they cannot drift from the log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from agent.describe import describe
from agent.policy.decide import decide
from agent.policy.decision import Decision, Severity, Verdict
from agent.policy.memory import Memory
from agent.policy.model import OnFailure, Policy
from agent.policy.request import Request
from agent.policy.rule_ids import AGENT_FAULT, AUDIT_UNAVAILABLE
from agent.record.event import Event
from agent.values import dataclass

log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Where events go. Both raise `RecordError` where the event was not taken."""

    def post(self, event: Event) -> None:
        """Take the event without waiting for anything."""

    def accept(self, event: Event) -> Awaitable[None] | None:
        """Take the event; the caller may act on it only once this (or the awaitable it returns) is done."""


class Gate:
    """Asks the policy and records the answer.

    `policy` returns the policy in force; `actor` is the audit log's actor (``session:<id>``). `observe` gets the
    seconds each decision took, its record's acceptance not counted.
    """

    def __init__(
        self,
        policy: Callable[[], Policy],
        recorder: Recorder,
        actor: str,
        observe: Callable[[float], None] | None = None,
    ) -> None:
        self._observe = observe
        self._memory = Memory()
        self._policy = policy
        self._recorder = recorder
        self._actor = actor

    def check(self, request: Request) -> Decision:
        """Decide and record where the recorder accepts at once (the guard, which owns the writer)."""
        answer = self._ask(request)
        return answer if isinstance(answer, Decision) else self._own_denial(request, _fault())

    async def check_async(self, request: Request) -> Decision:
        """The same where acceptance is a round trip to the guard (the egress process)."""
        answer = self._ask(request)
        if isinstance(answer, Decision):
            return answer
        try:
            await answer.accepted
        except Exception:
            log.exception("record not accepted")
            return self._own_denial(request, _unrecorded(answer.policy, answer.decision))
        return self._still(request, answer)

    def _still(self, request: Request, answer: _Pending) -> Decision:
        """What was allowed holds by the policy in force, which may have changed while its record was on its way."""
        try:
            policy = self._policy()
            decision = answer.decision if policy is answer.policy else decide(policy, request)
        except Exception:
            log.exception("decision failed; denied")
            decision = _fault()
        return decision if decision is answer.decision else self._own_denial(request, decision)

    def _ask(self, request: Request) -> Decision | _Pending:
        started = time.perf_counter()
        try:
            policy = self._policy()
            decision = self._memory.ask(policy, request, decide)
            event = describe(request, decision, self._actor)
            if self._observe is not None:
                self._observe(time.perf_counter() - started)
        except Exception:
            log.exception("decision failed; denied")
            return self._own_denial(request, _fault())
        if event is None:
            return decision
        if not decision.permitted:
            self._post(event)
            return decision
        try:
            accepted = self._recorder.accept(event)
        except Exception:
            log.exception("record not accepted")
            return self._own_denial(request, _unrecorded(policy, decision))
        return decision if accepted is None else _Pending(policy, decision, accepted)

    def deny(self, request: Request, decision: Decision) -> Decision:
        """Record a denial that no policy spoke: an enforcement point's own, of what it could not even ask."""
        return self._own_denial(request, decision)

    def _own_denial(self, request: Request, decision: Decision) -> Decision:
        """A denial of the gate's own is recorded like any other, where that is still possible."""
        if decision.permitted:  # audit.on_failure: continue
            return decision
        try:
            event = describe(request, decision, self._actor)
        except Exception:
            log.exception("denial stands, but it cannot be described")
        else:
            if event is not None:
                self._post(event)
        return decision

    def _post(self, event: Event) -> None:
        try:
            self._recorder.post(event)
        except Exception:
            log.exception("denial stands, but its record was lost")


@dataclass(frozen=True, slots=True)
class _Pending:
    """An allow that is not recorded yet."""

    policy: Policy
    decision: Decision
    accepted: Awaitable[None]


def _fault() -> Decision:
    return Decision(
        verdict=Verdict.DENY,
        rule=AGENT_FAULT,
        reason="the agent could not decide; see its log",
        policy_digest="",
        severity=Severity.HIGH,
    )


def _unrecorded(policy: Policy, decision: Decision) -> Decision:
    if policy.audit.on_failure is OnFailure.CONTINUE:
        return decision
    return Decision(
        verdict=Verdict.DENY,
        rule=AUDIT_UNAVAILABLE,
        reason="the audit log could not take the record (audit.on_failure: deny)",
        policy_digest=policy.digest,
        severity=Severity.HIGH,
    )
