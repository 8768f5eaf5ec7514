"""What a decision is: verdict, rule, reason, and the digest of the policy that spoke.

A decision is a value. Whoever receives one asks `permitted`, never compares verdicts: observe mode permits what it
would have denied, and an unverifiable command is permitted only where the decision says so.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from agent.values import dataclass

if TYPE_CHECKING:  # the model knows severities from here
    from agent.policy.model import HostRule


class Verdict(StrEnum):
    """The three answers of the contract."""

    ALLOW = "allow"
    DENY = "deny"
    UNVERIFIABLE = "unverifiable"


class Severity(StrEnum):
    """How bad a match is; alerts and reviews sort by it."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer of `agent.policy.decide.decide`.

    `where` is ``file:line`` of the deciding rule, None for a default denial. `enforced` is False in observe mode.
    `inspect` (egress, connection level only): each request must be seen (its method or path decides, a credential is
    asked for, …), so the connection must go through the interception engine. `supervised` (commands): the verdict is
    UNVERIFIABLE and the policy lets it run because the exec ring sees what it really executes. `grants` (egress,
    permitted): all allow rules that fit, of every layer; `agent.policy.terms` reads from them what the connection is
    bound to.
    """

    verdict: Verdict
    rule: str
    reason: str
    policy_digest: str
    instead: str = ""
    where: str | None = None
    severity: Severity = Severity.MEDIUM
    enforced: bool = True
    inspect: bool = False
    supervised: bool = False
    grants: tuple[HostRule, ...] = ()

    @property
    def permitted(self) -> bool:
        """True where the enforcement point lets it happen."""
        if self.verdict is Verdict.ALLOW:
            return True
        if self.verdict is Verdict.UNVERIFIABLE and self.supervised:
            return True
        return not self.enforced
