"""What `policy lint` warns of: not wrong, but worth a second look.

Rules kept here: a finding names its place and says what could happen; a policy with findings is in force.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent.policy.build_detect import unseen
from agent.policy.egress_match import conditional, looks_inside
from agent.policy.hosts import covers_pattern
from agent.policy.model import CommandRule, CommandSection, EgressSection, HostRule, Layer, Mode, SourceKind
from agent.policy.paths import covers
from agent.policy.request import Protocol
from agent.policy.rule_ids import is_by_place, is_of_bundle
from agent.policy.shared_hosting import shared_host, shared_suffix


def findings(layers: Sequence[Layer]) -> tuple[str, ...]:
    """The findings of all layers, in their order."""
    found: list[str] = []
    for layer in layers:
        found += _exceptions(layer)
        if layer.commands is not None:
            found += _named_twice(layer.commands)
        if layer.egress is not None:
            found += _shared_hosting(layer.egress)
            found += _drops(layer.egress)
            found += _made_pointless(layer.egress)
            found += _only_watched(layer.egress)
            found += _beside_raw(layer.egress)
        found += _secret_files(layer)
    return (*found, *unseen(layers))


def _exceptions(layer: Layer) -> Iterator[str]:
    for exception in layer.exceptions:
        if is_by_place(exception.rule):
            yield f"{exception.where}: {exception.rule} is a place and moves with its file; give the rule an id"
        if exception.match is None and exception.host is None:
            yield f"{exception.where}: cancels the whole rule {exception.rule} until {exception.expires}"


def _named_twice(section: CommandSection) -> Iterator[str]:
    """Own rules that are named like one of a pack."""
    first: dict[str, CommandRule] = {}
    for rule in section.deny:
        other = first.setdefault(rule.id, rule)
        if other is not rule:
            yield (
                f"{other.where}: {rule.id} is also the name of a rule of a pack ({rule.where}): both hold, and an "
                "exception of that name is one from both"
            )


def _shared_hosting(section: EgressSection) -> Iterator[str]:
    """Quiet where denials below the wildcard show that somebody has looked, and where only single requests pass."""
    for rule in section.allow:
        shared = shared_suffix(rule.pattern)
        if shared is None or rule.git is not None:
            continue
        if any(deny.mode is Mode.ENFORCE and covers_pattern(rule.pattern, deny.pattern) for deny in section.deny):
            continue
        yield (
            f"{rule.where}: '{rule.pattern}' takes in {shared.suffix}, where {shared.what}: it lets data out to "
            "strangers; name the hosts you need, or close what you do not under egress.deny"
        )


def _drops(section: EgressSection) -> Iterator[str]:
    """Quiet where the rule says which paths are meant, or which credential."""
    for rule in section.allow:
        shared = shared_host(rule.pattern)
        pinned = rule.credential is not None and rule.credential.only
        narrowed = pinned or rule.paths is not None or rule.git is not None
        if shared is not None and not narrowed:
            yield (
                f"{rule.where}: '{rule.pattern}' is a host where {shared.what}: it lets data out to strangers; name "
                "the paths you need under 'paths:'"
            )


def _made_pointless(section: EgressSection) -> Iterator[str]:
    """Allows of one layer add up: a condition restricts nothing beside a bundle's plain allow of the same host, or
    beside an allow in observe mode, which lets everything pass to the hosts that it names."""
    open_rules = [
        rule for rule in section.allow if rule.mode is Mode.OBSERVE or (is_of_bundle(rule.id) and not conditional(rule))
    ]
    for rule in section.allow:
        if is_of_bundle(rule.id) or rule.mode is Mode.OBSERVE or not conditional(rule):
            continue
        wider = next((other for other in open_rules if _opens(other, rule)), None)
        if wider is not None:
            how = "only observes and lets pass" if wider.mode is Mode.OBSERVE else "allows"
            yield (
                f"{rule.where}: the conditions of this rule restrict nothing: {wider.id} {how} all of "
                f"'{rule.pattern}'; change that one, or restrict the host under egress.deny or in a further layer"
            )


def _only_watched(section: EgressSection) -> Iterator[str]:
    """Allows whose conditions hold nobody up. Quiet where the section only observes, where another rule allows as much,
    and where `_made_pointless` speaks of the rule already."""
    for rule in section.allow if section.mode is Mode.ENFORCE else ():
        if rule.mode is not Mode.OBSERVE:
            continue
        beside = [other for other in section.allow if other.mode is Mode.ENFORCE]
        if any(_opens(other, rule) if not conditional(other) else _opens(rule, other) for other in beside):
            continue
        yield (
            f"{rule.where}: this rule only observes: it opens all of '{rule.pattern}', and what its conditions rule "
            "out is recorded and let pass; take 'mode: observe' away when you have seen enough"
        )


def _beside_raw(section: EgressSection) -> Iterator[str]:
    """Rules for requests where another rule of the layer allows raw bytes at the same place: what is asked for by
    CONNECT or SOCKS is raw where no rule has TLS there."""
    raw = [rule for rule in section.allow if rule.protocol is Protocol.TCP]
    for rule in section.allow:
        other = next((other for other in raw if _meet(other, rule)), None)
        if other is None or rule.protocol is Protocol.TCP:
            continue
        ports = ", ".join(str(port) for port in sorted(set(rule.ports or ()) & set(other.ports or ())))
        if rule.protocol is Protocol.TLS:
            yield (
                f"{other.where}: '{rule.pattern}' on port {ports} is for TLS by {rule.id} and for raw bytes by "
                "this rule: TLS is demanded there, unless a further layer has raw bytes only; name other ports or hosts"
            )
        elif looks_inside(rule):
            yield (
                f"{rule.where}: the conditions of this rule can be gone round: {other.id} allows raw bytes to "
                f"'{rule.pattern}' on port {ports}, and a tunnel there can carry any request; take one of them away"
            )


def _meet(one: HostRule, other: HostRule) -> bool:
    """Have they a host and a port in common?"""
    hosts = covers_pattern(one.pattern, other.pattern) or covers_pattern(other.pattern, one.pattern)
    return hosts and bool(set(one.ports or ()) & set(other.ports or ()))


def _opens(other: HostRule, rule: HostRule) -> bool:
    return (
        covers_pattern(other.pattern, rule.pattern)
        and other.protocol is rule.protocol
        and set(rule.ports or ()) <= set(other.ports or ())
    )


def _secret_files(layer: Layer) -> Iterator[str]:
    granted = (*layer.paths.write, *layer.paths.read) if layer.paths is not None else ()
    for secret in layer.secrets:
        if secret.source.kind is not SourceKind.FILE:
            continue
        tree = next((rule for rule in granted if covers(rule.path, secret.source.value[0])), None)
        if tree is not None:
            yield (
                f"{secret.where}: the file of the secret '{secret.name}' lies in {tree.path}, which the session may "
                "read; keep it elsewhere, or readable by the agent alone"
            )
