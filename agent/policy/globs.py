"""Wildcards of URL paths and of protected places: `*` inside one segment, `**` for any number of whole segments.

Rules kept here: matching is linear in the text for one segment and bounded by segments x pattern for a path (no
backtracking that a hostile path could drive); case counts; nothing but `*` is special.
"""

from __future__ import annotations

from collections.abc import Sequence

ANY_DEPTH = "**"


def match_segment(pattern: str, text: str) -> bool:
    """Does one segment match? `*` stands for any run of characters, the empty one included."""
    head, *rest = pattern.split("*")
    if not rest:
        return pattern == text
    *middle, tail = rest
    if not text.startswith(head) or len(text) < len(head) + len(tail) or not text.endswith(tail):
        return False
    at, end = len(head), len(text) - len(tail)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def match_segments(pattern: Sequence[str], segments: Sequence[str]) -> bool:
    """Do all segments match the whole pattern?

    `**` takes any number of segments; as the last one it takes at least one, so that ``/simple/**`` is everything below
    ``/simple`` and not itself.
    """
    return len(segments) in _matched(pattern, segments)


def match_prefix(pattern: Sequence[str], segments: Sequence[str]) -> bool:
    """Does the pattern match the segments or some leading part of them (the place itself, or something below it)?"""
    end = len(pattern)
    while end and pattern[end - 1] == ANY_DEPTH:
        end -= 1
    return not end or bool(_matched(pattern[:end], segments))


def _matched(pattern: Sequence[str], segments: Sequence[str]) -> set[int]:
    """Of how many leading segments is the pattern a match?"""
    reached = {0}
    last = len(pattern)
    for position, piece in enumerate(pattern):
        if not reached:
            return reached
        if piece != ANY_DEPTH:
            reached = {at + 1 for at in reached if at < len(segments) and match_segment(piece, segments[at])}
            continue
        first = min(reached) + (1 if position == last - 1 else 0)
        reached = set(range(first, len(segments) + 1))
    return reached


def may_contain(pattern: Sequence[str], segments: Sequence[str]) -> bool:
    """Could something below `segments` match the pattern, by the pattern's own names?

    True where the last segments are the first names of the pattern (``.git`` for ``**/.git/hooks``): who removes or
    renames that directory moves the protected place with it.
    """
    trimmed = [piece for piece in pattern if piece != ANY_DEPTH]
    anchored = bool(pattern) and pattern[0] != ANY_DEPTH
    lengths = range(1, min(len(trimmed) - 1, len(segments)) + 1)
    return any(
        all(match_segment(piece, part) for piece, part in zip(trimmed[:length], segments[-length:], strict=True))
        for length in lengths
        if not anchored or len(segments) == length
    )
