"""Words after folding, and the pieces that they are put together from, as values.

Rules: a word carries the names of the programs whose output it holds, whether its text is known or not, through
variables, concatenation and files; what makes a word of pieces loses none of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from agent.policy.request import UNKNOWN

MAX_FIELDS = 256
MAX_MAKERS = 64
_GLOB = re.compile(r"[*?\[]")


class Word(NamedTuple):
    """One word after folding. `glob`: still to be expanded against the file system. `made_by`: the programs whose
    output it holds, the first of the pipeline first."""

    text: str
    glob: bool = False
    made_by: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        return UNKNOWN not in self.text


type Value = tuple[Word, ...]
"""What a variable holds: one word, or the elements of an array."""

NOTHING = Word("")
ANYTHING = Word(UNKNOWN)


class Piece(NamedTuple):
    """A part of a word. `split`: the unquoted result of an expansion. `ends`: a field ends here (``"$@"``)."""

    text: str
    quoted: bool = False
    split: bool = False
    glob: bool = False
    ends: bool = False
    made_by: tuple[str, ...] = ()


def has_glob(text: str) -> bool:
    """Is there a character that pathname expansion looks at?"""
    return _GLOB.search(text) is not None


def makers(parts: Iterable[Word | Piece]) -> tuple[str, ...]:
    """The programs that made any of `parts`, each once."""
    found: tuple[str, ...] = ()
    for part in parts:
        if part.made_by:
            found = merged(found, part.made_by)
    return found


def merged(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    """Both lists of programs, each program once."""
    if not second or first == second:
        return first
    if not first:
        return second
    return tuple(dict.fromkeys(first + second))[:MAX_MAKERS]


def unknown_of(*words: Word) -> Word:
    """Unknown text that came from where `words` came from."""
    made_by = makers(words)
    return Word(UNKNOWN, made_by=made_by) if made_by else ANYTHING


def joined_words(words: Iterable[Word], between: str = " ") -> Word:
    """One word of several, as ``$*`` and ``eval`` put them together."""
    words = tuple(words)
    return Word(between.join(word.text for word in words), any(word.glob for word in words), makers(words))
