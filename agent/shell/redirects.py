"""The redirections of one command: where they point, what text they give it, and what else the grammar hung into them.

Rules: words behind a redirection's target belong to the command; what stands on the line of a here-document behind its
delimiter (``<<EOF | sh``) runs after the command; the last redirection of standard input wins (bash(1)).
"""

from __future__ import annotations

import tree_sitter

from agent.policy.request import UNKNOWN
from agent.shell.findings import Findings
from agent.shell.fold import Scope, fields, heredoc_text, single
from agent.shell.pieces import NOTHING, Word, makers
from agent.shell.state import State
from agent.shell.syntax import Source

REDIRECTIONS = frozenset(("file_redirect", "herestring_redirect", "heredoc_redirect"))
_CONNECTORS = frozenset(("&&", "||", "|", "|&", ";"))
_ANGLES = (b"<", b">")
_WRITE = frozenset((">", ">>", ">|", "&>", "&>>", ">&"))
_WORDS = frozenset(
    (
        "word",
        "string",
        "raw_string",
        "ansi_c_string",
        "translated_string",
        "number",
        "concatenation",
        "simple_expansion",
        "expansion",
        "command_substitution",
        "process_substitution",
        "arithmetic_expansion",
        "brace_expression",
    )
)


class Redirections:
    """Collects them; `words` are further words of the command, `followers` what runs after it."""

    def __init__(self, source: Source, scope: Scope, findings: Findings, stdin: Word | None) -> None:
        self._source = source
        self._scope = scope
        self._findings = findings
        self.stdin = stdin
        self.targets: list[tuple[str, str]] = []
        self.words: list[Word] = []
        self.followers: list[tree_sitter.Node] = []
        self._descriptor = ""
        self._files: list[tuple[str, Word]] = []

    @property
    def takes_output(self) -> bool:
        """True where what the command writes does not go on."""
        return any(">" in operator and not operator.startswith("2") for operator, _ in self.targets)

    def written(self, state: State, output: Word) -> State:
        """`state` after `output` went where these redirections point."""
        for operator, name in self._files:
            if operator.lstrip("1") in _WRITE:
                state = state.written(name, output, self._scope.home, appended=operator.endswith(">>"))
        return state

    def read(self, node: tree_sitter.Node) -> None:
        """Note one redirection."""
        match node.type:
            case "file_redirect":
                self._file(node)
            case "herestring_redirect":
                word = single(node.children[-1], self._source, self._scope)
                self.stdin = word._replace(text=word.text + "\n")
            case "heredoc_redirect":
                self._heredoc(node)
            case "ERROR":
                self._findings.unknown("a redirection could not be read")
                self._scope.look_into(node)
            case _:
                self._scope.look_into(node)

    def _file(self, node: tree_sitter.Node) -> None:
        parts = [child for child in node.children if child.type != "file_descriptor"]
        descriptor = "".join(self._source.text(c) for c in node.children if c.type == "file_descriptor")
        descriptor, self._descriptor = descriptor or self._descriptor, ""
        operator = descriptor + (parts[0].type if parts else "")
        if len(parts) > 2 and parts[1].type == "ERROR" and self._source.text(parts[1]) == ">":
            operator += ">"  # the grammar does not know `<>`
            del parts[1]
        name = NOTHING
        if len(parts) > 1:
            name = single(parts[1], self._source, self._scope)
            if operator in ("<", "0<", "0<>", "<>"):
                self.stdin = self._scope.content(name) or Word(UNKNOWN, made_by=makers((name,)))
            self._files.append((operator, name))
        self.targets.append((operator, name.text))
        for part in parts[2:]:
            if self._source.data[part.end_byte : part.end_byte + 1] in _ANGLES and self._source.text(part).isdecimal():
                self._descriptor = self._source.text(part)  # the grammar takes `0` of `>&f 0>&1` for a word
            else:
                self.words += fields(part, self._source, self._scope)

    def _heredoc(self, node: tree_sitter.Node) -> None:
        text, literal = NOTHING, False
        for child in node.children:
            if child.type == "heredoc_start":
                literal = any(mark in self._source.text(child) for mark in "'\"\\")
            elif child.type == "heredoc_body":
                text = heredoc_text(child, self._source, self._scope, literal=literal)
            elif child.type in REDIRECTIONS:
                self.read(child)
            elif child.type in _WORDS and not self.followers:
                self.words += fields(child, self._source, self._scope)
            elif child.type in _CONNECTORS or (
                child.is_named and child.type not in ("heredoc_end", "file_descriptor", "comment")
            ):
                self.followers.append(child)
        self.stdin = text
