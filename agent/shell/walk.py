"""The walk over the syntax tree of one shell text: statements, lists, pipelines, functions, assignments.

Rules: every way through the text is followed; words that the grammar hangs into a redirection (``rm 2>x -rf /``) are
the command's own; what is not known is recorded as a reason beside the commands that were found all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import tree_sitter

from agent.shell.branches import follow_case, follow_for, follow_if, follow_loop
from agent.shell.fold import fields
from agent.shell.pieces import ANYTHING, NOTHING, Word, joined_words
from agent.shell.redirects import REDIRECTIONS, Redirections
from agent.shell.scope import MAX_TREE_DEPTH
from agent.shell.simple import SimpleWalk
from agent.shell.state import Function, Outcome, State, concatenated, join, plain

NOT_UNDERSTOOD = "the text is not valid shell syntax, or not syntax that is understood here"


def _last_command(node: tree_sitter.Node | None) -> tree_sitter.Node | None:
    """The simple command that a redirection behind `node` belongs to (the grammar hangs it on the whole list)."""
    for _ in range(MAX_TREE_DEPTH):
        if node is None or node.type == "command":
            return node
        if node.type not in ("list", "pipeline", "negated_command"):
            return None
        node = next((child for child in reversed(node.children) if child.is_named and child.type != "comment"), None)
    return None


class Walk(SimpleWalk):
    """The walk over one text."""

    def statement(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
        """Follow one statement."""
        if self.depth > MAX_TREE_DEPTH:
            self.findings.unknown("the text is nested too deeply")
            return plain(state)
        if not self.findings.step():
            return plain(state)
        self.depth += 1
        outer_stdin, self.stdin = self.stdin, stdin
        try:
            follow = _FOLLOW.get(node.type)
            if follow is not None:
                return follow(self, node, state, stdin)
            self.state = state
            self.look_into(node)
            return plain(state, NOTHING)
        finally:
            self.depth -= 1
            self.stdin = outer_stdin

    def statements(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
        outcome = plain(state, NOTHING)
        children = node.children
        for index, child in enumerate(children):
            if not child.is_named or child.type in ("comment", "file_descriptor"):
                continue
            output = outcome.output
            if index + 1 < len(children) and children[index + 1].type == "&":
                following = self._beside(child, outcome.state, stdin)
            else:
                following = self.statement(child, outcome.state, stdin)
            outcome = following
            if output is not NOTHING:
                outcome = following._replace(output=concatenated(output, following.output))
        return outcome

    def _beside(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
        """In the background, in a shell of its own."""
        outer = self.setting
        self.setting = outer._replace(beside=True)
        inner = self.statement(node, state, stdin)
        self.setting = outer
        return plain(state._replace(files=inner.state.files), inner.output)

    def _command(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
        behind = self.behind.get((node.start_byte, node.end_byte), ())
        return self.command(node, state, stdin, behind)

    def _subshell(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
        inner = self.statements(node, state, stdin)
        kept = state._replace(files=inner.state.files)
        return plain(kept, inner.output)

    def _negated(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
        inner = self.statements(node, state, stdin)
        return Outcome(inner.failure, inner.success, inner.output)

    def _nothing(self, _node: tree_sitter.Node, state: State, _stdin: Word | None) -> Outcome:
        return plain(state, NOTHING)

    def _error(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
        self.findings.unknown(NOT_UNDERSTOOD)
        return self.statements(node, state, stdin)

    def _list(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
        left_node, operator, right_node = node.children[0], node.children[1].type, node.children[-1]
        left = self.statement(left_node, state, stdin)
        right = self.statement(right_node, left.success if operator == "&&" else left.failure, stdin)
        output = concatenated(left.output, right.output)
        if operator == "&&":
            return Outcome(right.success, join(left.failure, right.failure), output)
        if right_node.type == "command" and self.source.text(right_node).split()[:1] in (["exit"], ["return"]):
            return Outcome(left.success, left.success, left.output)
        return Outcome(join(left.success, right.success), right.failure, output)

    def _pipeline(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
        return self._stages(node.children, state, stdin)

    def _stages(self, nodes: Sequence[tree_sitter.Node], state: State, stdin: Word | None) -> Outcome:
        """Each stage in a shell of its own; what they write to files stays."""
        output, outer = stdin, self.setting
        self.setting = outer._replace(beside=True)
        for child in nodes:
            if not child.is_named or child.type == "comment":
                continue
            outcome = self.statement(child, state, output)
            output = outcome.output
            if outcome.success.files is not state.files:
                state = state._replace(files=outcome.state.files)
        self.setting = outer
        return plain(state, output or ANYTHING)

    def _redirected(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
        self.state = state
        body = node.child_by_field_name("body")
        last = _last_command(body)
        if body is not None and last is not None:
            behind = tuple(child for child in node.children if child != body)
            self.behind[last.start_byte, last.end_byte] = behind
            return self.statement(body, state, stdin)
        outer_sinks, self.sinks = self.sinks, []
        redirections = Redirections(self.source, self, self.findings, stdin)
        for child in node.children:
            if body is None or child != body:
                redirections.read(child)
        sinks, self.sinks = self.sinks, outer_sinks
        if redirections.targets:
            self.walker.runner.redirection(
                state, self.setting._replace(redirects=tuple(redirections.targets), stdin=redirections.stdin)
            )
        if body is None:
            outcome = plain(redirections.written(state, NOTHING), NOTHING)
        else:
            if redirections.words:
                self.findings.unknown("a redirection is followed by words that belong to no command")
            outcome = self.statement(body, state, redirections.stdin)
        return self.finished(redirections, outcome, sinks)

    def _lone_redirect(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
        self.state = state
        redirections = Redirections(self.source, self, self.findings, stdin)
        redirections.read(node)
        setting = self.setting._replace(redirects=tuple(redirections.targets), stdin=redirections.stdin)
        self.walker.runner.redirection(state, setting)
        return plain(redirections.written(state, NOTHING), NOTHING)

    def follow(self, nodes: Sequence[tree_sitter.Node], outcome: Outcome) -> Outcome:
        """What stands behind a here-document's delimiter on its line."""
        operator = ""
        for node in nodes:
            if not node.is_named:
                operator = node.type
            elif node.type == "pipeline" and node.children and not node.children[0].is_named:
                outcome = self._stages(node.children, outcome.state, outcome.output)
            else:
                piped = outcome.output if operator in ("|", "|&") else None
                outcome = self.statement(node, outcome.state, piped)
        return outcome

    def _function(self, node: tree_sitter.Node, state: State, _stdin: Word | None) -> Outcome:
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        if name is None or body is None:
            self.findings.unknown("a function without a name or a body")
            return plain(state)
        self.state = state
        redirections = Redirections(self.source, self, self.findings, None)
        for child in node.children:
            if child.type in REDIRECTIONS:
                redirections.read(child)
        if redirections.targets:
            self.walker.runner.redirection(
                state, self.setting._replace(redirects=tuple(redirections.targets), stdin=redirections.stdin)
            )
        function = Function(self.source.text(name), body, self.source)
        return plain(state._replace(functions={**state.functions, function.name: (function,)}), NOTHING)

    def _assignments(self, node: tree_sitter.Node, state: State, _stdin: Word | None) -> Outcome:
        nodes = node.children if node.type == "variable_assignments" else [node]
        for child in nodes:
            self.state = state
            name, value = self.assigned(child)
            state = self.state.assign(name, value) if name else self.state
        return plain(state, NOTHING)

    def _declaration(self, node: tree_sitter.Node, state: State, _stdin: Word | None) -> Outcome:
        words: list[Word] = [Word(self.source.text(node.children[0]))]
        names: list[str] = []
        for child in node.children[1:]:
            self.state = state
            if child.type == "variable_assignment":
                state = self._assignments(child, state, None).state
                names.append(self.source.text(child).partition("=")[0].rstrip("+").partition("[")[0])
                values = state.variables.get(names[-1], ())
                word = joined_words(values[0]) if len(values) == 1 and values[0] is not None else ANYTHING
                words.append(word._replace(text=f"{names[-1]}={word.text}", glob=False))
            else:
                words += fields(child, self.source, self)
        return self.walker.runner.run(words, state, self.setting._replace(at=None))


type _Follow = Callable[[Walk, tree_sitter.Node, State, Word | None], Outcome]

_FOLLOW: Mapping[str, _Follow] = MappingProxyType(
    {
        **dict.fromkeys(("program", "compound_statement", "do_group", "else_clause"), Walk.statements),
        "subshell": Walk._subshell,
        "command": Walk._command,
        "file_redirect": Walk._lone_redirect,
        "list": Walk._list,
        "pipeline": Walk._pipeline,
        "redirected_statement": Walk._redirected,
        "negated_command": Walk._negated,
        "if_statement": follow_if,
        "elif_clause": follow_if,
        "while_statement": follow_loop,
        "c_style_for_statement": follow_loop,
        "for_statement": follow_for,
        "case_statement": follow_case,
        "function_definition": Walk._function,
        "variable_assignment": Walk._assignments,
        "variable_assignments": Walk._assignments,
        "declaration_command": Walk._declaration,
        "unset_command": Walk._declaration,
        "comment": Walk._nothing,
        "heredoc_end": Walk._nothing,
        "heredoc_start": Walk._nothing,
        "ERROR": Walk._error,
    }
)
