"""Branches and loops: every way through them is followed, and what they leave is what any way could leave.

Rules: a loop's body is walked twice, so that what it assigns at its end is seen at its start; a case's patterns decide
nothing; a variable of a `for` has each listed value.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import tree_sitter

from agent.shell.fold import Scope, Word, fields
from agent.shell.state import ANYTHING, MAX_WAYS, Outcome, State, Values, join, plain
from agent.shell.syntax import Source


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
    for child in node.children:
        if child.type in ("then",):
            taken, branch = True, condition.success
        elif child.type in ("elif_clause", "else_clause"):
            if branch is not None:
                ends.append(branch)
                branch = None
            ends.append(walk.statement(child, condition.failure, stdin).state)
        elif child.is_named and child.type != "comment":
            if taken and branch is not None:
                branch = walk.statement(child, branch, stdin).state
            else:
                condition = walk.statement(child, condition.state, stdin)
    if branch is not None:
        ends.append(branch)
    result = condition.failure
    for end in ends:
        result = join(result, end)
    return plain(result)


def follow_loop(walk: Branching, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
    first = walk.statements(node, state, stdin).state
    again = walk.statements(node, join(state, first), stdin).state
    return plain(join(state, again))


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
    values: Values = tuple(dict.fromkeys((item,) if item.known else None for item in items))
    values = values if len(values) <= MAX_WAYS else (None,)
    for _ in range(2):
        inside = replace(state, variables={**state.variables, name: values})
        for part in body:
            inside = walk.statement(part, inside, stdin).state
        state = join(state, inside)
    return plain(state)


def follow_case(walk: Branching, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
    walk.at(state)
    walk.look_into(node.children[1])
    ends = [state]
    for item in node.children:
        if item.type != "case_item":
            continue
        inside, patterns = state, True
        for child in item.children:
            if child.type == ")":
                patterns = False
            elif child.is_named and not patterns:
                inside = walk.statement(child, inside, stdin).state
            elif child.is_named:
                walk.at(state)
                walk.look_into(child)
        ends.append(inside)
    result = ends[0]
    for end in ends[1:]:
        result = join(result, end)
    return plain(result)
