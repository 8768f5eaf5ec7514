"""How the layers' answers become one decision.

Rules kept here: a denial of any layer denies; a denial by a rule is reported before a default one; one layer that
enforces makes the section enforce; a decision always carries rule, reason and digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.policy.decision import Decision, Severity, Verdict
from agent.policy.model import CommandRule, HostRule, Layer, Mode, PathRule, Policy, RuleException
from agent.policy.words import shown
from agent.values import dataclass


@dataclass(frozen=True, slots=True)
class Denial:
    """One layer's no. `where` None: no rule said so, the default did."""

    rule: str
    reason: str
    instead: str = ""
    where: str | None = None
    severity: Severity = Severity.MEDIUM


def by_rule(rule: HostRule | CommandRule | PathRule, reason: str, severity: Severity) -> Denial:
    """The denial that a rule of the policy causes; its own words win over the ones given here."""
    return Denial(rule.id, rule.reason or reason, rule.instead, str(rule.where), severity)


def worst(denials: Sequence[Denial]) -> Denial | None:
    """The denial to report: the first that a rule caused, else the first."""
    return next((denial for denial in denials if denial.where is not None), denials[0] if denials else None)


def denied(policy: Policy, denial: Denial, *, enforced: bool = True) -> Decision:
    """The decision for a denial."""
    return Decision(
        verdict=Verdict.DENY,
        rule=denial.rule,
        reason=shown(denial.reason),
        instead=shown(denial.instead),
        where=denial.where,
        severity=denial.severity,
        policy_digest=policy.digest,
        enforced=enforced,
    )


def allowed(
    policy: Policy,
    rule: str,
    reason: str,
    *,
    where: str | None = None,
    inspect: bool = False,
    grants: tuple[HostRule, ...] = (),
) -> Decision:
    """The decision for an allow."""
    return Decision(
        verdict=Verdict.ALLOW,
        rule=rule,
        reason=shown(reason),
        where=where,
        severity=Severity.LOW,
        policy_digest=policy.digest,
        inspect=inspect,
        grants=grants,
    )


def enforces(modes: Iterable[Mode]) -> bool:
    """Enforce beats observe; no mode at all enforces."""
    given = tuple(modes)
    return not given or Mode.ENFORCE in given


def exceptions_of(layer: Layer, rule: str) -> tuple[RuleException, ...]:
    """The layer's exceptions for one of its rules."""
    return tuple(exception for exception in layer.exceptions if exception.rule == rule)
