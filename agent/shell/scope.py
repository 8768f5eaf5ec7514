"""What words fold to at one point of the walk: variables, directories, substitutions, files.

Rules: a substitution is followed where it stands, in the state of its command, and leaves that state alone; what a
process substitution reads is only known once its command has run.
"""

from __future__ import annotations

import re
from typing import Protocol

import tree_sitter

from agent.policy.request import UNKNOWN
from agent.shell.findings import Findings
from agent.shell.pieces import ANYTHING, NOTHING, Value, Word, makers, unknown_of
from agent.shell.run import Runner
from agent.shell.setting import Setting
from agent.shell.state import Outcome, State
from agent.shell.syntax import Source

MAX_TREE_DEPTH = 120
_SCRATCH = "/tmp"  # noqa: S108
"""Where the session's TMPDIR lies: it is a directory of its own below, made when the session starts."""
_DEFAULT_IFS = " \t\n"


class Reader(Protocol):
    """What the walk belongs to."""

    findings: Findings
    runner: Runner

    def read_text(self, text: str, state: State, setting: Setting) -> Outcome: ...


class Words:
    """The `Scope` of one walk over one text: `state` is that of the current command, `stdin` what is piped into it.
    `sinks`: the output substitutions (``>(…)``) of the current command, walked when its output is known."""

    def __init__(self, walker: Reader, source: Source, setting: Setting) -> None:
        self.walker = walker
        self.findings = walker.findings
        self.source = source
        self.setting = setting
        self.state = State(cwd=(None,))
        self.stdin: Word | None = None
        self.sinks: list[tree_sitter.Node] | None = None
        self.home = walker.findings.home
        self.depth = 0

    def at(self, state: State) -> None:
        """Fold the following words in `state`."""
        self.state = state

    def variable(self, name: str) -> Value | None:
        state = self.state
        if name in ("@", "*"):
            return state.positional
        if name.isdecimal():
            return self._positional(int(name[:4]))
        if name in state.variables:
            values = state.variables[name]
            return values[0] if len(values) == 1 else _unknown_value(values)
        if name == "HOME":
            return (Word(self.home),)
        if name == "TMPDIR":
            return (Word(_SCRATCH),)
        if name == "IFS":
            return (Word(_DEFAULT_IFS),)
        directory = self.directory()
        return (Word(directory),) if name == "PWD" and directory is not None else None

    def _positional(self, index: int) -> Value | None:
        state = self.state
        if index == 0 or state.positional is None:
            return (state.name,) if index == 0 and state.name is not None else None
        if any(word.text == UNKNOWN for word in state.positional[:index]):
            return (Word(UNKNOWN, made_by=makers(state.positional[:index])),)
        return state.positional[index - 1 : index] or (NOTHING,)

    def define(self, name: str, value: Value | None) -> None:
        self.state = self.state.assign(name, value)

    def directory(self) -> str | None:
        return self.state.cwd[0] if len(self.state.cwd) == 1 else None

    def separators(self) -> str | None:
        if "IFS" not in self.state.variables:
            return _DEFAULT_IFS
        value = self.variable("IFS")
        return value[0].text if value and value[0].known else None

    def content(self, name: Word) -> Word | None:
        return self.walker.runner.content(name, self.state, self.setting._replace(stdin=self.stdin))

    def substitution(self, node: tree_sitter.Node) -> Word:
        outer, outer_stdin, outer_setting, sinks = self.state, self.stdin, self.setting, self.sinks
        text = self.source.text(node)
        self.findings.note(outer_setting.depth + 1, "substitution", text)
        self.setting, self.sinks = outer_setting.deeper()._replace(redirects=(), bare=False, final=False), None
        if text.startswith("`") and "\\" in text:
            inner = re.sub(r'\\([\\`$"])', r"\1", text[1:-1])  # bash(1): read again after these escapes
            output = self.walker.read_text(inner, outer, self.setting._replace(stdin=outer_stdin)).output
        else:
            output = self._substituted(node, outer, outer_stdin)
        self.state, self.stdin, self.setting, self.sinks = outer, outer_stdin, outer_setting, sinks
        return output._replace(text=output.text.rstrip("\n"))

    def _substituted(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Word:
        """``$(< FILE)`` is the file (bash(1), "Command Substitution")."""
        inner = [child for child in node.children if child.is_named and child.type != "comment"]
        if len(inner) == 1 and inner[0].type in ("redirected_statement", "file_redirect"):
            redirect = inner[0] if inner[0].type == "file_redirect" else inner[0].children[0]
            if redirect.type == "file_redirect" and len(inner[0].children) in (1, 2) and self._reads(redirect):
                self.statements(node, state, stdin)
                return self._file(redirect)
        return self.statements(node, state, stdin).output

    def _reads(self, redirect: tree_sitter.Node) -> bool:
        return len(redirect.children) == 2 and redirect.children[0].type == "<"

    def _file(self, redirect: tree_sitter.Node) -> Word:
        return self.content(Word(self.source.text(redirect.children[1]).strip("'\""))) or Word(
            UNKNOWN, made_by=("cat",)
        )

    def descriptor(self, node: tree_sitter.Node) -> Word:
        place = (id(self.source), node.start_byte)
        if self.source.data[node.start_byte : node.start_byte + 1] == b"<":
            return self.findings.descriptor(place, self.substitution(node))
        if self.sinks is None:
            self.sink(node, ANYTHING)
        else:
            self.sinks.append(node)
        return self.findings.descriptor(place, ANYTHING)

    def sink(self, node: tree_sitter.Node, text: Word) -> None:
        """Walk ``>(…)``, which reads `text`."""
        outer, outer_setting, sinks = self.state, self.setting, self.sinks
        self.findings.note(outer_setting.depth + 1, "substitution", self.source.text(node))
        self.setting, self.sinks = outer_setting.deeper()._replace(redirects=(), bare=False, final=False), None
        self.statements(node, outer, text)
        self.state, self.setting, self.sinks = outer, outer_setting, sinks

    def look_into(self, node: tree_sitter.Node) -> None:
        if node.type == "command_substitution":
            self.substitution(node)
            return
        if node.type == "process_substitution":
            self.descriptor(node)
            return
        if not node.children:
            return
        if self.depth > MAX_TREE_DEPTH:
            self.findings.unknown("the text is nested too deeply")
            return
        self.depth += 1
        for child in node.children:
            self.look_into(child)
        self.depth -= 1

    def statements(self, node: tree_sitter.Node, state: State, stdin: Word | None) -> Outcome:
        """Follow the statements under `node`, one after the other."""
        raise NotImplementedError


def _unknown_value(values: tuple[Value | None, ...]) -> Value | None:
    words = [word for value in values if value is not None for word in value]
    return (unknown_of(*words),) if makers(words) else None
