"""Paths of requests, brought into the one form that rules are matched against.

Rules kept here: percent escapes are decoded once; what two servers could read as two different paths is refused, never
repaired, because a repaired path is not the one the server gets: dot segments, empty segments, `;` parameters,
backslashes, encoded slashes, a second layer of escapes, invalid UTF-8, control characters. The query is no part of it.

Sources: RFC 3986 section 3.3 and 6.2.2, WHATWG URL Standard (path state); the path cases of the egress attack list.
"""

from __future__ import annotations

import re
from typing import Final

_BROKEN: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
# what changes a path's meaning, and what no encoder escapes (RFC 3986 2.3): letters, digits, "-", ".", "_" and "~"
_AGAIN: Final = re.compile(r"%(?:2[dDeEfF5]|5[cCfF]|00|3[bB]|3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|7[eE])")
_MEANINGFUL: Final = frozenset({0x2F, 0x5C, 0x3B})


class UrlPathError(ValueError):
    """A request path that rules cannot be matched against safely; the text says why."""


def segments(raw: str) -> tuple[str, ...]:
    """The decoded segments of a raw request path; a trailing slash is an empty last segment.

    Raises UrlPathError for everything ambiguous.
    """
    if not raw.startswith("/"):
        raise UrlPathError("the path does not start with '/'")
    if "?" in raw or "#" in raw:
        raise UrlPathError("the path contains a query or fragment")
    if _BROKEN.search(raw):
        raise UrlPathError("the path contains an incomplete percent escape")
    decoded = _decode(raw)
    if "\\" in decoded or ";" in decoded:
        raise UrlPathError("the path contains a backslash or ';'")
    if any(character < " " or character == "\x7f" for character in decoded):
        raise UrlPathError("the path contains a control character")
    if _AGAIN.search(decoded):
        raise UrlPathError("the path is percent-encoded twice")
    parts = tuple(decoded[1:].split("/"))
    if any(part in (".", "..") for part in parts):
        raise UrlPathError("the path contains '.' or '..'")
    if "" in parts[:-1]:
        raise UrlPathError("the path contains '//'")
    return parts


def below(parts: tuple[str, ...]) -> tuple[str, ...]:
    """What globs are matched against: the segments without the empty one of a trailing slash (``/`` itself is none)."""
    return parts[:-1] if parts[-1] == "" else parts


def _decode(raw: str) -> str:
    def one(match: re.Match[bytes]) -> bytes:
        value = int(match.group(1), 16)
        if value in _MEANINGFUL:
            raise UrlPathError("the path contains an encoded '/', ';' or backslash")
        return bytes([value])

    try:
        encoded = raw.encode("utf-8")
        return re.sub(rb"%([0-9A-Fa-f]{2})", one, encoded).decode("utf-8")
    except UnicodeError as error:
        raise UrlPathError("the path is not UTF-8") from error
