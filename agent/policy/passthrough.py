"""TLS that a rule leaves alone, and rules that look into it: together they cannot be carried out.

Rules kept here: judged over all layers and bundles; two rules meet where one pattern takes in the other and they share
a port.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.policy.egress_match import looks_inside
from agent.policy.hosts import covers_pattern
from agent.policy.model import HostRule, Layer, Tls
from agent.policy.problem import Problem
from agent.policy.request import Protocol


def report_passthrough(problems: list[Problem], layers: Sequence[Layer]) -> None:
    """Add a problem for each passthrough rule that meets one that looks inside, or a secret."""
    sections = [layer.egress for layer in layers if layer.egress is not None]
    rules = [rule for section in sections for rule in (*section.allow, *section.deny)]
    secrets = [secret for layer in layers for secret in layer.secrets]
    looking = [rule for rule in rules if rule.protocol in (Protocol.TLS, None) and looks_inside(rule)]
    for rule in rules:
        if rule.tls is not Tls.PASSTHROUGH:
            continue
        secret = next(
            (secret for secret in secrets if any(_overlap(rule.pattern, host) for host in secret.hosts)), None
        )
        if secret is not None:
            problems.append(
                Problem(
                    rule.where,
                    f"passthrough for '{rule.pattern}', which gets the secret '{secret.name}' ({secret.where})",
                    "remove 'tls: passthrough', or the host of the secret",
                )
            )
        other = next((other for other in looking if other is not rule and _meet(rule, other)), None)
        if other is not None:
            problems.append(
                Problem(
                    rule.where,
                    f"passthrough for '{rule.pattern}', which {other.id} ({other.where}) wants to look into",
                    "remove 'tls: passthrough', or narrow one of the two",
                )
            )


def _meet(rule: HostRule, other: HostRule) -> bool:
    if not _overlap(rule.pattern, other.pattern):
        return False
    return rule.ports is None or other.ports is None or bool(set(rule.ports) & set(other.ports))


def _overlap(one: str, other: str) -> bool:
    return covers_pattern(one, other) or covers_pattern(other, one)
