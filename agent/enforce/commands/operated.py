"""The files that a command text names as operands of common readers and writers: what the path guard is asked besides.

Rules kept here: only what is certain counts. The table has programs whose every operand is read or written, with the
options that change nothing about that; any other option, a word that is not known beforehand or still to be expanded,
and what runs elsewhere leave it unasked: the kernel decides it when it opens the file. A file is read only where there
is one; a reader whose errors are thrown away is trying whether it may, and is not refused for that.

Sources: the manual pages of coreutils, less(1), more(1), xxd(1), strings(1).
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from typing import Final

from agent.enforce.commands.redirected import certain_path, runs_here
from agent.policy.request import Access, CommandRequest, SimpleCommand
from agent.values import dataclass


@dataclass(frozen=True, slots=True)
class _Form:
    """`letters`: options without a value; `valued`: those whose value is the next word; `longs`: long ones without
    one. `into`: the last operand is written, in its directory if it is one, and the others are read."""

    access: Access
    letters: str = ""
    valued: str = ""
    longs: tuple[str, ...] = ()
    into: bool = False


_ERRORS: Final = frozenset({"2>", "2>>", "2>|", "&>", "&>>", ">&"})
_SUMS: Final = _Form(Access.READ, "btz", longs=("binary", "text", "tag", "zero"))
_FORMS: Final = {
    "cat": _Form(Access.READ, "AbeEnstTuv", longs=("show-all", "number", "number-nonblank", "show-ends", "show-tabs")),
    "tac": _Form(Access.READ, "br"),
    "nl": _Form(Access.READ, "p", "bdfhilnsvw"),
    "head": _Form(Access.READ, "qvz0123456789", "nc", ("quiet", "silent", "verbose")),
    "tail": _Form(Access.READ, "qvz0123456789", "nc", ("quiet", "silent", "verbose")),
    "less": _Form(Access.READ, "eEFgiIMnNRSX"),
    "more": _Form(Access.READ, "dflpcsu"),
    "od": _Form(Access.READ, "abcdfiloxv", "AjNtw"),
    "xxd": _Form(Access.READ, "", "cgls"),
    "base64": _Form(Access.READ, "di", "w", ("decode", "ignore-garbage")),
    "strings": _Form(Access.READ, "af", "nte"),
    "wc": _Form(Access.READ, "cmlLw", longs=("bytes", "chars", "lines", "words", "max-line-length")),
    **dict.fromkeys(("md5sum", "sha1sum", "sha256sum", "sha512sum"), _SUMS),
    "tee": _Form(Access.WRITE, "aip", longs=("append", "ignore-interrupts")),
    "truncate": _Form(Access.WRITE, "", "s"),
    "cp": _Form(Access.READ, "apdfrRvL", longs=("archive", "force", "recursive", "verbose"), into=True),
    "mv": _Form(Access.WRITE, "fv", longs=("force", "verbose"), into=True),
}


def operated(request: CommandRequest) -> Iterator[tuple[Access, str]]:
    """What is read and written, as absolute paths as they are written."""
    for command in request.commands:
        form = _FORMS.get(command.program)
        if form is not None and runs_here(command) and not (form.access is Access.READ and _tries(command)):
            yield from _files(command, form)


def _tries(command: SimpleCommand) -> bool:
    return any(operator in _ERRORS and target == "/dev/null" for operator, target in command.redirects)


def _files(command: SimpleCommand, form: _Form) -> Iterator[tuple[Access, str]]:
    operands = _operands(command, form)
    paths = [certain_path(command, word) for word in operands or () if word != "-"]
    if form.into:
        target = paths.pop() if len(paths) > 1 else None
        if target is not None and None not in paths:
            sources = [path for path in paths if path is not None]
            yield from ((Access.WRITE, path) for path in _targets(sources, target))
        if form.access is Access.WRITE:
            return
    for path in paths:
        if path is not None and (form.access is Access.WRITE or os.path.lexists(path)):
            yield form.access, path


def _targets(sources: list[str], target: str) -> Iterator[str]:
    if not os.path.isdir(target):  # noqa: PTH112
        yield target
        return
    for source in sources:
        name = posixpath.basename(source.rstrip("/"))
        if name not in ("", ".", ".."):
            yield posixpath.join(target, name)


def _operands(command: SimpleCommand, form: _Form) -> list[str] | None:
    """None where some word is not certainly an operand, or an option of the form's."""
    operands: list[str] = []
    words = iter(enumerate(command.argv[1:], 1))
    for at, word in words:
        if at in command.globs:
            return None
        if not word.startswith("-") or word == "-":
            operands.append(word)
        elif word == "--":
            rest = list(words)
            return None if any(index in command.globs for index, _ in rest) else operands + [text for _, text in rest]
        elif word.startswith("--"):
            if word[2:] not in form.longs:
                return None
        elif word[-1] in form.valued and set(word[1:-1]) <= set(form.letters):
            next(words, None)
        elif not set(word[1:]) <= set(form.letters):
            return None
    return operands
