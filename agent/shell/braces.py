"""Brace expansion (bash(1), "Brace Expansion"): it comes before all other expansions.

Rules: quoted and expanded pieces are carried through unseen; too many results are an unknown number of unknown words.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from agent.policy.request import UNKNOWN
from agent.shell.pieces import MAX_FIELDS, Piece, has_glob

MAX_BRACES = 32

_HELD = 0x100000  # private use: one stand-in for each piece that braces do not look into


def braced_words(pieces: list[Piece]) -> list[list[Piece]]:
    """Every word that these pieces are the braces of."""
    opened = sum(p.text.count("{") for p in pieces if not p.quoted and not p.split)
    if not opened:
        return [pieces]
    if opened > MAX_BRACES or len(pieces) > 0xFFFF:
        return [[Piece(UNKNOWN, split=True)]]
    plain = "".join(p.text if not (p.quoted or p.split or p.ends) else chr(_HELD + i) for i, p in enumerate(pieces))
    expanded = list(itertools.islice(_expand(plain, 0), MAX_FIELDS + 1))
    if len(expanded) > MAX_FIELDS:
        return [[Piece(UNKNOWN, split=True)]]
    return [_restored(text, pieces) for text in expanded]


def _restored(text: str, pieces: list[Piece]) -> list[Piece]:
    found: list[Piece] = []
    for part in re.split(f"([{chr(_HELD)}-{chr(_HELD + 0xFFFF)}])", text):
        held = ord(part) - _HELD if len(part) == 1 and ord(part) >= _HELD else -1
        if 0 <= held < len(pieces):
            found.append(pieces[held])
        elif part:
            found.append(Piece(part, glob=has_glob(part)))
    return found


def _expand(text: str, depth: int) -> Iterator[str]:
    """Every text that the braces of `text` stand for."""
    start = text.find("{")
    while start >= 0 and depth < 16:
        end, parts = _group(text, start)
        if parts is not None:
            for part in parts:
                for head in _expand(part, depth + 1) if len(parts) > 1 or "{" in part else (part,):
                    for tail in _expand(text[end + 1 :], depth + 1):
                        yield text[:start] + head + tail
            return
        start = text.find("{", start + 1)
    yield text


def _group(text: str, start: int) -> tuple[int, list[str] | None]:
    depth, parts, begin = 0, [], start + 1
    for index in range(start, len(text)):
        char = text[index]
        if char == "{":
            depth += 1
        elif char == "," and depth == 1:
            parts.append(text[begin:index])
            begin = index + 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                inner = text[begin:index]
                return index, [*parts, inner] if parts else _sequence(inner)
    return len(text), None


def _sequence(inner: str) -> list[str] | None:
    found = re.fullmatch(r"(-?\d{1,6})\.\.(-?\d{1,6})|([A-Za-z])\.\.([A-Za-z])", inner)
    if found is None:
        return None
    if found[1]:
        low, high = sorted((int(found[1]), int(found[2])))
        return [str(number) for number in range(low, min(high, low + MAX_FIELDS) + 1)]
    low, high = sorted((ord(found[3]), ord(found[4])))
    return [chr(code) for code in range(low, high + 1)]
