"""What an allowed connection is bound to: the allow rules of all layers, added up to the strictest.

Pure. The decision names the rules (`Decision.grants`); enforcement points read their terms here and nowhere else.
"""

from __future__ import annotations

from agent.policy.decision import Decision
from agent.policy.model import Credential, EgressLimits, HostLimits, HostRule, Mode, Policy, Tls
from agent.values import dataclass, fields

NO_LIMITS = HostLimits()
NO_SESSION_LIMITS = EgressLimits()


@dataclass(frozen=True, slots=True)
class Terms:
    """`limits` are the smallest of all; `credentials` all that are asked for; `scan` if any rule asks for it;
    `passthrough` if any rule forbids to look into TLS. `observed`: every rule that asks for a credential or a scan is
    in observe mode, so a breach of those is recorded and let pass."""

    limits: HostLimits = NO_LIMITS
    credentials: tuple[Credential, ...] = ()
    scan: bool = False
    passthrough: bool = False
    observed: bool = False


NO_TERMS = Terms()


def terms(decision: Decision) -> Terms:
    """The terms of a permitted request: what any rule that allows it asks for. None where only a section in observe
    mode lets it pass."""
    rules = decision.grants
    if all(map(_asks_nothing, rules)):
        return NO_TERMS
    asking = [rule.mode for rule in rules if rule.credential is not None or rule.scan]
    return Terms(
        limits=HostLimits(**{field.name: _smallest(rules, field.name) for field in fields(HostLimits)}),
        credentials=tuple(rule.credential for rule in rules if rule.credential is not None),
        scan=any(rule.scan for rule in rules),
        passthrough=any(rule.tls is Tls.PASSTHROUGH for rule in rules),
        observed=bool(asking) and all(mode is Mode.OBSERVE for mode in asking),
    )


def session_limits(policy: Policy) -> EgressLimits:
    """The bounds of the whole session: of all layers the strictest."""
    given = [
        layer.egress.limits
        for layer in policy.layers
        if layer.egress is not None and layer.egress.limits != NO_SESSION_LIMITS
    ]
    if not given:
        return NO_SESSION_LIMITS
    names = [field.name for field in fields(EgressLimits)]
    found = {name: [value for limits in given if (value := getattr(limits, name)) is not None] for name in names}
    return EgressLimits(**{name: min(values, default=None) for name, values in found.items()})


def _smallest(rules: tuple[HostRule, ...], name: str) -> int | None:
    given = [value for rule in rules if (value := getattr(rule.limits, name)) is not None]
    return min(given, default=None)


def _asks_nothing(rule: HostRule) -> bool:
    return rule.credential is None and not rule.scan and rule.tls is not Tls.PASSTHROUGH and rule.limits == NO_LIMITS
