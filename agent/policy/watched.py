"""Protected and watched patterns, compiled for a watcher that is asked about every name that appears.

Rules kept here: pure; what `holds` and `completes` say together is what `agent.policy.paths.protects` says of the whole
path (tests/policy/test_watched.py holds them against each other); a name that ends no pattern costs one look-up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from agent.policy.globs import ANY_DEPTH, match_segment
from agent.policy.paths import pieces, protects

_WILD: Final = "*"


class Patterns:
    """Patterns as `paths.protect` and `paths.watch` have them; `home`: the session's."""

    def __init__(self, patterns: Iterable[str], home: str = "") -> None:
        self.all = tuple(dict.fromkeys(patterns))
        self._home = home
        self._everything = False
        self._named: defaultdict[str, list[str]] = defaultdict(list)
        self._wild: list[tuple[str, str]] = []
        for pattern in self.all:
            names = [piece for piece in pieces(pattern, home) if piece]
            while names and names[-1] == ANY_DEPTH:
                names.pop()
            if not names:
                self._everything = True
            elif _WILD in names[-1]:
                self._wild.append((names[-1], pattern))
            else:
                self._named[names[-1]].append(pattern)

    def holds(self, path: str) -> bool:
        """Is the absolute `path` a protected place, or below one?"""
        return self._everything or any(protects(pattern, path, self._home) for pattern in self.all)

    def completes(self, directory: str, name: str) -> bool:
        """Is `name` in `directory`, which is in no protected place itself, one?"""
        if self._everything:
            return True
        candidates = self._named.get(name, ())
        wild = [pattern for last, pattern in self._wild if match_segment(last, name)] if self._wild else ()
        if not candidates and not wild:
            return False
        path = f"{directory.rstrip('/')}/{name}"
        return any(protects(pattern, path, self._home) for pattern in (*candidates, *wild))
