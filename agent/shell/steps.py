"""The steps from a command to what it runs further, as values."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from agent.shell.pieces import Word, joined_words
from agent.values import dataclass


@dataclass(frozen=True, slots=True)
class Inner:
    """A command with its words; `directory`: where it runs, None: in the same place."""

    words: tuple[Word, ...]
    directory: Word | None = None
    assignments: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ShellText:
    """Text that a shell will read; `positional` are its $0, $1, …"""

    text: Word
    positional: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Code:
    """Inline code of an interpreter."""

    language: str
    text: Word


@dataclass(frozen=True, slots=True)
class Opaque:
    """Something runs, and this is why it cannot be known what."""

    reason: str


@dataclass(frozen=True, slots=True)
class Script:
    """A file whose text is run: shell text (`language` is `SHELL`) or code of an interpreter; `positional` are its
    arguments. It is only read here where the same text wrote it or gives it by a descriptor: where the exec ring runs,
    it reads it (`agent.shell.scripts`)."""

    language: str
    path: Word
    positional: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Touches:
    """A file that the command reads (``<``) or writes (``>``) because an option or inline code says so."""

    operator: str
    target: Word


type Step = Inner | ShellText | Code | Script | Opaque | Touches

REVERSE_SHELL = Word("<reverse-shell>")
"""Stands as the program of a command that gives a shell to a connection; behind it the program that does so."""

SHELL = "shell"
"""The language of a `Script` that a shell reads."""


def basename(path: str) -> str:
    """The last component (what decides which program is meant)."""
    return path.rstrip("/").rpartition("/")[2]


def split_plain(word: Word) -> list[Word]:
    """Words at blanks, with quotes taken away, where a program splits a text itself and no shell reads it."""
    try:
        parts = shlex.split(word.text)
    except ValueError:
        parts = word.text.replace('"', "").replace("'", "").split()
    return [word._replace(text=part) for part in parts]


def joined(words: Sequence[Word]) -> Word:
    """The words as one text, as programs join them that hand their arguments to a shell."""
    return words[0] if len(words) == 1 else joined_words(words)


def word_at(words: Sequence[Word], index: int) -> Word:
    """The word at `index`, an empty one behind the end."""
    return words[index] if index < len(words) else Word("")


def reads_descriptor(path: str) -> bool:
    """Is `path` what another process writes (``<(…)``, ``/dev/stdin``) and not a file?"""
    return re.match(r"/dev/(?:stdin|fd/)|/proc/(?:self|thread-self|\d+)/fd/", path) is not None
