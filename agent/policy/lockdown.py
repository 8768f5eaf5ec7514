"""Lockdown: the policy in force with some or all of it closed, for as long as containment lasts.

Rules kept here: a locked policy is the same policy under the same digest, so that whatever follows a change of policy
(the gate of every enforcement point, open connections, remembered answers) follows a lockdown by the same way; the lock
is asked before anything else of the policy, and no mode, exception or layer opens it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from agent.policy import rule_ids
from agent.policy.decision import Decision, Severity, Verdict
from agent.policy.request import EgressRequest, Request
from agent.values import replace

if TYPE_CHECKING:  # the policy knows its lock from here
    from agent.policy.model import Policy

REASON = "the session is in lockdown"
INSTEAD = "stop here and ask the operators of this session"


class Measure(StrEnum):
    """How a session is contained, each with all that stands before it. CUT: nothing leaves by the network any more.
    FREEZE: its processes are held still, and every question is refused. KILL: it is ended."""

    CUT = "cut"
    FREEZE = "freeze"
    KILL = "kill"

    @property
    def all(self) -> tuple[Measure, ...]:
        """This one, and those that it includes."""
        measures = tuple(Measure)
        return measures[: measures.index(self) + 1]

    @property
    def lock(self) -> Lock:
        """What of the policy it closes."""
        return Lock.EGRESS if self is Measure.CUT else Lock.ALL


class Lock(StrEnum):
    """What of a policy is closed: nothing, all that would leave by the network, or every question."""

    NONE = "none"
    EGRESS = "egress"
    ALL = "all"


def locked(policy: Policy, lock: Lock) -> Policy:
    """The same policy under this lock."""
    return policy if policy.lock is lock else replace(policy, lock=lock)


def refused(policy: Policy, request: Request) -> Decision | None:
    """The denial of a locked policy, None where the lock does not hold for the request."""
    if policy.lock is Lock.NONE or (policy.lock is Lock.EGRESS and not isinstance(request, EgressRequest)):
        return None
    return Decision(
        Verdict.DENY,
        rule_ids.LOCKDOWN,
        REASON,
        policy_digest=policy.digest,
        instead=INSTEAD,
        severity=Severity.CRITICAL,
    )
