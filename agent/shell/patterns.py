"""Patterns inside ``${x#…}``, ``${x%…}`` and ``${x/…/…}``, where text and pattern are known (bash(1), "Pattern
Matching").

Rules: what is not a plain pattern (extglob, character class names) or is large is not known (None); the work is
bounded by the length of the text and the number of stars.
"""

from __future__ import annotations

import re

from agent.policy.request import UNKNOWN

_LONGEST = 4096
_MOST_STARS = 3
_PARTS = re.compile(r"\\(.)|(\*)|(\?)|(\[[^\]\\\[]+\])|(.)", re.DOTALL)
_EXTENDED = re.compile(r"[?*+@!]\(")


def cut_prefix(text: str, pattern: str, *, longest: bool) -> str | None:
    """``${x#pattern}`` and ``${x##pattern}``."""
    expression = _expression(text, pattern, ".*" if longest else ".*?")
    if expression is None:
        return None
    found = re.match(expression, text, re.DOTALL)
    return text if found is None else text[found.end() :]


def cut_suffix(text: str, pattern: str, *, longest: bool) -> str | None:
    """``${x%pattern}`` and ``${x%%pattern}``."""
    expression = _expression(text, pattern, ".*")
    if expression is None:
        return None
    found = re.match(rf"(.*{'?' if longest else ''})(?:{expression})\Z", text, re.DOTALL)
    return text if found is None else found[1]


def replaced(text: str, pattern: str, by: str, operator: str) -> str | None:
    """``${x/pattern/by}``; `operator` is ``/``, ``//`` (all), ``/#`` (at the start) or ``/%`` (at the end)."""
    expression = _expression(text, pattern, ".*")
    if expression is None or UNKNOWN in by or "&" in by:
        return None
    if not pattern:
        return text
    anchored = {"/#": rf"\A(?:{expression})", "/%": rf"(?:{expression})\Z"}.get(operator, expression)
    result = re.sub(anchored, lambda _: by, text, count=0 if operator == "//" else 1, flags=re.DOTALL)
    return result if len(result) <= _LONGEST * 4 else None


def _expression(text: str, pattern: str, star: str) -> str | None:
    if len(text) > _LONGEST or len(pattern) > _LONGEST or UNKNOWN in text or UNKNOWN in pattern:
        return None
    if pattern.count("*") > _MOST_STARS or _EXTENDED.search(pattern) is not None:
        return None
    parts: list[str] = []
    for escaped, many, one, group, other in _PARTS.findall(pattern):
        if many:
            parts.append(star)
        elif one:
            parts.append(".")
        elif group:
            negated = group[1] in "!^"
            parts.append(f"[{'^' if negated else ''}{re.sub(r'([]^[&~|])', r'\\\1', group[1 + negated : -1])}]")
        else:
            parts.append(re.escape(escaped or other))
    expression = "".join(parts)
    try:
        re.compile(expression)
    except re.error:
        return None
    return expression
