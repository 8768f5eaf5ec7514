"""Words: quotes, escapes, braces, tildes and known variables folded away (bash(1), "EXPANSION").

Rules: what is not known becomes UNKNOWN, never a guess; an unquoted unknown may be any number of words; a word keeps
whether the shell has still to expand its ``*``, ``?`` and ``[``, and which programs its text came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Protocol

import tree_sitter

from agent.expressions import expression
from agent.policy.request import UNKNOWN
from agent.shell.arithmetic import evaluate
from agent.shell.braces import braced_words
from agent.shell.parameters import braced, variable
from agent.shell.pieces import MAX_FIELDS, Piece, Value, Word, has_glob, makers
from agent.shell.quoting import unquote_ansi
from agent.shell.syntax import MAX_TEXT, Source

__all__ = ["Scope", "Word", "fields", "heredoc_text", "single"]

_BLANKS = expression("([ \t\n]+)")
_EXPANDING = frozenset(("simple_expansion", "expansion", "command_substitution", "arithmetic_expansion"))


class Scope(Protocol):
    """What folding asks of whoever walks the text."""

    home: str

    def variable(self, name: str) -> Value | None:
        """What `name` holds, None where that is not known."""

    def define(self, name: str, value: Value | None) -> None:
        """An expansion gives `name` a value (``${x:=y}``)."""

    def separators(self) -> str | None:
        """The characters of IFS, None where they are not known."""

    def directory(self) -> str | None:
        """The current directory, None where it is not known."""

    def substitution(self, node: tree_sitter.Node) -> Word:
        """Look into a command substitution; the text it leaves, UNKNOWN where that is not known."""

    def descriptor(self, node: tree_sitter.Node) -> Word:
        """Look into a process substitution; the path that stands in its place."""

    def content(self, name: Word) -> Word | None:
        """What the file called `name` holds, where something in this text wrote it."""

    def look_into(self, node: tree_sitter.Node) -> None:
        """Look into the substitutions anywhere under `node`."""


def fields(node: tree_sitter.Node, source: Source, scope: Scope) -> list[Word]:
    """The words that `node` becomes where the shell splits it."""
    if node.type == "word" and not node.children:
        text = source.text(node)
        if _PLAIN.fullmatch(text) is not None:
            return [Word(text)]
    pieces = _with_tilde(_bounded(_pieces(node, source, scope, quoted=False)), scope)
    separators = scope.separators()
    words: list[Word] = []
    for alternative in braced_words(pieces):
        words += _split(alternative, separators)
        if len(words) > MAX_FIELDS:
            return [*words[:MAX_FIELDS], Word(UNKNOWN, made_by=makers(words))]
    return words


def _bounded(pieces: Iterable[Piece]) -> list[Piece]:
    """All of the pieces are made, since making them looks into substitutions; of too many the rest is unknown."""
    kept: list[Piece] = []
    for piece in pieces:
        if len(kept) < _MAX_PIECES:
            kept.append(piece)
    return kept if len(kept) < _MAX_PIECES else [*kept, Piece(UNKNOWN, split=True, made_by=makers(kept))]


_MAX_PIECES = 4096
_PLAIN = expression(r"[A-Za-z0-9_./:=,@%+-]+")


def single(node: tree_sitter.Node, source: Source, scope: Scope) -> Word:
    """The one word that `node` becomes where the shell does not split (assignments, redirections, here-strings)."""
    pieces = _with_tilde(list(_pieces(node, source, scope, quoted=False)), scope)
    if sum(len(piece.text) for piece in pieces) > MAX_TEXT:
        return Word(UNKNOWN, made_by=makers(pieces))
    text = "".join(" " if piece.ends else piece.text for piece in pieces)
    return Word(text, any(p.glob for p in pieces), makers(pieces))


def heredoc_text(body: tree_sitter.Node, source: Source, scope: Scope, *, literal: bool) -> Word:
    """The text of a here-document; with an unquoted delimiter its expansions are folded."""
    if literal:
        return Word(source.text(body))
    pieces = list(_spans(body, source, scope, _unescape_document))
    return Word("".join(piece.text for piece in pieces), made_by=makers(pieces))


def _pieces(node: tree_sitter.Node, source: Source, scope: Scope, *, quoted: bool) -> Iterator[Piece]:
    match node.type:
        case "raw_string":
            yield Piece(source.text(node)[1:-1], quoted=True)
        case "ansi_c_string":
            yield Piece(unquote_ansi(source.text(node)[2:-1]), quoted=True)
        case "string":
            yield Piece("", quoted=True)
            yield from _spans(node, source, scope, _unescape_double, strip=True)
        case "translated_string" | "concatenation" | "command_name":
            for child in node.children:
                if child.type != "$":
                    yield from _pieces(child, source, scope, quoted=quoted)
        case "simple_expansion":
            yield from variable(source.text(node)[1:], scope, quoted)
        case "expansion":
            yield from braced(node, source, scope, quoted, _pieces)
        case "command_substitution":
            word = scope.substitution(node)
            yield Piece(word.text, quoted=quoted, split=not quoted, glob=word.glob, made_by=word.made_by)
        case "process_substitution":
            word = scope.descriptor(node)
            yield Piece(word.text, quoted=True, made_by=word.made_by)
        case "arithmetic_expansion":
            scope.look_into(node)
            yield Piece(_arithmetic(source.text(node), scope), quoted=True)
        case _:
            scope.look_into(node)
            yield from _unescape_bare(source.text(node))


def _arithmetic(text: str, scope: Scope) -> str:
    """Digits: those of the result where it is known, any others where it is not."""
    value = evaluate(text[3:-2] if text.startswith("$((") else text[2:-1], scope.variable)
    return "0" if value is None else str(value)


def _spans(
    node: tree_sitter.Node, source: Source, scope: Scope, unescape: _Unescape, *, strip: bool = False
) -> Iterator[Piece]:
    """The children that expand, and the literal text around and between them (the grammar leaves gaps)."""
    start, end = node.start_byte, node.end_byte
    if strip:
        start += 1
        end -= source.data[end - 1 : end] == b'"' and end - 1 > node.start_byte
    for child in node.children:
        if child.type in _EXPANDING:
            yield Piece(unescape(source.slice(start, child.start_byte)), quoted=True)
            yield from _pieces(child, source, scope, quoted=True)
            start = child.end_byte
    yield Piece(unescape(source.slice(start, end)), quoted=True)


class _Unescape(Protocol):
    def __call__(self, text: str, /) -> str: ...


_ESCAPED_DOUBLE = expression(r'\\([$`"\\\n])')
_ESCAPED_DOCUMENT = expression(r"\\([$`\\\n])")
_ESCAPED_BARE = expression(r"\\(.|\n)", re.DOTALL)


def _unescape_double(text: str) -> str:
    return _ESCAPED_DOUBLE.sub(lambda m: "" if m[1] == "\n" else m[1], text) if "\\" in text else text


def _unescape_document(text: str) -> str:
    """In a here-document a double quote is an ordinary character (bash(1), "Here Documents")."""
    return _ESCAPED_DOCUMENT.sub(lambda m: "" if m[1] == "\n" else m[1], text) if "\\" in text else text


def _unescape_bare(text: str) -> Iterator[Piece]:
    if "\\" not in text:
        yield Piece(text, glob=has_glob(text))
        return
    for index, part in enumerate(_ESCAPED_BARE.split(text)):
        if index % 2:
            yield Piece("" if part == "\n" else part, quoted=True)
        elif part:
            yield Piece(part, glob=has_glob(part))


def _with_tilde(pieces: list[Piece], scope: Scope) -> list[Piece]:
    first = pieces[0] if pieces else None
    if first is None or first.quoted or first.split or not first.text.startswith("~"):
        return pieces
    prefix, slash, rest = first.text.partition("/")
    if not slash and len(pieces) > 1 and "{" not in first.text:
        return pieces
    known = {"~": _home(scope), "~+": scope.directory() or UNKNOWN, "~-": _text(scope.variable("OLDPWD"))}
    known["~root"] = "/root"
    return [Piece(known.get(prefix, UNKNOWN), quoted=True), first._replace(text=slash + rest), *pieces[1:]]


def _home(scope: Scope) -> str:
    """A tilde is the value of HOME, set in the text or not (bash(1), "Tilde Expansion")."""
    return _text(scope.variable("HOME"))


def _text(value: Value | None) -> str:
    return value[0].text if value else UNKNOWN


def _split(pieces: list[Piece], separators: str | None) -> list[Word]:
    """Word splitting of what expansions left unquoted."""
    words: list[Word] = []
    current: list[Piece] = []
    loose = False

    def finish() -> None:
        if current:
            text = "".join(piece.text for piece in current)
            words.append(Word(text, any(piece.glob for piece in current), makers(current)))
        current.clear()

    for piece in pieces:
        if piece.ends:
            finish()
        elif not piece.split:
            if piece.text or piece.quoted:
                current.append(piece)
        elif separators is None and piece.text:
            loose = True
            current.append(piece._replace(text=UNKNOWN))
        else:
            loose |= UNKNOWN in piece.text
            for index, part in enumerate(_fields_of(piece.text, separators or "")):
                if index % 2:
                    finish()
                elif part:
                    current.append(piece._replace(text=part))
    finish()
    if loose and not (len(words) == 1 and words[0].text == UNKNOWN):
        words.append(Word(UNKNOWN, made_by=makers(pieces)))
    return words


def _fields_of(text: str, separators: str) -> list[str]:
    """Parts at the even positions, what separates them at the odd ones."""
    if separators == " \t\n":
        return _BLANKS.split(text)
    return re.split(f"([{re.escape(separators)}]+)", text) if separators else [text]
