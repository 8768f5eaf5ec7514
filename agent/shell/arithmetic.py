"""Arithmetic expansion where every operand is known (bash(1), "ARITHMETIC EVALUATION").

Rules: decimal integers, known variables, ``+ - * / % ( )`` and nothing else; anything further is not known; numbers
and expressions are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from agent.expressions import expression
from agent.shell.pieces import Value

_TOKENS = expression(r"\s*(?:(\d{1,18})|\$?\{?([A-Za-z_]\w*)\}?|(.))", re.DOTALL)
_LONGEST = 200
_LARGEST = 1 << 62


class _Unknown(Exception):
    """The expression is not one that is understood here."""


def evaluate(text: str, variable: Callable[[str], Value | None]) -> int | None:
    """The value of `text`, None where it is not known."""
    if len(text) > _LONGEST:
        return None
    tokens: list[str] = []
    try:
        for number, name, other in _TOKENS.findall(text.strip()):
            tokens.append(number or (_number(variable(name)) if name else other))
        value, end = _sum(tokens, 0, 0)
    except _Unknown:
        return None
    return value if end == len(tokens) else None


def _number(value: Value | None) -> str:
    text = value[0].text if value else ""
    if re.fullmatch(r"-?\d{1,18}", text) is None or (text.lstrip("-").startswith("0") and text != "0"):
        raise _Unknown
    return text


def _sum(tokens: list[str], at: int, depth: int) -> tuple[int, int]:
    value, at = _product(tokens, at, depth)
    while at < len(tokens) and tokens[at] in ("+", "-"):
        other, end = _product(tokens, at + 1, depth)
        value, at = (value + other if tokens[at] == "+" else value - other), end
    return value, at


def _product(tokens: list[str], at: int, depth: int) -> tuple[int, int]:
    value, at = _atom(tokens, at, depth)
    while at < len(tokens) and tokens[at] in ("*", "/", "%"):
        other, end = _atom(tokens, at + 1, depth)
        if tokens[at] == "*":
            value *= other
        elif other == 0:
            raise _Unknown
        else:
            whole = abs(value) // abs(other) * (1 if (value < 0) == (other < 0) else -1)
            value = whole if tokens[at] == "/" else value - whole * other
        at = end
    return value, at


def _atom(tokens: list[str], at: int, depth: int) -> tuple[int, int]:
    first = tokens[at] if at < len(tokens) else ""
    if depth > 20:
        raise _Unknown
    if first in ("-", "+"):
        value, end = _atom(tokens, at + 1, depth + 1)
        return (-value if first == "-" else value), end
    if first == "(":
        value, end = _sum(tokens, at + 1, depth + 1)
        if end >= len(tokens) or tokens[end] != ")":
            raise _Unknown
        return value, end + 1
    if re.fullmatch(r"-?\d+", first) is None or (len(first) > 1 and first.startswith("0")):
        raise _Unknown  # a leading 0 is octal
    value = int(first)
    if abs(value) > _LARGEST:
        raise _Unknown
    return value, at + 1
