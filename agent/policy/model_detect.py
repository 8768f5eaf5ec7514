"""Detectors of a policy as frozen values: what is looked for in the events of a session, and what answers it.

Rules kept here: a detector that exists is valid (the loader refuses the rest with a position); it counts either events
or bytes; it never makes anything allowed, so that layers can only add.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from agent.policy.decision import Severity
from agent.policy.lockdown import Measure
from agent.policy.model_common import Where
from agent.values import dataclass

MOST_OCCURRENCES: Final = 10_000
"""The highest threshold: what one detector may have to remember."""

WATCHED: Final = (
    "auth.failure",
    "auth.login",
    "secret.access",
    "secret.inject",
    "secret.rotate",
    "session.attach",
    "session.detach",
    "checkpoint.create",
    "checkpoint.restore",
    "permission.denied",
    "bash.dangerous",
    "network.egress",
    "network.egress_blocked",
    "agent.degraded",
    "agent.recovered",
    "integrity.changed",
    "policy.reload",
    "policy.rejected",
    "audit.recovered",
    "audit.gap",
)
"""The event types that a detector may count: those that a session or a caller can cause, and no answer of a detector's
own. A part of `agent.record.event.EventType` (a test holds the two together; the ground layers do not import each
other)."""


class Response(StrEnum):
    """What answers a detection besides its event, counter and alert. RECORD: nothing; the others: a lockdown, by the
    measure of that name (`agent.policy.lockdown.Measure`), each including the one before."""

    RECORD = "record"
    CUT_EGRESS = "cut-egress"
    FREEZE = "freeze"
    KILL = "kill"

    @property
    def measure(self) -> Measure | None:
        """How the session is contained, None where it is not."""
        return _MEASURES.get(self)


_MEASURES: Final = {
    Response.CUT_EGRESS: Measure.CUT,
    Response.FREEZE: Measure.FREEZE,
    Response.KILL: Measure.KILL,
}


class Outcome(StrEnum):
    """`result` of an event."""

    SUCCESS = "success"
    DENIED = "denied"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Sign:
    """One kind of event. Every key given must hold; an empty tuple means that the key was not given.

    `events`: types, at least one. `rules`: globs of which one fits `details.rule`. `tags`: the event's rule is a
    command rule of this policy with one of these tags. `results`: one of these. `severity`: the event has at least this
    one. `resources`: one fits the event's resource: a glob, or a class of paths (``<secret-file>``).
    """

    events: tuple[str, ...]
    rules: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    results: tuple[Outcome, ...] = ()
    severity: Severity | None = None
    resources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Detector:
    """One entry of `detect`: `count` occurrences of any of the signs `when` within `within` seconds, or `upload` bytes
    sent to allowed destinations. `distinct`: different resources are counted, not events."""

    id: str
    where: Where
    within: int
    when: tuple[Sign, ...] = ()
    count: int = 0
    upload: int = 0
    distinct: bool = False
    severity: Severity = Severity.HIGH
    reason: str = ""
    respond: tuple[Response, ...] = (Response.RECORD,)
