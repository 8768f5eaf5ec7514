"""The walk over the syntax tree of one shell text.

Rules: every way through the text is followed; words that the grammar hangs into a redirection (``rm 2>x -rf /``) are
the command's own; what is not known is recorded as a reason beside the commands that were found all the same.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import tree_sitter

from agent.policy.request import UNKNOWN
from agent.shell.branches import follow_case, follow_for, follow_if, follow_loop
from agent.shell.fold import Value, Word, fields, single
from agent.shell.redirects import Redirections
from agent.shell.run import Runner, Setting
from agent.shell.state import (
    ANYTHING,
    MAX_WAYS,
    NOTHING,
    Findings,
    Function,
    Outcome,
    State,
    concatenated,
    join,
    plain,
)
from agent.shell.steps import basename
from agent.shell.syntax import Source

MAX_TREE_DEPTH = 120
NOT_UNDERSTOOD = "the text is not valid shell syntax, or not syntax that is understood here"


_SUBSTITUTES = re.compile(r"`|\$\(")
_EXPANDED_LATER = frozenset(("PS0", "PS1", "PS2", "PS4", "PROMPT_COMMAND", "ENV", "BASH_ENV"))
_ARITHMETIC = re.compile(rb"\(\(|\blet\b|\$\[|-(?:eq|ne|lt|gt|le|ge)\b|@P\}")
"""Where the text of a variable is expanded once more (bash(1), "ARITHMETIC EVALUATION", "Parameter transformation")."""


class Reader(Protocol):
    """What the walk belongs to."""

    findings: Findings
    runner: Runner

    def read_text(self, text: str, state: State, setting: Setting) -> Outcome: ...


def _last_command(node: tree_sitter.Node | None) -> tree_sitter.Node | None:
    """The simple command that a redirection behind `node` belongs to (the grammar hangs it on the whole list)."""
    for _ in range(MAX_TREE_DEPTH):
        if node is None or node.type == "command":
            return node
        if node.type not in ("list", "pipeline", "negated_command"):
            return None
        node = next((child for child in reversed(node.children) if child.is_named and child.type != "comment"), None)
    return None


class Walk:
    """The walk over one text. It is the `Scope` of its words: `_state` is that of the current command."""

    def __init__(self, walker: Reader, source: Source, setting: Setting) -> None:
        self._walker = walker
        self.source = source
        self._setting = setting
        self._state = State(cwd=(None,))
        self._depth = 0
        self._behind: dict[tuple[int, int], tuple[tree_sitter.Node, ...]] = {}
        self.home = walker.findings.home

    def at(self, state: State) -> None:
        """Fold the following words in `state`."""
        self._state = state

    # The Scope of fold.

    def variable(self, name: str) -> Value | None:
        state = self._state
        if name in ("@", "*"):
            return state.positional
        if name.isdecimal():
            index = int(name[:4])
            if index == 0 or state.positional is None:
                return (state.name,) if index == 0 and state.name is not None else None
            return state.positional[index - 1 : index] or (NOTHING,)
        if name in state.variables:
            values = state.variables[name]
            return values[0] if len(values) == 1 else None
        if name == "HOME":
            return (Word(self.home),)
        directory = self.directory()
        return (Word(directory),) if name == "PWD" and directory is not None else None

    def directory(self) -> str | None:
        return self._state.cwd[0] if len(self._state.cwd) == 1 else None

    def substitution(self, node: tree_sitter.Node) -> Word:
        outer = self._state
        text = self.source.text(node)
        if text.startswith("`") and "\\" in text:
            inner = re.sub(r'\\([\\`$"])', r"\1", text[1:-1])  # bash(1): read again after these escapes
            output = self._walker.read_text(inner, outer, replace(self._setting, depth=self._setting.depth + 1)).output
        else:
            output = self.statements(node, outer, None).output
        self._state = outer
        return Word(output.text.rstrip("\n"), output.glob)

    def look_into(self, node: tree_sitter.Node) -> None:
        if node.type in ("command_substitution", "process_substitution"):
            self.substitution(node)
            return
        if self._depth > MAX_TREE_DEPTH:
            self._walker.findings.unknown("the text is nested too deeply")
            return
        self._depth += 1
        for child in node.children:
            self.look_into(child)
        self._depth -= 1

    def splits_at_blanks(self) -> bool:
        return "IFS" not in self._state.variables

    # Statements.

    def statement(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
        """Follow one statement."""
        if self._depth > MAX_TREE_DEPTH:
            self._walker.findings.unknown("the text is nested too deeply")
            return plain(state)
        if not self._walker.findings.step():
            return plain(state)
        self._depth += 1
        try:
            return self._dispatch(node, state, stdin)
        finally:
            self._depth -= 1

    def _dispatch(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
        match node.type:
            case "program" | "compound_statement" | "do_group" | "else_clause":
                return self.statements(node, state, stdin)
            case "subshell":
                return plain(state, self.statements(node, state, stdin).output)
            case "command":
                behind = self._behind.get((node.start_byte, node.end_byte), ())
                return self._command(node, state, stdin, behind)
            case "list":
                return self._list(node, state, stdin)
            case "pipeline":
                return self._pipeline(node, state, stdin)
            case "redirected_statement":
                return self._redirected(node, state, stdin)
            case "negated_command":
                inner = self.statements(node, state, stdin)
                return Outcome(inner.failure, inner.success, inner.output)
            case "if_statement" | "elif_clause":
                return follow_if(self, node, state, stdin)
            case "while_statement" | "c_style_for_statement":
                return follow_loop(self, node, state, stdin)
            case "for_statement":
                return follow_for(self, node, state, stdin)
            case "case_statement":
                return follow_case(self, node, state, stdin)
            case "function_definition":
                return self._function(node, state)
            case "variable_assignment" | "variable_assignments":
                return self._assignments(node, state)
            case "declaration_command" | "unset_command":
                return self._declaration(node, state)
            case "comment" | "heredoc_end" | "heredoc_start":
                return plain(state, NOTHING)
            case "ERROR":
                self._walker.findings.unknown(NOT_UNDERSTOOD)
                return self.statements(node, state, stdin)
        self._state = state
        self.look_into(node)
        return plain(state, NOTHING)

    def statements(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
        outcome = plain(state, NOTHING)
        for child in node.children:
            if not child.is_named or child.type in ("comment", "file_descriptor"):
                continue
            following = self.statement(child, outcome.state, stdin)
            outcome = replace(following, output=concatenated(outcome.output, following.output))
        return outcome

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
        output, upstream = stdin, self._setting.piped_from
        for child in node.children:
            if not child.is_named or child.type == "comment":
                continue
            outer = self._setting
            self._setting = replace(outer, piped_from=upstream)
            output = self.statement(child, state, output).output
            self._setting = outer
            program = self._program_of(child)
            upstream = (*upstream, program) if program is not None else upstream
        return plain(state, output or ANYTHING)

    def _program_of(self, node: tree_sitter.Node) -> str | None:
        if node.type == "redirected_statement":
            node = node.child_by_field_name("body") or node
        last = _last_command(node)
        name = last.child_by_field_name("name") if last is not None else None
        return basename(self.source.text(name)) if name is not None else None

    def _redirected(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
        self._state = state
        body = node.child_by_field_name("body")
        last = _last_command(body)
        if body is not None and last is not None:
            behind = tuple(child for child in node.children if child != body)
            self._behind[last.start_byte, last.end_byte] = behind
            return self.statement(body, state, stdin)
        redirections = Redirections(self.source, self, self._walker.findings, stdin)
        for child in node.children:
            if body is None or child != body:
                redirections.read(child)
        if body is None:
            return self._followed(redirections.followers, plain(state, NOTHING), None)
        if redirections.words:
            self._walker.findings.unknown("a redirection is followed by words that belong to no command")
        outcome = self.statement(body, state, redirections.stdin)
        if redirections.takes_output:
            outcome = replace(outcome, output=NOTHING)
        return self._followed(redirections.followers, outcome, self._program_of(body))

    def _followed(self, followers: Sequence[tree_sitter.Node], outcome: Outcome, program: str | None) -> Outcome:
        operator = ""
        for node in followers:
            if not node.is_named:
                operator = node.type
                continue
            if node.type == "pipeline" and node.children and not node.children[0].is_named:
                outer = self._setting
                self._setting = replace(outer, piped_from=() if program is None else (program,))
                outcome = self._pipeline(node, outcome.state, outcome.output)
                self._setting = outer
                continue
            piped = outcome.output if operator in ("|", "|&") else None
            outcome = self.statement(node, outcome.state, piped)
        return outcome

    def _function(self, node: tree_sitter.Node, state: State) -> Outcome:
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        if name is None or body is None:
            self._walker.findings.unknown("a function without a name or a body")
            return plain(state)
        function = Function(body, self.source)
        return plain(replace(state, functions={**state.functions, self.source.text(name): function}), NOTHING)

    def _assignments(self, node: tree_sitter.Node, state: State) -> Outcome:
        if node.type == "variable_assignments":
            for child in node.children:
                state = self._assignments(child, state).state
            return plain(state, NOTHING)
        self._state = state
        name, value = self._assigned(node)
        appended = any(child.type == "+=" for child in node.children)
        return plain(state.assign(name, None if appended else value) if name else state, NOTHING)

    def _assigned(self, node: tree_sitter.Node) -> tuple[str, Value | None]:
        target, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        name = self.source.text(target).partition("[")[0] if target is not None else ""
        if target is not None:
            self.look_into(target)
        if value is None:
            return name, (NOTHING,)
        if value.type == "array":
            words = [word for item in value.children if item.is_named for word in fields(item, self.source, self)]
            return name, tuple(words) if all(word.known for word in words) else None
        word = single(value, self.source, self)
        if _SUBSTITUTES.search(word.text) and (name in _EXPANDED_LATER or _ARITHMETIC.search(self.source.data)):
            self._walker.findings.unknown(f"{name} holds a substitution that the shell may make later")
        simple = target is not None and target.type == "variable_name"
        return name, (Word(word.text),) if word.known and simple else None

    def _declaration(self, node: tree_sitter.Node, state: State) -> Outcome:
        words: list[Word] = [Word(self.source.text(node.children[0]))]
        names: list[str] = []
        for child in node.children[1:]:
            self._state = state
            if child.type == "variable_assignment":
                state = self._assignments(child, state).state
                names.append(self._assigned(child)[0])
            else:
                words += fields(child, self.source, self)
        if any(word.text.startswith("-") and set(word.text) & set("nilu") for word in words):
            state = state.forget(*names)  # a reference, a number, or another case: not the text that was written
        return self._walker.runner.run(words, state, self._setting)

    # Commands.

    def _command(
        self, node: tree_sitter.Node, state: State, stdin: Word | None, behind: tuple[tree_sitter.Node, ...]
    ) -> Outcome:
        """A simple command, once for every combination of the values that its variables may have here."""
        outcomes = [self._one_way(node, way, stdin, behind) for way in self._ways(node, state)]
        first = outcomes[0]
        if len(outcomes) == 1:
            return first
        success, failure = first.success, first.failure
        for other in outcomes[1:]:
            success, failure = join(success, other.success), join(failure, other.failure)
        same = all(other.output == first.output for other in outcomes)
        return Outcome(success, failure, first.output if same else ANYTHING)

    def _ways(self, node: tree_sitter.Node, state: State) -> Iterator[State]:
        names = sorted({name for name in self._names(node) if len(state.variables.get(name, (None,))) > 1})
        uncertain_place = len(state.cwd) > 1 and b"PWD" in self.source.data
        places = [state.moved(cwd) for cwd in state.cwd] if uncertain_place else [state]
        ways = itertools.product(*(state.variables[name] for name in names))
        for count, (place, values) in enumerate(itertools.product(places, ways)):
            if count == MAX_WAYS:
                yield state.forget(*names)
                return
            fixed = {name: (value,) for name, value in zip(names, values, strict=True)}
            yield replace(place, variables={**state.variables, **fixed})

    def _names(self, node: tree_sitter.Node) -> Iterator[str]:
        for child in node.children:
            if child.type in ("simple_expansion", "expansion", "subscript"):
                yield from (self.source.text(c) for c in child.children if c.type == "variable_name")
            if child.children:
                yield from self._names(child)

    def _one_way(
        self, node: tree_sitter.Node, state: State, stdin: Word | None, behind: tuple[tree_sitter.Node, ...]
    ) -> Outcome:
        self._state = state
        redirections = Redirections(self.source, self, self._walker.findings, stdin)
        assignments: list[tuple[str, Value | None]] = []
        words: list[Word] = []
        for child in (*node.children, *behind):
            match child.type:
                case "variable_assignment":
                    assignments.append(self._assigned(child))
                case "file_redirect" | "herestring_redirect" | "heredoc_redirect" | "ERROR":
                    redirections.read(child)
                    words += redirections.words
                    redirections.words.clear()
                case "subshell" | "compound_statement":
                    state = self.statement(child, state, redirections.stdin).state
                case _:
                    words += fields(child, self.source, self)
        if not words:
            for name, value in assignments:
                state = state.assign(name, value)
            return self._followed(redirections.followers, plain(state, NOTHING), None)
        shown = [(name, UNKNOWN if value is None else " ".join(w.text for w in value)) for name, value in assignments]
        setting = replace(
            self._setting,
            assignments=(*self._setting.assignments, *shown),
            redirects=tuple(redirections.targets),
            stdin=redirections.stdin,
        )
        outcome = self._walker.runner.run(words, state, setting)
        if redirections.takes_output:
            outcome = replace(outcome, output=NOTHING)
        return self._followed(redirections.followers, outcome, basename(words[0].text))
