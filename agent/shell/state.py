"""What is known while walking a shell text: variables, directory, functions, files written; and what was found.

Rules: a state is never changed in place, so that branches cannot leak into each other; where two ways meet, a variable,
directory or function has every value that either way could leave; too many values are an unknown one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import tree_sitter

from agent.policy.operands import normalise_operand
from agent.policy.request import UNKNOWN
from agent.shell.pieces import ANYTHING, NOTHING, Value, Word, makers, merged
from agent.shell.syntax import Source
from agent.values import dataclass

MAX_VALUES = 8
MAX_STEPS = 40_000
MAX_DEPTH = 24
MAX_WAYS = 16
MAX_FILES = 64

type Values = tuple[Value | None, ...]
"""Every value that is possible here; None: one that is not known."""

UNKNOWN_VALUES: Values = (None,)


@dataclass(frozen=True, slots=True)
class Function:
    """A function's body and the text it stands in."""

    name: str
    body: tree_sitter.Node
    source: Source


_NONE: Mapping[str, Any] = MappingProxyType({})

EXPORTED = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "TMPDIR", "EDITOR", "VISUAL", "PAGER")
)
"""What is taken to be in the environment from the start: a plain assignment changes it for later commands."""


type Stack = tuple[tuple[str | None, ...], ...] | None


class State(NamedTuple):
    """One point of the walk. `cwd`: every directory possible here, None: not known. `functions`: every definition that
    is possible, None: none at all. `positional`: ``$1`` …; `name`: ``$0``. `exported`: the variables that commands find
    in their environment, as far as this text says. `files`: what it wrote, by absolute path. `stack`: of ``pushd``,
    None: not known."""

    cwd: tuple[str | None, ...]
    variables: Mapping[str, Values] = _NONE
    functions: Mapping[str, tuple[Function | None, ...]] = _NONE
    aliases: Mapping[str, str] = _NONE
    positional: Value | None = None
    name: Word | None = None
    exported: frozenset[str] = frozenset()
    files: Mapping[str, Word] = _NONE
    stack: Stack = ()

    def assign(self, name: str, value: Value | None) -> State:
        exported = self.exported | {name} if name in EXPORTED and name not in self.exported else self.exported
        return self._replace(variables={**self.variables, name: (value,)}, exported=exported)

    def assign_any(self, name: str, values: Values) -> State:
        """`name` has one of `values`."""
        values = _distinct(values)
        return self._replace(variables={**self.variables, name: values if len(values) <= MAX_VALUES else (None,)})

    def export(self, *names: str) -> State:
        return self._replace(exported=self.exported.union(names))

    def forget(self, *names: str) -> State:
        return self._replace(variables={**self.variables, **dict.fromkeys(names, UNKNOWN_VALUES)})

    def moved(self, *directories: str | None) -> State:
        return self._replace(cwd=_distinct(directories)[:MAX_VALUES])

    def paths(self, name: Word, home: str) -> list[str]:
        """The absolute paths that `name` may mean here, without those that are not known."""
        if name.glob or not name.known or not name.text:
            return []
        found = [normalise_operand(name.text, cwd, home) for cwd in self.cwd]
        return [path for path in found if path != UNKNOWN]

    def written(self, name: Word, content: Word, home: str, *, appended: bool = False) -> State:
        """`content` now stands in the file `name`."""
        files = dict(self.files)
        for path in self.paths(name, home):
            if path.startswith("/dev/") or (len(files) >= MAX_FILES and path not in files):
                continue
            before = files.get(path) if appended else NOTHING
            files[path] = concatenated(before or Word(UNKNOWN), content)
        return self._replace(files=files) if files != self.files else self

    def environment(self) -> tuple[tuple[str, str], ...]:
        """What this text put into the environment of the commands that follow."""
        found: list[tuple[str, str]] = []
        for name in sorted(self.variables if "*" in self.exported else self.exported):
            found += ((name, shown(value)) for value in self.variables.get(name, ()))
        return tuple(found)


def shown(value: Value | None) -> str:
    """The text of a variable's value, UNKNOWN where it is not known."""
    return UNKNOWN if value is None else " ".join(word.text for word in value)


def join(one: State, other: State) -> State:
    """Where two ways meet."""
    if one is other:
        return one
    return State(
        cwd=_one_of(one.cwd, other.cwd),
        variables=_either(one.variables, other.variables, UNKNOWN_VALUES),
        functions=_either(one.functions, other.functions, (None,)),
        aliases=_both(one.aliases, other.aliases),
        positional=one.positional if one.positional == other.positional else None,
        name=one.name if one.name == other.name else None,
        exported=one.exported | other.exported,
        files=_files(one.files, other.files),
        stack=_stacks(one.stack, other.stack),
    )


def _one_of[T](one: tuple[T, ...], other: tuple[T, ...]) -> tuple[T | None, ...]:
    if one == other:
        return one
    found = _distinct((*one, *other))
    return found if len(found) <= MAX_VALUES else (None,)


def _either[T](
    one: Mapping[str, tuple[T | None, ...]], other: Mapping[str, tuple[T | None, ...]], absent: tuple[T | None, ...]
) -> Mapping[str, tuple[T | None, ...]]:
    if one is other:
        return one
    return {name: _one_of(one.get(name, absent), other.get(name, absent)) for name in dict.fromkeys((*one, *other))}


def _stacks(one: Stack, other: Stack) -> Stack:
    """Where only one way pushed a directory, a pop on the other one would fail and stay, where that way came from."""
    if one is None or other is None:
        return None
    shorter, longer = sorted((one, other), key=len)
    return longer if longer[: len(shorter)] == shorter else None


def _both(one: Mapping[str, str], other: Mapping[str, str]) -> Mapping[str, str]:
    return one if one is other else {**one, **other}


def _files(one: Mapping[str, Word], other: Mapping[str, Word]) -> Mapping[str, Word]:
    if one is other:
        return one
    files = {**one, **other}
    for path in one.keys() & other.keys():
        if one[path] != other[path]:
            files[path] = Word(UNKNOWN, made_by=makers((one[path], other[path])))
    return files


def _distinct[T](values: tuple[T, ...]) -> tuple[T, ...]:
    return values if len(values) == 1 else tuple(dict.fromkeys(values))


class Outcome(NamedTuple):
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
    if first == NOTHING:
        return second
    if second == NOTHING:
        return first
    made_by = merged(first.made_by, second.made_by)
    if len(first.text) + len(second.text) > 65536 or UNKNOWN in first.text or UNKNOWN in second.text:
        return Word(UNKNOWN, made_by=made_by)
    return Word(first.text + second.text, first.glob or second.glob, made_by)
