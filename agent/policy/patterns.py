"""Known shapes of credentials, from the files in `policies/patterns/`: what uploads are searched for.

Rules kept here: a regular expression is for bytes, compiles, and is linear-time in practice (no repetition of a
repetition); a shape that disagrees with its own examples is a problem. An example is given in pieces, which are joined,
so that no file holds what a scanner would take for a credential.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from agent.policy.model import Pattern
from agent.policy.problem import Problem
from agent.policy.reader import Reader
from agent.policy.schema_patterns import PATTERNS
from agent.policy.shape import Items, Record, Text
from agent.policy.yaml_nodes import compose

__all__ = ["Pattern", "load_patterns"]

_NESTED: Final = re.compile(r"\([^()]*[+*}][^()]*\)[+*{]")


def load_patterns(files: Iterable[tuple[str, str]], problems: list[Problem]) -> tuple[Pattern, ...]:
    """The patterns of the files (name, text), sorted by id; what is wrong is added to `problems`."""
    found: dict[str, Pattern] = {}
    for name, text in sorted(files):
        node = compose(name, text, problems)
        record = Reader(name, problems).read(node, PATTERNS) if node is not None else None
        if not isinstance(record, Record):
            continue
        for entry in record.items("patterns"):
            if not isinstance(entry, Record) or entry.faulty:
                continue
            pattern = _pattern(entry, problems)
            if pattern is not None and pattern.id in found:
                problems.append(Problem(entry.where, f"the pattern '{pattern.id}' is given twice", "rename one"))
            elif pattern is not None:
                found[pattern.id] = pattern
    return tuple(found[name] for name in sorted(found))


def _pattern(entry: Record, problems: list[Problem]) -> Pattern | None:
    text = entry.text("regex")
    try:
        regex = re.compile(text.encode("ascii"))
    except (re.error, UnicodeEncodeError) as error:
        problems.append(Problem(entry.place("regex"), f"no regular expression for bytes: {error}", "correct it"))
        return None
    if _NESTED.search(text) or regex.match(b""):
        what = "matches nothing at all" if regex.match(b"") else "repeats a repetition"
        problems.append(Problem(entry.place("regex"), f"the regular expression {what}", "write it without"))
        return None
    pattern = Pattern(
        entry.text("id"),
        entry.text("description"),
        regex.pattern,
        tuple(word.lower().encode() for word in entry.words("keywords")),
    )
    _check_examples(entry, pattern, problems)
    return pattern


def _check_examples(entry: Record, pattern: Pattern, problems: list[Problem]) -> None:
    examples = entry.record("examples") or Record((), entry.where)
    for key, wanted in (("match", True), ("no_match", False)):
        for example in examples.items(key):
            text = joined(example) if isinstance(example, Items) else ""
            if finds(pattern, text.encode()) is not wanted:
                how = "does not match" if wanted else "matches"
                problems.append(
                    Problem(example.where, f"{pattern.id} {how} its example", "correct the pattern or the example")
                )


def joined(example: Items) -> str:
    """An example's pieces as one text; a piece ``x*36`` is 36 times the character in front of the star."""
    return "".join(_piece(piece.value) for piece in example.values if isinstance(piece, Text))


def finds(pattern: Pattern, data: bytes) -> bool:
    """Does the data hold the shape?"""
    lower = data.lower()
    if pattern.keywords and not any(word in lower for word in pattern.keywords):
        return False
    return re.search(pattern.regex, data) is not None


def _piece(text: str) -> str:
    repeated = re.fullmatch(r"(.)\*([0-9]{1,3})", text, re.S)
    return text if repeated is None else repeated[1] * int(repeated[2])
