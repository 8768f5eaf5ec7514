"""Branches and loops: every way through them is followed, and what they leave is what any way could leave.

Rules: a loop's body is walked until it changes nothing more, and where that does not come, once more with what changes
not known; a case's patterns decide nothing; a variable of a `for` has each listed value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import tree_sitter

from agent.shell.fold import Scope, Word, fields
from agent.shell.pieces import ANYTHING, NOTHING, unknown_of
from agent.shell.state import MAX_WAYS, Outcome, State, Values, join, plain
from agent.shell.syntax import Source

_ROUNDS = 3


class Branching(Scope, Protocol):
    """What branches ask of the walk they are part of."""

    source: Source

    def at(self, state: State) -> None:
        """Fold the following words in `state`."""

    def statement(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome: ...

    def statements(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome: ...


def follow_if(walk: Branching, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
    condition, ends, taken = plain(state), [], False
    branch: State | None = None
    outputs: list[Word] = []
    for child in node.children:
        if child.type in ("then",):
            taken, branch = True, condition.success
        elif child.type in ("elif_clause", "else_clause"):
            if branch is not None:
                ends.append(branch)
                branch = None
            other = walk.statement(child, condition.failure, stdin)
            outputs.append(other.output)
            ends.append(other.state)
            if child.type == "elif_clause":  # its condition ran before what follows it
                condition = condition._replace(failure=join(condition.failure, other.state))
        elif child.is_named and child.type != "comment":
            if taken and branch is not None:
                inside = walk.statement(child, branch, stdin)
                branch = inside.state
                outputs.append(inside.output)
            else:
                condition = walk.statement(child, condition.state, stdin)
                outputs.append(condition.output)
    if branch is not None:
        ends.append(branch)
    if not any(child.type in ("elif_clause", "else_clause") for child in node.children):
        ends.append(condition.failure)
    result = ends[0]
    for end in ends[1:]:
        result = join(result, end)
    return plain(result, _any_of(outputs))


def _any_of(outputs: list[Word]) -> Word:
    """The output where it is not known which of `outputs` were written."""
    return NOTHING if all(output == NOTHING for output in outputs) else unknown_of(*outputs)


def follow_loop(walk: Branching, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
    return _repeated(lambda before: walk.statements(node, before, stdin), state)


def _repeated(once: Callable[[State], Outcome], state: State) -> Outcome:
    outputs: list[Word] = []
    for _ in range(_ROUNDS):
        outcome = once(state)
        outputs.append(outcome.output)
        after = join(state, outcome.state)
        if after == state:
            break
        changed = [name for name, values in after.variables.items() if state.variables.get(name) != values]
        moved = after.cwd != state.cwd
        state = after
    else:
        state = state.forget(*changed)
        state = state.moved(None) if moved else state
        state = join(state, once(state).state)
    return plain(state, _any_of(outputs))


def follow_for(walk: Branching, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
    walk.at(state)
    name, items, listed = "", [], False
    body: list[tree_sitter.Node] = []
    for child in node.children:
        if child.type == "variable_name" and not name:
            name = walk.source.text(child)
        elif child.type == "in":
            listed = True
        elif child.type in ("do_group", "compound_statement"):
            body.append(child)
        elif child.is_named and listed:
            items += fields(child, walk.source, walk)
    if not listed:
        items = list(state.positional) if state.positional is not None else [ANYTHING]
    values: Values = tuple(dict.fromkeys((item,) for item in items))
    values = values if len(values) <= MAX_WAYS else ((unknown_of(*items),),)

    def once(before: State) -> Outcome:
        inside = plain(before._replace(variables={**before.variables, name: values or (None,)}), NOTHING)
        outputs = []
        for part in body:
            inside = walk.statement(part, inside.state, stdin)
            outputs.append(inside.output)
        return inside._replace(output=_any_of(outputs))

    return _repeated(once, state)


def follow_case(walk: Branching, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
    walk.at(state)
    walk.look_into(node.children[1])
    result = state
    outputs: list[Word] = []
    for item in node.children:
        if item.type != "case_item":
            continue
        inside, patterns = state, True
        for child in item.children:
            if child.type == ")":
                patterns = False
            elif child.is_named and not patterns:
                outcome = walk.statement(child, inside, stdin)
                inside = outcome.state
                outputs.append(outcome.output)
            elif child.is_named:
                walk.at(state)
                walk.look_into(child)
        result = join(result, inside)
    return plain(result, _any_of(outputs))
