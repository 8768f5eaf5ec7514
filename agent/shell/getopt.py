"""Reading the leading options of a wrapper (POSIX order: they end at the first operand)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from agent.policy.request import UNKNOWN
from agent.shell.pieces import Word
from agent.shell.wrappers import Wrapper
from agent.values import dataclass


@dataclass(slots=True)
class Options:
    """Leading options, read: where operands begin, what was given, and whether an option was unlisted. `dashes`: they
    ended at ``--``."""

    end: int
    given: list[tuple[str, Word]]
    unlisted: str | None = None
    uncertain: bool = False
    dashes: bool = False


@lru_cache(maxsize=512)
def short_kinds(short: str) -> Mapping[str, str]:
    """Letter of a getopt string -> its colons."""
    return dict(re.findall(r"(\w)(:*)", short))


@lru_cache(maxsize=512)
def long_kinds(long: str) -> Mapping[str, int]:
    """Name -> number of values (``name==`` takes two); ``-name`` is one that is spelled with one dash."""
    return {name.rstrip("="): name.count("=") for name in long.split()}


def read_options(words: Sequence[Word], start: int, wrapper: Wrapper) -> Options:
    """Read options from `words[start]` until the first operand."""
    kinds = short_kinds(wrapper.short)
    read = Options(start, [])
    while read.end < len(words):
        text = words[read.end].text
        if text.startswith(UNKNOWN):
            read.uncertain = True
            read.end += 1
            continue
        if not text.startswith("-") or text == "-":
            break
        read.end += 1
        if text == "--":
            read.dashes = True
            break
        if text.startswith("--") or text in long_kinds(wrapper.long):
            _long_option(words, text, wrapper, read)
        else:
            _short_options(words, text, kinds, read)
    return read


def _long_option(words: Sequence[Word], text: str, wrapper: Wrapper, read: Options) -> None:
    name, equals, value = (text[2:] if text.startswith("--") else text).partition("=")
    known = long_kinds(wrapper.long)
    found = name if name in known else next((k for k in known if k.startswith(name)), None)
    if found is None:
        read.unlisted = text
        return
    values = known[found]
    if equals:
        read.given.append((found, words[read.end - 1]._replace(text=value)))
    elif values and read.end < len(words):
        read.given.append((found, words[read.end]))
        read.end = min(read.end + values, len(words))
    else:
        read.given.append((found, Word("")))


def _short_options(words: Sequence[Word], text: str, kinds: Mapping[str, str], read: Options) -> None:
    for index, letter in enumerate(text[1:], 2):
        kind = kinds.get(letter)
        if kind is None:
            read.unlisted = text
            return
        if kind == "::":
            return
        if kind == ":":
            value = words[read.end - 1]._replace(text=text[index:])
            if index == len(text):
                value = words[read.end] if read.end < len(words) else Word("")
                read.end += 1
            read.given.append((letter, value))
            return
        read.given.append((letter, Word("")))
