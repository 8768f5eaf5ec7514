"""Do the header fields or the query of a request fulfil a condition?

Rules kept here: an allow wants one value at least, under exactly this name, and every value to fit; a deny takes one
value that fits, in any reading of it (case, `_` for `-`, one element of a comma list). A repeated field and a comma
list are the same thing (RFC 9110 section 5.3): where a field's value holds commas, each element must fit, or the whole
a glob that holds a comma itself. A query that servers could read in two ways is a `QueryError`: no condition can be
judged.

Sources: RFC 9110 section 5 (fields), WHATWG URL Standard section 5.1 (application/x-www-form-urlencoded).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from agent.policy.globs import match_segment
from agent.policy.model import Condition

type Pairs = tuple[tuple[str, str], ...]

MOST_PARAMETERS: Final = 1000

_BROKEN: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")


class QueryError(ValueError):
    """A query that conditions cannot be judged by; the text says why."""


def parse_query(raw: str) -> Pairs:
    """The parameters in order, decoded once, `+` as a space. Raises QueryError."""
    if ";" in raw:
        raise QueryError("the query contains ';', which some servers take for '&'")
    if "#" in raw or _BROKEN.search(raw):
        raise QueryError("the query contains a fragment or an incomplete percent escape")
    pieces = [piece for piece in raw.split("&") if piece]
    if len(pieces) > MOST_PARAMETERS:
        raise QueryError(f"the query has more than {MOST_PARAMETERS} parameters")
    pairs = []
    for piece in pieces:
        name, _, value = piece.partition("=")
        pairs.append((_decoded(name), _decoded(value)))
    return tuple(pairs)


def header_holds(condition: Condition, headers: Pairs, *, allow: bool) -> bool:
    """Do these fields (names in lower case) fulfil the condition, for an allow or for a deny?"""
    return _judge(condition, headers, _list_fits if allow else _any_element_fits, allow=allow)


def query_holds(condition: Condition, parameters: Pairs, *, allow: bool) -> bool:
    """Do these parameters fulfil the condition, for an allow or for a deny?"""
    return _judge(condition, parameters, _fits if allow else _fits_loosely, allow=allow)


def _judge(condition: Condition, pairs: Pairs, fits: Callable[[Condition, str], bool], *, allow: bool) -> bool:
    name = _alike(condition.name)
    found = [(given, value) for given, value in pairs if _alike(given) == name]
    if not allow:
        return any(fits(condition, value) for _, value in found)
    named = any(given == condition.name for given, _ in found)
    return named and all(fits(condition, value) for _, value in found)


def _alike(name: str) -> str:
    """One text for all names that some server takes for the same."""
    return name.lower().replace("_", "-")


def _fits(condition: Condition, value: str) -> bool:
    return not condition.values or any(match_segment(glob, value) for glob in condition.values)


def _fits_loosely(condition: Condition, value: str) -> bool:
    text = value.strip().lower()
    return not condition.values or any(match_segment(glob.lower(), text) for glob in condition.values)


def _list_fits(condition: Condition, value: str) -> bool:
    whole = value.strip()
    if "," in whole and any("," in glob and match_segment(glob, whole) for glob in condition.values):
        return True
    return all(_fits(condition, element.strip()) for element in whole.split(","))


def _any_element_fits(condition: Condition, value: str) -> bool:
    return any(_fits_loosely(condition, text) for text in (value, *value.split(",")))


def _decoded(text: str) -> str:
    if "%" not in text and "+" not in text:
        return _visible(text)
    try:
        raw = text.replace("+", " ").encode("utf-8")
        return _visible(_ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), raw).decode("utf-8"))
    except UnicodeError as error:
        raise QueryError("the query is not UTF-8") from error


def _visible(text: str) -> str:
    if "\0" in text:
        raise QueryError("the query contains a NUL byte")
    return text
