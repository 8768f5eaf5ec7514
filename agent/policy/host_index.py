"""Rules found by the host they are about, without going through all of them: policies hold thousands of hosts.

Rules kept here: what is found is exactly what `agent.policy.hosts.match_host` would find, in the order of the policy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the model holds an index of its own rules
    from agent.policy.model import HostRule


type _Entries = dict[str, list[tuple[int, HostRule]]]


class HostIndex:
    """Of the rules it was made of, which never change. It is filled when it is first asked."""

    __slots__ = ("_entries", "_rules")

    def __init__(self, rules: Iterable[HostRule]) -> None:
        self._rules = tuple(rules)
        self._entries: tuple[_Entries, _Entries] | None = None

    def about(self, host: str) -> list[HostRule]:
        """The rules whose pattern matches a normalised host."""
        entries = self._entries
        if entries is None:
            entries = self._entries = _sorted_in(self._rules)
        exact, below = entries
        found = list(exact.get(host, ()))
        if below:
            _, dot, above = host.partition(".")
            while dot:
                found += below.get(above, ())
                _, dot, above = above.partition(".")
        if len(found) > 1:
            found.sort(key=_position)
        return [rule for _, rule in found]


def _sorted_in(rules: tuple[HostRule, ...]) -> tuple[_Entries, _Entries]:
    """By exact host, and by the domain below which a wildcard matches."""
    exact: _Entries = {}
    below: _Entries = {}
    for position, rule in enumerate(rules):
        if rule.pattern.startswith("*."):
            below.setdefault(rule.pattern[2:], []).append((position, rule))
        else:
            exact.setdefault(rule.pattern, []).append((position, rule))
    return exact, below


def _position(entry: tuple[int, HostRule]) -> int:
    return entry[0]
