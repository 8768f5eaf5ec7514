"""What is known while walking a shell text: variables, directory, functions; and what was found on the way.

Rules: a state is never changed in place, so that branches cannot leak into each other; where two ways meet, a variable
or directory has every value that either way could leave; too many values are an unknown one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import tree_sitter

from agent.policy.request import UNKNOWN, SimpleCommand
from agent.shell.fold import Value, Word
from agent.shell.syntax import Source

MAX_VALUES = 8
MAX_COMMANDS = 2000
MAX_STEPS = 40_000
MAX_DEPTH = 24
MAX_WAYS = 16

type Values = tuple[Value | None, ...]
"""Every value that is possible here; None: one that is not known."""

UNKNOWN_VALUES: Values = (None,)


@dataclass(frozen=True, slots=True)
class Function:
    """A function's body and the text it stands in."""

    body: tree_sitter.Node
    source: Source


@dataclass(frozen=True, slots=True)
class State:
    """One point of the walk. `cwd`: every directory possible here, None: not known. `positional`: ``$1`` …;
    `name`: ``$0``."""

    cwd: tuple[str | None, ...]
    variables: Mapping[str, Values] = field(default_factory=dict)
    functions: Mapping[str, Function] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    positional: Value | None = None
    name: Word | None = None

    def assign(self, name: str, value: Value | None) -> State:
        return replace(self, variables={**self.variables, name: (value,)})

    def forget(self, *names: str) -> State:
        return replace(self, variables={**self.variables, **dict.fromkeys(names, UNKNOWN_VALUES)})

    def moved(self, *directories: str | None) -> State:
        return replace(self, cwd=_distinct(directories)[:MAX_VALUES])


def join(one: State, other: State) -> State:
    """Where two ways meet."""
    if one is other:
        return one
    merged = dict(one.variables)
    if one.variables is not other.variables:
        for name in one.variables.keys() | other.variables.keys():
            here, there = one.variables.get(name, UNKNOWN_VALUES), other.variables.get(name, UNKNOWN_VALUES)
            values = here if here is there else _distinct((*here, *there))
            merged[name] = values if len(values) <= MAX_VALUES else UNKNOWN_VALUES
    cwd = _distinct((*one.cwd, *other.cwd))
    return State(
        cwd=cwd if len(cwd) <= MAX_VALUES else (None,),
        variables=merged,
        functions={**one.functions, **other.functions},
        aliases={**one.aliases, **other.aliases},
        positional=one.positional if one.positional == other.positional else None,
        name=one.name if one.name == other.name else None,
    )


def _distinct[T](values: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))


NOTHING = Word("")
ANYTHING = Word(UNKNOWN)


@dataclass(frozen=True, slots=True)
class Outcome:
    """After a statement: the state where it succeeded, where it failed, and the text it wrote."""

    success: State
    failure: State
    output: Word = ANYTHING

    @property
    def state(self) -> State:
        return join(self.success, self.failure)


def plain(state: State, output: Word = ANYTHING) -> Outcome:
    """The outcome of something that changes nothing else."""
    return Outcome(state, state, output)


def concatenated(first: Word, second: Word) -> Word:
    """The outputs of two statements, one after the other."""
    text = first.text + second.text
    return ANYTHING if UNKNOWN in text or len(text) > 65536 else Word(text, first.glob or second.glob)


class Findings:
    """What one analysis has found; bounded, by `steps` too. `home` is the session's home directory. `cut`: a
    bound was met, so the text goes on where nothing was looked at."""

    def __init__(self, home: str, steps: int = MAX_STEPS) -> None:
        self.home = home
        self._bound = steps
        self.commands: list[SimpleCommand] = []
        self.reasons: list[str] = []
        self.calls: list[Function] = []
        self._seen: set[SimpleCommand] = set()
        self._steps = 0
        self.cut = False

    def add(self, command: SimpleCommand) -> None:
        if command in self._seen:
            return
        if len(self.commands) >= MAX_COMMANDS:
            self.cut = True
            self.unknown("the text runs too many commands to follow")
            return
        self._seen.add(command)
        self.commands.append(command)

    def unknown(self, reason: str) -> None:
        """Record why not everything is known."""
        if reason not in self.reasons and len(self.reasons) < 8:
            self.reasons.append(reason)

    def step(self) -> bool:
        """Count one step of work; False once there were too many."""
        self._steps += 1
        if self._steps > self._bound:
            self.cut = True
            self.unknown("the text is too large to follow")
            return False
        return True
