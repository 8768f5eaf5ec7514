"""Protected places among real names: which entry of a directory is one, which holds one, which is to be reserved.

Rules kept here: pure text, whoever asks walks the directories; every layer's `paths.protect` counts; what is said of a
path is what `decide` says of it, found quickly for the many names that no pattern mentions.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.policy.decide_paths import sections
from agent.policy.globs import ANY_DEPTH, match_prefix, match_segment, may_contain
from agent.policy.model import PathRule, Policy
from agent.policy.paths import last_two, may_protect, pieces, tails
from agent.values import dataclass


@dataclass(frozen=True, slots=True)
class Reservation:
    """A protected name that may not exist yet. `directory`: it stands for a directory (the pattern ends in ``/**``)."""

    path: str
    directory: bool
    rule: PathRule


class Protected:
    """The protected places of a policy, for a session with this home (resolved, absolute)."""

    def __init__(self, policy: Policy, home: str) -> None:
        self.home = home
        self._rules = [(rule, _trimmed(rule.path, home)) for _, found in sections(policy) for rule in found.protect]
        self._patterns = tuple(rule.path for rule, _ in self._rules)
        self._leading, self._leading_globs = _leading([pieces(pattern, home) for pattern in self._patterns])
        self._tails = tails([parts for _, parts in self._rules])

    def __bool__(self) -> bool:
        return bool(self._rules)

    def speaks_of(self, path: str) -> bool:
        """May `path` be a protected place that is in none, or hold one by name? Quick, by its last two names alone, and
        never wrongly False."""
        return self._tails.fullmatch(last_two(path)) is not None

    def rule_of(self, path: str) -> PathRule | None:
        """The rule that protects `path`, None where none does."""
        if not may_protect(self._patterns, path, self.home):
            return None
        segments = path[1:].split("/")
        return next((rule for rule, parts in self._rules if match_prefix(parts, segments)), None)

    def holds(self, path: str) -> bool:
        """Is `path` a directory by name that a pattern leads through (``.git`` for ``.git/hooks``)?"""
        segments = path[1:].split("/")
        return any(may_contain(parts, segments) for parts in self._leading.get(segments[-1], self._leading_globs))

    def fixed(self) -> Iterator[Reservation]:
        """The names that the patterns spell out from the root, or from the home."""
        for rule, parts in self._rules:
            if parts[0] != ANY_DEPTH and _literal(parts):
                yield _reservation("", parts, rule)

    def at_top(self, top: str) -> Iterator[Reservation]:
        """The names that patterns for any depth mean directly below the directory `top`."""
        for rule, parts in self._rules:
            if parts[0] == ANY_DEPTH and _literal(parts[1:]):
                yield _reservation(top, parts[1:], rule)

    def inside(self, holder: str) -> Iterator[Reservation]:
        """The names that patterns for any depth mean below `holder`, whose last names are their first ones."""
        segments = holder[1:].split("/")
        for rule, parts in self._rules:
            names = parts[1:]
            if parts[0] != ANY_DEPTH or ANY_DEPTH in names:
                continue
            for length in range(1, len(names)):
                above, rest = names[:length], names[length:]
                if _literal(rest) and len(segments) >= length and all(map(match_segment, above, segments[-length:])):
                    yield _reservation(holder, rest, rule)


def _trimmed(pattern: str, home: str) -> tuple[str, ...]:
    parts = pieces(pattern, home)
    while parts[-1] == ANY_DEPTH:
        parts.pop()
    return tuple(parts)


def _leading(patterns: list[list[str]]) -> tuple[dict[str, list[list[str]]], list[list[str]]]:
    """The patterns that may lead through a directory of a name, and those that may lead through one of any other."""
    above = [({*[part for part in parts if part != ANY_DEPTH][:-1]}, parts) for parts in patterns]
    globs = [parts for names, parts in above if any("*" in name for name in names)]
    named = {name for names, _ in above for name in names}
    return {name: [parts for names, parts in above if name in names or parts in globs] for name in named}, globs


def _literal(parts: tuple[str, ...]) -> bool:
    return bool(parts) and not any("*" in part for part in parts)


def _reservation(below: str, parts: tuple[str, ...], rule: PathRule) -> Reservation:
    return Reservation("/".join([below, *parts]), rule.path.endswith(f"/{ANY_DEPTH}"), rule)
