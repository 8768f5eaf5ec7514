"""Allows that say nothing: fully covered by a deny, or by another allow of the same layer.

Such a rule misleads its reader (it seems to restrict or to open, and does neither), so it is an error. Rules that a
bundle brings are exempt: taking a bundle and closing a part of it, or naming one of its hosts as well, is meant.

Rules kept here: covered means covered for certain; where it is doubtful (globs against globs), nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.policy.build import Bench
from agent.policy.globs import match_segments
from agent.policy.hosts import covers_pattern
from agent.policy.model import HostLimits, HostRule, Mode, Network, PathRule, PathSection
from agent.policy.paths import covers


def report_hosts(bench: Bench, allow: Sequence[HostRule], deny: Sequence[HostRule], own: frozenset[str]) -> None:
    """Add a problem for every shadowed allow. `own`: the ids of the rules that the layer's files themselves hold."""
    order = {id(rule): index for index, rule in enumerate(allow)}
    wider_allows, closings = _Index(rule for rule in allow if rule.id in own), _Index(deny)
    for rule in allow:
        if rule.id not in own:
            continue
        closing = next((other for other in closings.candidates(rule) if _covers(other, rule)), None)
        if closing is not None:
            _report(bench, rule, f"is closed by the deny {closing.id} ({closing.where})", "remove one of the two")
            continue
        others = [other for other in wider_allows.candidates(rule) if other is not rule and _gives_all(other, rule)]
        # of two that cover each other, the later one is reported
        others = [other for other in others if not _gives_all(rule, other) or order[id(other)] < order[id(rule)]]
        wider = next(iter(others), None)
        if wider is not None:
            _report(bench, rule, f"is already allowed by {wider.id} ({wider.where})", "remove it, or narrow the other")


def report_paths(bench: Bench, section: PathSection) -> None:
    """Add a problem for every grant that lies inside another one of the same or a stronger kind."""
    for rules, wider_rules in ((section.write, section.write), (section.read, (*section.write, *section.read))):
        for rule in rules:
            wider = next((other for other in wider_rules if _is_wider(other, rule, wider_rules)), None)
            if wider is not None:
                message = f"'{rule.path}' is already granted by {wider.id} ({wider.where})"
                bench.fault(rule.where, message, "remove it, or narrow the other")


def _is_wider(other: PathRule, rule: PathRule, order: Sequence[PathRule]) -> bool:
    if other is rule or not covers(other.path, rule.path):
        return False
    return other.path != rule.path or order.index(other) < order.index(rule)


class _Index:
    """Rules by their pattern, so that thousands of hosts are not compared with one another."""

    def __init__(self, rules: Iterable[HostRule]) -> None:
        self._exact: dict[str, list[HostRule]] = {}
        for rule in rules:
            self._exact.setdefault(rule.pattern, []).append(rule)

    def candidates(self, rule: HostRule) -> list[HostRule]:
        """The rules whose pattern is the rule's, or a wildcard above it."""
        labels = rule.pattern.removeprefix("*.").split(".")
        above = ("*." + ".".join(labels[start:]) for start in range(len(labels)))
        return [other for pattern in dict.fromkeys((rule.pattern, *above)) for other in self._exact.get(pattern, ())]


def _report(bench: Bench, rule: HostRule, what: str, fix: str) -> None:
    bench.fault(rule.where, f"the allow of '{rule.pattern}' never matters: it {what}", fix)


def _gives_all(other: HostRule, rule: HostRule) -> bool:
    return (
        _covers(other, rule)
        and all(_inside(network, other.addresses) for network in rule.addresses)
        and not _asks_more(rule, other)
    )


def _asks_more(rule: HostRule, other: HostRule) -> bool:
    """All terms of all rules that fit hold, so that a covered rule with terms of its own matters."""
    asked = [(rule.limits, HostLimits()), (rule.tls, None), (rule.credential, None), (rule.scan, False)]
    given = (other.limits, other.tls, other.credential, other.scan)
    return any(mine not in (none, others) for (mine, none), others in zip(asked, given, strict=True))


def _covers(other: HostRule, rule: HostRule) -> bool:
    return (
        covers_pattern(other.pattern, rule.pattern)
        and (other.protocol is None or other.protocol is rule.protocol)
        and _covers_set(other.ports, rule.ports)
        and _covers_set(other.methods, rule.methods)
        and _covers_paths(other.paths, rule.paths)
        and set(other.headers) <= set(rule.headers)
        and set(other.query) <= set(rule.query)
        and other.git in (None, rule.git)
        and other.mode in (Mode.ENFORCE, rule.mode)
    )


def _covers_set(other: tuple[object, ...] | None, given: tuple[object, ...] | None) -> bool:
    return other is None or (given is not None and set(given) <= set(other))


def _covers_paths(other: tuple[str, ...] | None, given: tuple[str, ...] | None) -> bool:
    if other is None:
        return True
    return given is not None and all(any(_covers_glob(wider, glob) for wider in other) for glob in given)


def _covers_glob(wider: str, glob: str) -> bool:
    if wider == glob:
        return True
    return "*" not in glob and match_segments(wider[1:].split("/"), glob[1:].split("/"))


def _inside(network: Network, others: Sequence[Network]) -> bool:
    return any(
        network.version == other.version
        and int(other.network_address) <= int(network.network_address)
        and int(network.broadcast_address) <= int(other.broadcast_address)
        for other in others
    )
