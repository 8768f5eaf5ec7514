"""What surrounds a command on the walk, and what commands ask of whoever walks texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from agent.shell.findings import Findings
from agent.shell.pieces import Word
from agent.shell.state import Function, Outcome, State


class Setting(NamedTuple):
    """Assignments and redirections, what is piped in, what was unwrapped on the way here.

    `final`: the words come from an exec (no functions, aliases or builtins). `bare`: functions and aliases do not count
    here (behind ``command``, ``sudo``, …). `depth`: of nesting, also in the tree; `at`: the line of the tree for the
    next command. `active`: the functions that are running; `place`: where the call stands; `beside`: in a pipeline or
    in the background. `body`: the words stand in a file."""

    assignments: tuple[tuple[str, str], ...] = ()
    redirects: tuple[tuple[str, str], ...] = ()
    stdin: Word | None = None
    wrappers: tuple[str, ...] = ()
    depth: int = 0
    final: bool = False
    bare: bool = False
    at: int | None = None
    active: tuple[Function, ...] = ()
    place: int = 0
    beside: bool = False
    body: bool = False

    def inside(self, wrapper: str) -> Setting:
        """One level deeper, behind `wrapper`."""
        return self._replace(wrappers=(*self.wrappers, wrapper), depth=self.depth + 1, at=None)

    def deeper(self) -> Setting:
        """One level deeper."""
        return self._replace(depth=self.depth + 1, at=None)


class Texts(Protocol):
    """Reads shell text (the walker); called for ``sh -c``, ``eval`` and functions."""

    def read_text(self, text: str, state: State, setting: Setting) -> Outcome: ...

    def call(self, function: Function, arguments: Sequence[Word] | None, state: State, setting: Setting) -> Outcome: ...


class Running(Protocol):
    """What builtins ask of the runner."""

    findings: Findings

    def text(self, text: Word, state: State, setting: Setting) -> Outcome:
        """Follow text that a shell reads."""

    def content(self, name: Word, state: State, setting: Setting) -> Word | None:
        """What the file called `name` holds, where this text wrote it."""

    def moved(self, state: State, directory: Word) -> State:
        """`state` after a change to `directory`."""
