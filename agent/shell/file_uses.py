"""Which words of a command are files, and what it does to them, by the form in which its program takes its words.

Rules kept here: only what is certain counts. A form lists every option that changes nothing about the others; with any
other one, or with one that stands for nothing being done (a dry run), no word is said to be a file. Pure text: what a
word means on this machine (a directory, a link, nothing yet) is for whoever asks; what the shell has still to expand
is handed on as a word with an unknown part.

Source: getopt_long(3); the programs are in `agent.shell.file_table`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from agent.policy.request import UNKNOWN
from agent.shell.getopt import long_kinds, short_kinds
from agent.values import dataclass

type Given = list[tuple[str, str]]
"""Options in order, with their values (empty where they have none)."""


class How(StrEnum):
    """What is done to a file. WRITE and READ follow a link of that name; PLACE makes or replaces the name itself,
    REMOVE takes it away; MAKE does nothing where there is something, CHANGE where there is nothing."""

    READ = "read"
    WRITE = "write"
    PLACE = "place"
    REMOVE = "remove"
    MAKE = "make"
    CHANGE = "change"


class Used(NamedTuple):
    """One word that is a file. `inside`: where it is a directory, these names in it are meant instead (the empty one:
    the directory itself). `through`: a link to a directory counts as one."""

    how: How
    word: str
    inside: tuple[str, ...] = ()
    through: bool = True


@dataclass(frozen=True, slots=True)
class Form:
    """How a program takes files. `short`, `long`: its options, as in `agent.shell.wrappers`. `each`: what is done to
    its operands, `places` to the first ones (None: no file); `unless`: options with which the first place is away.
    `takes`: options whose value is a file. `instead`: options that change `each` for another, or say that nothing is
    done at all (None). `into`: the last operand is the target, or a directory for it, and `each` is for the others;
    ``t``, ``T`` and ``n`` are those of cp(1) and ln(1) then. `into_forced`: the same with ``f``. `lone`: a single
    operand's name is made in the current directory. `remote`: a word with a colon before any slash is on another
    machine. `contents`: a trailing slash stands for what is inside. `first`: options end at the first operand.
    `loose`: only options are looked at, and unlisted long ones are stepped over."""

    short: str = ""
    long: str = ""
    each: How | None = None
    places: tuple[How | None, ...] = ()
    unless: frozenset[str] = frozenset()
    takes: Mapping[str, How] = MappingProxyType({})
    instead: Mapping[str, How | None] = MappingProxyType({})
    into: How | None = None
    into_forced: How | None = None
    lone: bool = False
    remote: bool = False
    contents: bool = False
    first: bool = False
    loose: bool = False


def masked(argv: Sequence[str], globs: Sequence[int]) -> list[str] | None:
    """The words behind the program, each that the shell has still to expand with an unknown part; None where that may
    make an option of it."""
    words = list(argv[1:])
    for at in globs:
        if 0 < at < len(argv):
            if argv[at].startswith("-"):
                return None
            words[at - 1] = f"./{UNKNOWN}"
    return words


def sorted_words(form: Form, words: Sequence[str]) -> tuple[Given, list[str]] | None:
    """Options and operands. None where a word is neither an option of the form's nor certainly an operand."""
    options: Given = []
    operands: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "-" or not word.startswith("-"):
            operands.append(word)
            if form.first:
                break
        elif word == "--":
            break
        else:
            taken = _option(form, word, words[at : at + 1], options)
            if taken is None:
                return None
            at += taken
    return options, operands + list(words[at:])


def _option(form: Form, word: str, following: Sequence[str], options: Given) -> int | None:
    """Take the options of one word: the number of words besides that are their value; None for an unlisted one."""
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        values = long_kinds(form.long).get(name, 0 if form.loose else None)
        if values is None or UNKNOWN in name:
            return None
        takes_next = bool(values) and not equals
        options.append((name, "".join(following) if takes_next else value))
        return int(takes_next)
    kinds = short_kinds(form.short)
    for at, letter in enumerate(word[1:], 2):
        kind = kinds.get(letter)
        if kind is None:
            return None
        if kind == "":
            options.append((letter, ""))
            continue
        takes_next = kind == ":" and at == len(word)
        options.append((letter, "".join(following) if takes_next else word[at:]))
        return int(takes_next)
    return 0


def files_by_form(form: Form, words: Sequence[str]) -> Iterator[Used]:
    """The files among the `words` behind the program, the targets first."""
    found = sorted_words(form, words)
    if found is None:
        return
    options, operands = found
    given = {name for name, _ in options}
    changes = [form.instead[name] for name in form.instead if name in given]
    if None in changes:
        return
    if not form.loose:
        if form.into is not None and not changes:
            yield from _into(form, dict(options), operands)
        else:
            yield from _by_place(form, operands, given, changes[0] if changes else form.each)
    for name, value in options:
        if name in form.takes and value:
            yield Used(form.takes[name], value)


def _by_place(form: Form, operands: list[str], given: set[str], each: How | None) -> Iterator[Used]:
    places = form.places if form.unless.isdisjoint(given) else form.places[1:]
    if any(word.startswith(UNKNOWN) for word in operands[: len(places)]):
        return  # an option perhaps, or several words
    for at, word in enumerate(operands):
        how = places[at] if at < len(places) else each
        if how is not None:
            yield Used(how, word)


def _into(form: Form, options: Mapping[str, str], operands: list[str]) -> Iterator[Used]:
    directory = options.get("t") or options.get("target-directory")
    sources = operands if directory or len(operands) == 1 else operands[:-1]
    targets = list(_targets(form, options, directory, operands, sources))
    yield from targets
    if targets or len(operands) > 1:
        yield from (Used(form.each, word) for word in sources if form.each is not None and not _remote(form, word))


def _targets(
    form: Form, options: Mapping[str, str], directory: str | None, operands: list[str], sources: list[str]
) -> Iterator[Used]:
    how = form.into if form.into_forced is None or options.keys().isdisjoint(("f", "force")) else form.into_forced
    names = tuple(dict.fromkeys(_name_of(form, word) for word in sources))
    if how is None:
        return
    if directory:
        yield from (Used(how, f"{directory.rstrip('/')}/{name}" if name else directory) for name in names)
    elif len(operands) > 1 and not _remote(form, operands[-1]):
        exact = not options.keys().isdisjoint(("T", "no-target-directory"))
        through = not form.lone or options.keys().isdisjoint(("n", "no-dereference"))
        yield Used(how, operands[-1], () if exact else names, through)
    elif len(operands) == 1 and form.lone:
        yield from (Used(how, name) for name in names if name)


def _name_of(form: Form, word: str) -> str:
    """The name that a source gets in a directory: the empty one where it is not known, or stands for its contents."""
    path = word.partition(":")[2] if _remote(form, word) else word
    name = posixpath.basename(path if form.contents else path.rstrip("/"))
    return "" if UNKNOWN in name or name in (".", "..") else name


def _remote(form: Form, word: str) -> bool:
    return form.remote and ":" in word.partition("/")[0]
