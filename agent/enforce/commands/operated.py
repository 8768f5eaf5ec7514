"""The files that a command text names as operands and options: what the path guard is asked before the text runs.

Rules kept here: only what is certain counts (`agent.shell.file_table` says which words are files, and what each program
does to them); a word that is not known beforehand or still to be expanded, and what runs elsewhere, is left to the
kernel. A file is read, and a directory made, only where that comes to something; where the session could not find out
by itself whether there is one, it is asked about all the same, so that the answer tells nothing. A reader whose errors
are thrown away is trying whether it may, and is not refused for that.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from typing import Final

from agent.enforce.commands.redirected import certain_path, runs_here
from agent.policy.request import Access, CommandRequest, SimpleCommand
from agent.shell.file_table import files_of
from agent.shell.file_uses import How, Used

_ERRORS: Final = frozenset({"2>", "2>>", "2>|", "&>", "&>>", ">&"})
_NAMES: Final = frozenset({How.PLACE, How.REMOVE})
"""What concerns the name itself: a link is not followed."""


def operated(request: CommandRequest) -> Iterator[tuple[Access, str, bool]]:
    """What is read, written and removed: absolute paths as they are written, and whether a link of that name is
    followed."""
    for command in request.commands:
        if not runs_here(command):
            continue
        tries = any(operator in _ERRORS and target == "/dev/null" for operator, target in command.redirects)
        for used in files_of(command.program, command.argv, command.globs):
            if used.word != "-" and not (tries and used.how is How.READ):
                yield from _asked(command, used, request.home)


def _asked(command: SimpleCommand, used: Used, home: str) -> Iterator[tuple[Access, str, bool]]:
    path = certain_path(command, used.word)
    for target in _targets(path, used) if path is not None else ():
        if _comes_to_something(used.how, target, home):
            yield _access(used.how, target), target, used.how not in _NAMES


def _access(how: How, path: str) -> Access:
    """A directory that is removed is written: one that holds protected places by its name may be a repository cloned a
    moment ago, of which nothing is held (scaffolds remove its ``.git``); what is held the kernel keeps."""
    if how is How.REMOVE and os.path.isdir(path) and not os.path.islink(path.rstrip("/")):  # noqa: PTH112, PTH114
        return Access.WRITE
    return _ACCESS[how]


_ACCESS: Final = {
    How.READ: Access.READ,
    How.WRITE: Access.WRITE,
    How.PLACE: Access.WRITE,
    How.MAKE: Access.WRITE,
    How.CHANGE: Access.WRITE,
    How.REMOVE: Access.DELETE,
}


def _targets(path: str, used: Used) -> Iterator[str]:
    if not used.inside or not os.path.isdir(path) or (not used.through and os.path.islink(path)):  # noqa: PTH112, PTH114
        yield path
        return
    for name in dict.fromkeys(used.inside):
        yield posixpath.join(path, name) if name else path


def _comes_to_something(how: How, path: str, home: str) -> bool:
    match how:
        case How.READ | How.CHANGE:
            return _is_there(path, home) is not False
        case How.MAKE:
            return _is_there(path, home) is not True
        case _:
            return True


def _is_there(path: str, home: str) -> bool | None:
    """None where a directory above keeps the session from finding out, by its mode and owner."""
    searched = "/"
    try:
        for name in (*os.path.realpath(os.path.dirname(path)).split("/")[1:], ""):  # noqa: PTH120
            status = os.stat(searched)  # noqa: PTH116
            if not stat.S_ISDIR(status.st_mode):
                return False
            if not status.st_mode & stat.S_IXOTH and status.st_uid != _owner(home):
                return None
            searched = posixpath.join(searched, name)
        return os.path.lexists(path)
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return None


def _owner(home: str) -> int | None:
    """The session's account, by its home."""
    try:
        return os.stat(home).st_uid  # noqa: PTH116
    except OSError:
        return None
