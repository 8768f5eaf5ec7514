"""The files that a command text opens by its redirections: what the path guard is asked before the text runs.

Rules kept here: only what is certain counts. A target whose words, directory or glob are not known beforehand, a
descriptor, and what runs on another machine or inside a program (``python -c``) is left out: the kernel decides it when
it is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agent.expressions import expression
from agent.policy.request import UNKNOWN, Access, CommandRequest, SimpleCommand

_HERE: Final = frozenset(
    {
        *("sh", "bash", "dash", "ash", "ksh", "zsh", "busybox"),
        *("env", "nohup", "timeout", "nice", "time", "command", "builtin", "exec", "eval", "setsid", "stdbuf"),
    }
)
"""What hands a command on as it is, to be run here."""
_WRITES: Final = frozenset({">", ">>", ">|", "&>", "&>>", ">&", "<>"})
_OPERATOR: Final = expression(r"[0-9]*(\D+)")
_NOT_A_FILE: Final = expression(r"/dev/(fd/|std(in|out|err)$|tcp/|udp/)|/proc/(self|thread-self|[0-9]+)(/|$)")
_OPEN: Final = frozenset("*?[~")
"""What a shell may still expand."""


def redirected(request: CommandRequest) -> Iterator[tuple[Access, str]]:
    """What is opened, and how: absolute paths, as they are written."""
    for command in request.commands:
        if runs_here(command):
            for operator, target in command.redirects:
                yield from _opened(command, operator, target)


def _opened(command: SimpleCommand, operator: str, target: str) -> Iterator[tuple[Access, str]]:
    found = _OPERATOR.fullmatch(operator)
    kind = found[1] if found is not None else ""
    if kind not in _WRITES and kind != "<":
        return
    if kind == ">&" and _is_descriptor(target):
        return
    path = certain_path(command, target)
    if path is not None:
        yield (Access.READ if kind == "<" else Access.WRITE), path


def runs_here(command: SimpleCommand) -> bool:
    """Is it handed on as it is, if at all, to be run on this machine?"""
    return _HERE.issuperset(command.wrappers)


def certain_path(command: SimpleCommand, word: str) -> str | None:
    """The absolute path that `word` of `command` is, None where it is not known beforehand or is no file's."""
    if not word or UNKNOWN in word or _OPEN & set(word):
        return None
    if not word.startswith("/"):
        if command.cwd is None or UNKNOWN in command.cwd:
            return None
        word = f"{command.cwd.rstrip('/')}/{word}"
    return None if _NOT_A_FILE.match(word) else word


def _is_descriptor(target: str) -> bool:
    return target.rstrip("-").isdecimal() or target == "-"
