"""When the policy changes: every open connection is decided again, and cut where it no longer holds.

Rules kept here: what is asked is what the connection was last allowed for (its last request, where requests are decided
one by one), by the policy in force and with today's date; a cut is a reset and leaves an event that names the rule and
says that the policy changed; what cannot be decided is cut. A connection that was tunnelled unread is cut where the
policy now looks into it, one that was looked into where the policy now forbids that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from agent.describe import describe
from agent.enforce.egress.identity import observing
from agent.enforce.egress.quota import Excess, Quota, Ticket
from agent.gate import Recorder
from agent.policy.decide import decide
from agent.policy.decision import Decision, Severity, Verdict
from agent.policy.model import Policy
from agent.policy.request import EgressRequest, Protocol, Stage
from agent.policy.rule_ids import AGENT_FAULT
from agent.policy.terms import terms
from agent.values import replace

log = logging.getLogger(__name__)

CHANGED = "the policy changed"


class Follower:
    """Takes the session's connections along to a new policy. `policy` returns the one in force."""

    def __init__(self, policy: Callable[[], Policy], quota: Quota, recorder: Recorder, actor: str) -> None:
        self._policy = policy
        self._quota = quota
        self._recorder = recorder
        self._actor = actor

    def redecide(self) -> int:
        """How many connections were cut."""
        policy, cut = self._policy(), 0
        for ticket in self._quota:
            ended = self._follow(policy, ticket)
            if ended is not None:
                cut += 1
                post(self._recorder, ticket.request, ended, self._actor)
                ticket.revoke(Excess(ended.rule, ended.reason, ended.instead))
        return cut

    def _follow(self, policy: Policy, ticket: Ticket) -> Decision | None:
        """Why the ticket's connection ends, None where it goes on."""
        ended = again(policy, ticket.request)
        if isinstance(ended, Denied):
            return ended.decision
        request = ticket.request
        if request.stage is Stage.CONNECT and request.protocol is not Protocol.HTTP:
            if ended.inspect and not ticket.inspected:
                return _end(ended, "its requests must be looked into now")
            if ticket.inspected and terms(ended).passthrough:
                return _end(ended, "its TLS must not be looked into any more")
        ticket.rebind(ended, observing=observing(policy))
        return None


class Denied:
    """A connection that no longer holds: the decision to record."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision


def again(policy: Policy, request: EgressRequest) -> Decision | Denied:
    """The request of an open connection, by this policy and today's date."""
    try:
        decision = decide(policy, replace(request, today=datetime.now(UTC).date()))
    except Exception:
        log.exception("an open connection could not be decided again; cut")
        fault = "the agent could not decide; see its log"
        return Denied(Decision(Verdict.DENY, AGENT_FAULT, fault, policy.digest, severity=Severity.HIGH))
    if decision.permitted:
        return decision
    return Denied(replace(decision, reason=f"{CHANGED}: {decision.reason}"))


def post(recorder: Recorder, request: EgressRequest, decision: Decision, actor: str) -> None:
    """Record a cut, which stands also where that fails."""
    try:
        event = describe(request, decision, actor)
        if event is not None:
            recorder.post(event)
    except Exception:
        log.exception("a connection is cut, but its record was lost")


def _end(decision: Decision, why: str) -> Decision:
    return replace(decision, verdict=Verdict.DENY, reason=f"{CHANGED}: {why}", enforced=True)
