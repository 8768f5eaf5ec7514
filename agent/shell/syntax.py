"""From shell text to a syntax tree that reads it as bash does.

Rules: what bash would join (backslash-newline) is joined first, except where bash does not (single quotes, comments,
here-documents); the work is bounded by the length of the text and by the parser's own steps, never by a clock; the
grammar sees ASCII letters and digits in place of every odd character. For bash those are ordinary characters (its
blanks are space and tab only, bash(1)); the grammar takes Unicode blanks for blanks, which would hide
``x<FF>#; rm -rf /`` in a comment, and its scanner reads past a table for large code points (a segmentation fault, with
tree-sitter-bash 0.25.1).
"""

from __future__ import annotations

import itertools
import re
from functools import lru_cache

import tree_sitter
import tree_sitter_bash

from agent.values import dataclass

MAX_TEXT = 256 * 1024
"""Characters; a longer text is unverifiable."""

_STEPS_BASE = 400
_STEPS_PER_KIB = 40

_ODD = re.compile(r"[^\t\n\x20-\x7e]")
_CONTINUATION = re.compile(rb"(?<!\\)(?:\\\\)*\\\n")
_KEEPS_NEWLINE = frozenset(("raw_string", "ansi_c_string", "comment", "heredoc_body", "heredoc_content"))
_ONE_LINE = frozenset(("command", "declaration_command", "unset_command", "redirected_statement", "file_redirect"))
_REPAIRS = 6
_OPAQUE = _KEEPS_NEWLINE | {"string_content"}
_JOINS_AGAIN = frozenset(("command_substitution", "process_substitution"))


class Unreadable(Exception):
    """The text cannot be read as shell; the message says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed text. Nodes are only meaningful with the source they come from. `mark`: in front of the number of each
    odd character; it does not occur in the text itself. `whole`: all of it was read, and as bash reads it."""

    data: bytes
    root: tree_sitter.Node
    mark: str | None = None
    whole: bool = True

    def text(self, node: tree_sitter.Node) -> str:
        """The original text of `node`."""
        return self.slice(node.start_byte, node.end_byte)

    def slice(self, start: int, end: int) -> str:
        """The original text between two offsets into `data`."""
        text = self.data[start:end].decode()
        if self.mark is None or self.mark not in text:
            return text
        return re.sub(f"{self.mark}([0-9a-f]+)Z", lambda found: chr(int(found[1], 16)), text)


def read_shell(text: str) -> Source:
    """Parse `text`. Raises Unreadable; syntax errors are in the tree instead (`root.has_error`)."""
    if len(text) > MAX_TEXT:
        raise Unreadable(f"the text is longer than {MAX_TEXT} characters")
    if "\0" in text:
        raise Unreadable("the text holds a NUL character")
    mark = None
    if _ODD.search(text):
        mark = next(f"Z{number}Z" for number in itertools.count() if f"Z{number}Z" not in text)
        text = _ODD.sub(lambda found: f"{mark}{ord(found[0]):x}Z", text)
    data = text.encode()
    root = _parse(data)
    for _ in range(4):
        joined = _join(data, root)
        if joined == data:
            break
        data = joined
        root = _parse(data)
    for _ in range(_REPAIRS):
        repaired = _with_quoted_escapes(data, root, mark) if b"\\" in data else data
        if repaired == data and b"\n" in data:
            repaired = _with_ended_lines(data, root)
        if repaired == data:
            break
        data = repaired
        root = _parse(data)
    else:
        return Source(data, root, mark, whole=False)
    return Source(data, root, mark, whole=not root.has_error)


def unseen_substitutions(source: Source) -> tuple[list[str], bool]:
    """The inner texts of substitutions that bash makes where the grammar sees only text: backticks in here-documents
    and in ``${x:-…}``. What bash takes for text (single quotes, comments, quoted here-documents, escapes) is not.
    False beside them: there are more than were looked at (each costs a search)."""
    found: list[str] = []
    position = looked = 0
    while (opening := _OPENING.search(source.data, position)) is not None:
        position = opening.end()
        looked += 1
        if looked > _MOST_OPENINGS:
            return found, False
        start = opening.end() - len(opening[1])
        if (start - opening.start()) % 2 or not _is_unseen(source, start):
            continue
        closing = source.data.find(b"`" if opening[1] == b"`" else b")", position)
        end = len(source.data) if closing < 0 else closing
        found.append(source.slice(position, end))
        position = end + 1
    return found, True


_MOST_OPENINGS = 5_000


_OPENING = re.compile(rb"\\*(`|\$\()")
_SEEN = frozenset(("`", "$(", "$((", ")", "))"))


def _is_unseen(source: Source, offset: int) -> bool:
    node = source.root.descendant_for_byte_range(offset, offset + 1)
    if node is None or node.type in _SEEN:
        return False
    for _ in range(256):
        if node is None or node.type in ("command_substitution", "program", "arithmetic_expansion"):
            return True
        if node.type in ("raw_string", "ansi_c_string", "comment"):
            return False
        if node.type == "heredoc_redirect":
            starts = (source.text(child) for child in node.children if child.type == "heredoc_start")
            return not any(mark in start for start in starts for mark in "'\"\\")
        node = node.parent
    return True


@lru_cache(maxsize=1)
def _language() -> tree_sitter.Language:
    return tree_sitter.Language(tree_sitter_bash.language())


def _parse(data: bytes) -> tree_sitter.Node:
    """A new parser each time: one that was stopped would resume its old text (tree-sitter, `ts_parser_reset`)."""
    left = _STEPS_BASE + _STEPS_PER_KIB * (len(data) >> 10)

    def stop(_offset: int, _error: bool) -> bool:
        nonlocal left
        left -= 1
        return left < 0

    def read(offset: int, _point: object) -> bytes:
        return data[offset : offset + 65536]

    try:
        return tree_sitter.Parser(_language()).parse(read, progress_callback=stop).root_node
    except ValueError as error:
        raise Unreadable("the text takes too long to parse") from error


def _join(data: bytes, root: tree_sitter.Node) -> bytes:
    if b"\\\n" not in data:
        return data
    parts: list[bytes] = []
    position = 0
    for found in _CONTINUATION.finditer(data):
        backslash = found.end() - 2
        if _keeps_newline(root.descendant_for_byte_range(backslash, backslash + 1)):
            continue
        parts.append(data[position:backslash])
        position = found.end()
    parts.append(data[position:])
    return b"".join(parts)


def _with_quoted_escapes(data: bytes, root: tree_sitter.Node, mark: str | None) -> bytes:
    """The grammar ends a word at a backslash behind a quote or an expansion, and takes a newline in front of one for a
    part of the word before: one command would be two, or two one. A quoted character means the same as one behind a
    backslash, and reads well."""
    escaped = re.compile(rb"\\(%s[0-9a-f]+Z|.)" % (mark or "(?!)").encode(), re.DOTALL)
    parts: list[bytes] = []
    position, backslash = 0, data.find(b"\\")
    while backslash >= 0:
        leaf = root.descendant_for_byte_range(backslash, backslash + 1)
        end = backslash + 2
        if leaf is None or leaf.type in _OPAQUE:
            end = max(end, leaf.end_byte if leaf is not None else 0)
        elif leaf.children or not data[leaf.start_byte : backslash].strip():
            end = end if leaf.children else max(end, leaf.end_byte)
            if (leaf.children or leaf.type == "word") and not _is_quoted(leaf, data):
                parts += (data[position:backslash], escaped.sub(_in_quotes, data[backslash:end]))
                position = end
        backslash = data.find(b"\\", end)
    parts.append(data[position:])
    return b"".join(parts)


def _with_ended_lines(data: bytes, root: tree_sitter.Node) -> bytes:
    """The grammar now and then goes on with a command on the next line (``a | b | c⏎d 2>x``): the line is ended."""
    ends: list[int] = []
    nodes = [root]
    while nodes:
        node = nodes.pop()
        children = node.children
        if node.type in _ONE_LINE:
            gaps = ((one.end_byte, other.start_byte) for one, other in itertools.pairwise(children))
            ends += (at for start, end in gaps if (at := data.find(b"\n", start, end)) >= 0)
        nodes += (child for child in children if data.find(b"\n", child.start_byte, child.end_byte) >= 0)
    parts: list[bytes] = []
    position = 0
    for at in sorted(set(ends)):
        parts += (data[position:at], b";")
        position = at
    return b"".join((*parts, data[position:]))


def _in_quotes(found: re.Match[bytes]) -> bytes:
    return b'"\'"' if found[1] == b"'" else found[0] if found[1] == b"\n" else b"'%s'" % found[1]


def _is_quoted(node: tree_sitter.Node | None, data: bytes) -> bool:
    """Backquotes count as quotes here: their text is read again once they are taken away."""
    for _ in range(256):
        if node is None or node.type in _JOINS_AGAIN:
            return node is not None and data[node.start_byte : node.start_byte + 1] == b"`"
        if node.type in _KEEPS_NEWLINE or node.type == "string":
            return True
        node = node.parent
    return True


def _keeps_newline(node: tree_sitter.Node | None) -> bool:
    for _ in range(256):
        if node is None or node.type in _JOINS_AGAIN:
            return False
        if node.type in _KEEPS_NEWLINE:
            return True
        node = node.parent
    return False
