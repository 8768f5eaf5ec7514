"""Simple commands on the walk: their words, assignments and redirections, once for every value that is possible.

Rules: the words of a command are folded before its own assignments count; what it assigns in front of its words is gone
after it (bash(1), "SIMPLE COMMAND EXPANSION").
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

import tree_sitter

from agent.policy.request import UNKNOWN
from agent.shell import again
from agent.shell.arithmetic import evaluate
from agent.shell.fold import fields, single
from agent.shell.pieces import NOTHING, Value, Word, makers
from agent.shell.redirects import REDIRECTIONS, Redirections
from agent.shell.run import either
from agent.shell.scope import Reader, Words
from agent.shell.setting import Setting
from agent.shell.state import MAX_WAYS, Outcome, State, plain, shown
from agent.shell.syntax import Source

_SUBSTITUTES = re.compile(r"`|\$\(")
_EXPANDED_LATER = frozenset(("PS0", "PS1", "PS2", "PS4", "PROMPT_COMMAND", "ENV", "BASH_ENV"))
_ARITHMETIC = re.compile(rb"\(\(|\blet\b|\$\[|-(?:eq|ne|lt|gt|le|ge)\b|@P\}")
"""Where the text of a variable is expanded once more (bash(1), "ARITHMETIC EVALUATION", "Parameter transformation")."""
_MAX_ELEMENTS = 256
_MAX_WORDS = 1024


class SimpleWalk(Words):
    """The part of a walk that knows simple commands. `behind`: redirections that the grammar hung elsewhere."""

    def __init__(self, walker: Reader, source: Source, setting: Setting) -> None:
        super().__init__(walker, source, setting)
        self.text = source.data.decode(errors="replace")
        self.behind: dict[tuple[int, int], tuple[tree_sitter.Node, ...]] = {}

    def statement(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
        raise NotImplementedError

    def follow(self, nodes: Sequence[tree_sitter.Node], outcome: Outcome) -> Outcome:
        raise NotImplementedError

    def command(
        self, node: tree_sitter.Node, state: State, stdin: Word | None, behind: tuple[tree_sitter.Node, ...]
    ) -> Outcome:
        """A simple command, once for every combination of the values that its variables may have here."""
        return either([self._one_way(node, way, stdin, behind) for way in self._ways(node, state)])

    def _ways(self, node: tree_sitter.Node, state: State) -> Iterator[State]:
        several = state.variables and any(len(values) > 1 for values in state.variables.values())
        if not several and len(state.cwd) == 1:
            yield state
            return
        names = sorted({name for name in self._names(node) if len(state.variables.get(name, (None,))) > 1})
        uncertain_place = len(state.cwd) > 1 and b"PWD" in self.source.data
        places = [state.moved(cwd) for cwd in state.cwd] if uncertain_place else [state]
        ways = itertools.islice(itertools.product(*(state.variables[name] for name in names)), MAX_WAYS + 1)
        for count, (place, values) in enumerate(itertools.product(places, ways)):
            if count == MAX_WAYS:
                yield state.forget(*names)
                return
            fixed = {name: (value,) for name, value in zip(names, values, strict=True)}
            yield place._replace(variables={**state.variables, **fixed})

    def _names(self, node: tree_sitter.Node) -> Iterator[str]:
        for child in node.children:
            if child.type in ("simple_expansion", "expansion", "subscript"):
                yield from (self.source.text(c) for c in child.children if c.type == "variable_name")
            if child.children:
                yield from self._names(child)

    def _one_way(
        self, node: tree_sitter.Node, state: State, stdin: Word | None, behind: tuple[tree_sitter.Node, ...]
    ) -> Outcome:
        self.state = state
        line = len(self.findings.lines)
        outer_sinks, self.sinks = self.sinks, []
        redirections = Redirections(self.source, self, self.findings, stdin)
        assignments: list[tuple[str, Value | None]] = []
        words: list[Word] = []
        for child in (*node.children, *behind) if behind else node.children:
            if child.type == "variable_assignment":
                assignments.append(self._in_front(child, assignments))
            elif child.type in REDIRECTIONS or child.type == "ERROR":
                redirections.read(child)
                words += redirections.words
                redirections.words.clear()
            elif child.type in ("subshell", "compound_statement"):
                self.state = self.statement(child, self.state, redirections.stdin).state
            elif child.end_byte > child.start_byte:
                words += fields(child, self.source, self)
        sinks, self.sinks = self.sinks, outer_sinks
        outcome = self._run(node, words, assignments, redirections, line)
        return self.finished(redirections, outcome, sinks)

    def _in_front(
        self, node: tree_sitter.Node, earlier: Sequence[tuple[str, Value | None]]
    ) -> tuple[str, Value | None]:
        """One assignment in front of a command: it sees those before it."""
        outer = self.state
        for name, value in earlier:
            self.state = self.state.assign(name, value)
        found = self.assigned(node)
        self.state = outer
        return found

    def _run(
        self,
        node: tree_sitter.Node,
        words: Sequence[Word],
        assignments: Sequence[tuple[str, Value | None]],
        redirections: Redirections,
        line: int,
    ) -> Outcome:
        state = self.state
        if words:
            stdin = redirections.stdin
            again.look(words if stdin is None else [*words, stdin], self.text, self.findings)
        if len(words) == 1 and words[0].text == "exec" and redirections.stdin is not self.stdin:
            self.findings.unknown("exec gives another standard input to everything that follows")
        if not words:
            for name, value in assignments:
                state = state.assign(name, value)
            if redirections.targets:
                setting = self.setting._replace(redirects=tuple(redirections.targets), stdin=redirections.stdin)
                self.walker.runner.redirection(state, setting)
            return plain(state, NOTHING)
        given = [(name, shown(value)) for name, value in assignments]
        setting = self.setting._replace(
            assignments=(*self.setting.assignments, *given) if given else self.setting.assignments,
            redirects=tuple(redirections.targets),
            stdin=redirections.stdin,
            at=line,
            place=node.start_byte,
        )
        if not assignments:
            return self.walker.runner.run(words, state, setting)
        inside = state
        for name, value in assignments:
            inside = inside.assign(name, value)
        outcome = self.walker.runner.run(words, inside, setting)
        names = [name for name, _ in assignments]
        success, failure = (_restored(end, inside, state, names) for end in outcome[:2])
        return Outcome(success, failure, outcome.output)

    def finished(
        self, redirections: Redirections, outcome: Outcome, sinks: Sequence[tree_sitter.Node] | None
    ) -> Outcome:
        """`outcome` after its output went where the redirections point, and what follows on a here-document's line."""
        success, failure, output = outcome
        if redirections.targets:
            success, failure = redirections.written(success, output), redirections.written(failure, output)
        for sink in sinks or ():
            self.state = success
            self.sink(sink, output)
        if redirections.takes_output:
            output = NOTHING
        outcome = Outcome(success, failure, output)
        return self.follow(redirections.followers, outcome) if redirections.followers else outcome

    # Assignments.

    def assigned(self, node: tree_sitter.Node) -> tuple[str, Value | None]:
        """The name and the value of one assignment."""
        target, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        text = self.source.text(target) if target is not None else ""
        name, _, index = text.removesuffix("]").partition("[")
        if target is not None and target.children:
            self.look_into(target)
        if name in again.TABLES:
            self.findings.unknown(f"{name} gives a program another name")
        new = self._value(name, value)
        if any(child.type == "+=" for child in node.children):
            return name, _appended(self.variable(name), new, is_array=value is not None and value.type == "array")
        return name, self._with_element(name, index, new) if index else new

    def _value(self, name: str, value: tree_sitter.Node | None) -> Value | None:
        if value is None:
            return (NOTHING,)
        if value.type == "array":
            items = [item for item in value.children if item.is_named and item.type != "comment"]
            words = [word for item in items for word in fields(item, self.source, self)]
            known = len(words) <= _MAX_WORDS and not any(
                item.type in ("variable_assignment", "subscript") for item in items
            )
            keyed = any(word.text.startswith("[") and "]=" in word.text for word in words)
            return tuple(words) if known and not keyed else (Word(UNKNOWN, made_by=makers(words)),)
        word = single(value, self.source, self)
        if _SUBSTITUTES.search(word.text) and (name in _EXPANDED_LATER or _ARITHMETIC.search(self.source.data)):
            self.findings.unknown(f"{name} holds a substitution that the shell may make later")
        again.look((word,), self.text, self.findings)
        return (word._replace(glob=False),)

    def _with_element(self, name: str, index: str, new: Value | None) -> Value | None:
        before, at = self.state.variables.get(name, ((),)), evaluate(index, self.variable)
        array = before[0] if len(before) == 1 else None
        if array is None or at is None or new is None or not 0 <= at <= min(len(array), _MAX_ELEMENTS):
            return None
        return (*array[:at], *new[:1], *array[at + 1 :])


def _appended(before: Value | None, new: Value | None, *, is_array: bool) -> Value | None:
    """``x+=…``."""
    if before is None or new is None:
        return None
    if is_array:
        return (*before, *new)[:_MAX_ELEMENTS]
    first, second = before[0] if before else NOTHING, new[0] if new else NOTHING
    return (Word(first.text + second.text, made_by=makers((first, second))), *before[1:])


def _restored(end: State, inside: State, outside: State, names: Sequence[str]) -> State:
    """`end` without the assignments in front of the command; what a builtin changed may or may not stay."""
    if end.variables is inside.variables:
        return end._replace(variables=outside.variables, exported=outside.exported | (end.exported - inside.exported))
    for name in names:
        values = outside.variables.get(name, (None,))
        end = end.assign_any(name, (*values, *end.variables.get(name, (None,))))
    return end
