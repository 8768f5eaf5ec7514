"""find and fd: what they delete and execute, read as the `rm` (or other command) that it amounts to.

Rules: an unconditional deletion takes the whole tree of each root; one narrowed by a test takes what the test may name
below it (``ROOT/**/NAME``); a negated or alternative test narrows nothing. Source: find(1), fd(1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent.policy.request import UNKNOWN
from agent.shell.pieces import Word
from agent.shell.steps import Inner, Opaque, Step, Touches, word_at

_EXECUTES = frozenset(("-exec", "-execdir", "-ok", "-okdir"))
_WRITES = frozenset(("-fprint", "-fprint0", "-fls", "-fprintf"))
_VALUED = frozenset(
    [
        *("-name", "-iname", "-path", "-ipath", "-wholename", "-iwholename", "-regex", "-iregex", "-lname", "-ilname"),
        *(
            "-inum",
            "-links",
            "-perm",
            "-user",
            "-group",
            "-uid",
            "-gid",
            "-size",
            "-mtime",
            "-atime",
            "-ctime",
            "-mmin",
        ),
        *("-amin", "-cmin", "-anewer", "-cnewer", "-newer", "-samefile", "-files0-from", "-printf", "-type", "-xtype"),
        *("-maxdepth", "-mindepth", "-fstype", "-used", "-context"),
    ]
)
"""Their value is data (``find . -name -delete``)."""
_OPERATORS = frozenset(("!", "-not", "-o", "-or", ","))
_UNNARROWED = frozenset(
    [
        "-print",
        "-print0",
        "-ls",
        "-depth",
        "-d",
        "-xdev",
        "-mount",
        "-noleaf",
        "-follow",
        "-warn",
        "-nowarn",
        "-a",
        "-and",
        "-true",
        "-prune",
        "-quit",
        "(",
        ")",
        "-delete",
        "-ignore_readdir_race",
        "-noignore_readdir_race",
        "-daystart",
    ]
)
_DEPTHS = frozenset(("-maxdepth", "-type", "-xtype", "-mindepth", "-regextype"))


def find_roots(words: Sequence[Word]) -> tuple[list[Word], int]:
    """The starting points and where the expression begins."""
    index = 1
    while (index < len(words) and words[index].text in ("-H", "-L", "-P", "-D")) or (
        index < len(words) and words[index].text.startswith("-O")
    ):
        index += 2 if words[index].text == "-D" else 1
    roots: list[Word] = []
    while index < len(words) and not words[index].text.startswith("-") and words[index].text not in ("(", "!", ","):
        roots.append(words[index])
        index += 1
    return roots or [Word(".")], index


def find_targets(words: Sequence[Word]) -> list[Word]:
    """What the expression may name: the roots themselves, or patterns below them where a test narrows it."""
    roots, start = find_roots(words)
    narrowed, name, index = False, "*", start
    below = False
    while index < len(words):
        text = words[index].text
        if text in _OPERATORS:
            return roots
        if text in _EXECUTES:
            index = _end_of_command(words, index)
        elif text in _WRITES:
            index += 1 + (text == "-fprintf")
        elif text in ("-name", "-iname") and index + 1 < len(words):
            narrowed, name = True, words[index + 1].text
            index += 1
        elif text in _DEPTHS:
            below |= text == "-mindepth"
            index += 1
        elif text.startswith("-") and text not in _UNNARROWED:
            narrowed = True
        index += 1
    if UNKNOWN in name:
        name = "*"
    if narrowed:
        name = "*" if name in ("", "*") else name
        return [Word(f"{root.text}/**/{name}", glob=True) for root in roots]
    return [Word(f"{root.text}/*", glob=True) for root in roots] if below else roots


def find_steps(words: Sequence[Word]) -> list[Step]:
    """The commands that this find amounts to."""
    targets = find_targets(words)
    found: list[Step] = []
    roots, index = find_roots(words)
    if any(root.text == UNKNOWN for root in roots[1:]):
        found.append(Opaque("find has an expression that is not known before it runs"))
    while index < len(words):
        text = words[index].text
        if text == "-delete":
            found.append(Inner((Word("rm"), Word("-rf"), Word("--"), *targets)))
        elif text in _EXECUTES:
            end = _end_of_command(words, index)
            found += _executed(words[index + 1 : end], targets)
            index = end
        elif text in _WRITES:
            found.append(Touches(">", word_at(words, index + 1)))
            index += 1 + (text == "-fprintf")
        elif text in _VALUED:
            index += 1
        elif text == UNKNOWN:
            found.append(Opaque("find has an expression that is not known before it runs"))
        index += 1
    return found


def fd_steps(words: Sequence[Word]) -> list[Step]:
    """``fd [PATTERN [ROOT…]] -x CMD [;]``: what it finds is not known, but it is below the roots."""
    for index, word in enumerate(words[1:], 1):
        bundled = re.fullmatch(r"-[a-zA-Z]*[xX](.*)|--exec(?:-batch)?(?:=(.*))?", word.text, re.DOTALL)
        if bundled is None or word.text.startswith(("-e", "-t", "-d", "-E", "-c", "-j", "-S")):
            continue
        attached = bundled[1] or bundled[2]
        command = [word._replace(text=attached)] if attached else []
        command += words[index + 1 : _end_of_command(words, index)]
        roots = [w for w in words[1:index] if not w.text.startswith("-")][1:]
        found = [Word(f"{root.text}/**/*", glob=True) for root in roots] or [Word(UNKNOWN)]
        placed = any(re.search(r"\{(?:\.|/|//|/\.)?\}", w.text) for w in command)
        return _executed(command if placed else [*command, Word("{}")], found)
    return []


def _end_of_command(words: Sequence[Word], start: int) -> int:
    for index in range(start + 1, len(words)):
        if words[index].text == ";" or (words[index].text == "+" and words[index - 1].text == "{}"):
            return index
    return len(words)


def _executed(command: Sequence[Word], targets: Sequence[Word]) -> list[Step]:
    """`command` with its ``{}`` replaced by each target."""
    if not command:
        return []
    found: list[Step] = []
    for target in targets:
        words = [
            w._replace(text=w.text.replace("{}", target.text), glob=w.glob or target.glob) if "{}" in w.text else w
            for w in command
        ]
        found.append(Inner(tuple(words)))
    return found
