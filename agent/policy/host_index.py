"""Rules found by the host they are about, without going through all of them: policies hold thousands of hosts.

Rules kept here: what is found is exactly what `agent.policy.hosts.match_host` would find, in the order of the policy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the model holds an index of its own rules
    from agent.policy.model import HostRule


class HostIndex:
    """Of the rules it was made of. Never changes afterwards."""

    __slots__ = ("_below", "_exact")

    def __init__(self, rules: Iterable[HostRule]) -> None:
        self._exact: dict[str, list[tuple[int, HostRule]]] = {}
        self._below: dict[str, list[tuple[int, HostRule]]] = {}
        for position, rule in enumerate(rules):
            wildcard = rule.pattern.startswith("*.")
            place = self._below if wildcard else self._exact
            place.setdefault(rule.pattern[2:] if wildcard else rule.pattern, []).append((position, rule))

    def about(self, host: str) -> list[HostRule]:
        """The rules whose pattern matches a normalised host."""
        found = list(self._exact.get(host, ()))
        if self._below:
            _, dot, above = host.partition(".")
            while dot:
                found += self._below.get(above, ())
                _, dot, above = above.partition(".")
        if len(found) > 1:
            found.sort(key=_position)
        return [rule for _, rule in found]


def _position(entry: tuple[int, HostRule]) -> int:
    return entry[0]
