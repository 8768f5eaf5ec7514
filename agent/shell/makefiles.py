"""Build files that a build tool reads from its standard input or command line: the commands in them.

Rules: every recipe counts, whether its target is asked for or not; variables of the same text are put in, others are
not known. A build file on disk is not read. Sources: GNU make ("Recipe Syntax", "The shell Function", ``--eval``),
ninja's manual ("Rules"), just's manual ("Recipes").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from agent.expressions import expression
from agent.policy.request import UNKNOWN
from agent.shell.pieces import Word
from agent.shell.steps import Opaque, ShellText, Step

_ASSIGNED = expression(r"^[ \t]*+(?:export\s+|override\s+)?([A-Za-z_][\w.-]*)\s*(?::{0,3}|\?|\+)?=\s*(.*)$")
_SHELL = expression(r"\$[({]shell\s+((?:[^()]|\([^()]*\))*)[)}]|^[ \t]*+[\w.-]++[ \t]*+!=[ \t]*+(.+)$", re.MULTILINE)
_RECIPE = expression(
    r"^(?:[ \t]+(?![\w.-]+\s*[:?+!]?=)|[^#\n\t=]*?:[^=\n;]*;\s*)([@+-]*)(?P<shell>\S.*)$", re.MULTILINE
)
_COMMAND = expression(r"^[ \t]++command[ \t]*+=[ \t]*+(?P<shell>.*)$", re.MULTILINE)
_BACKTICKS = expression(r":=\s*`([^`]*)`")
_VARIABLE = expression(r"\$[({](\w+)[)}]|\{\{\s*(\w+)\s*\}\}|\$\$|\$(\w)")
_ROUNDS = 8


def make_steps(text: Word) -> Iterator[Step]:
    """The commands of a makefile, justfile or ninja file."""
    if UNKNOWN in text.text:
        yield Opaque("a build file that is not known before it runs")
    source = re.sub(r"\\\n\s*", " ", text.text)
    values = {found[1]: found[2] for line in source.splitlines() if (found := _ASSIGNED.match(line))}
    for pattern in (_SHELL, _RECIPE, _COMMAND, _BACKTICKS):
        for found in pattern.finditer(source):
            shell = (
                found["shell"] if "shell" in pattern.groupindex else next(group for group in found.groups() if group)
            )
            yield ShellText(text._replace(text=_expanded(shell, values)))


def _expanded(shell: str, values: Mapping[str, str]) -> str:
    """`shell` with make's variables in their places (``$$`` is the shell's own ``$``); others stay for the shell, which
    does not know them either."""

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2] or found[3]
        return "\1" if name is None else values.get(name, f"${{{name}}}")

    for _ in range(_ROUNDS):
        replaced = _VARIABLE.sub(value, shell)
        if replaced == shell:
            break
        shell = replaced if len(replaced) < len(shell) + 4096 else UNKNOWN
    return re.sub(r"^[@+-]+", "", shell.replace("\1", "$"))
