"""Many path patterns asked at once: a class of paths has dozens of them, and a command may have 100,000 operands.

Rules kept here: what is said is what `operands.operand_fit` says of each pattern alone, for paths that are spelled out
(normalised, nothing unknown in them, nothing still to be expanded); all patterns are one regular expression.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from agent.policy.operands import compiled, holders, rooted

_ANYWHERE: Final = "/.*/"
"""How the expression of a pattern begins that starts with ``**/``."""


def is_path(pattern: str, home: str) -> bool:
    """True for a pattern that is compared with paths, false for one that is compared with words, or with values."""
    return rooted(pattern, home).startswith("/")


def any_meets(patterns: tuple[str, ...], path: str, *, home: str, recursive: bool) -> bool:
    """Does one of the path patterns meet `path`? `recursive`: or name something below it."""
    meet, above = _expressions(patterns, home)
    if meet.fullmatch(path) is not None:
        return True
    return recursive and bool(patterns) and (path == "/" or above.fullmatch(path) is not None)


def any_describes(patterns: tuple[str, ...], word: str) -> bool:
    """Does one of the patterns meet `word` as it is written, path or not? Nothing in `word` is open."""
    return _of_words(patterns).fullmatch(word) is not None


@lru_cache(maxsize=256)
def _of_words(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return _one_of(list(patterns))


@lru_cache(maxsize=256)
def _expressions(patterns: tuple[str, ...], home: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    spelled = [rooted(pattern, home) for pattern in patterns]
    above = dict.fromkeys(holder for pattern in spelled for holder in holders(pattern))
    return _one_of(spelled), _one_of(above)


def _one_of(patterns: list[str] | dict[str, None]) -> re.Pattern[str]:
    """(?!) matches nothing. What may lie anywhere is looked for once at each depth, not once for each pattern."""
    spelled = [one.pattern for pattern in patterns for one in compiled(pattern)]
    anywhere = [text.removeprefix(_ANYWHERE) for text in spelled if text.startswith(_ANYWHERE)]
    elsewhere = [f"(?:{text})" for text in spelled if not text.startswith(_ANYWHERE)]
    if anywhere:
        elsewhere.append(f"{_ANYWHERE}(?:{'|'.join(anywhere)})")
    return re.compile("|".join(elsewhere) or "(?!)", re.S)
