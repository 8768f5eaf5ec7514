"""What an allowed connection is bound to: the allow rules of all layers, added up to the strictest.

Pure. The decision names the rules (`Decision.grants`); enforcement points read their terms here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from agent.policy.decision import Decision
from agent.policy.model import Credential, HostLimits, HostRule, Tls

NO_LIMITS = HostLimits()


@dataclass(frozen=True, slots=True)
class Terms:
    """`limits` are the smallest of all; `credentials` all that are asked for; `scan` if any rule asks for it;
    `passthrough` if any rule forbids to look into TLS."""

    limits: HostLimits = NO_LIMITS
    credentials: tuple[Credential, ...] = ()
    scan: bool = False
    passthrough: bool = False


def terms(decision: Decision) -> Terms:
    """The terms of an allowed request; none for a denial that is only observed."""
    rules = decision.grants
    return Terms(
        limits=HostLimits(**{field.name: _smallest(rules, field.name) for field in fields(HostLimits)}),
        credentials=tuple(rule.credential for rule in rules if rule.credential is not None),
        scan=any(rule.scan for rule in rules),
        passthrough=any(rule.tls is Tls.PASSTHROUGH for rule in rules),
    )


def _smallest(rules: tuple[HostRule, ...], name: str) -> int | None:
    given = [value for rule in rules if (value := getattr(rule.limits, name)) is not None]
    return min(given, default=None)
