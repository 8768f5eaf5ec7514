"""Parameter expansion: ``$x`` and every form of ``${…}`` (bash(1), "Parameter Expansion").

Rules: a form that is not understood, or a value that is not known, is UNKNOWN and keeps where it came from; a number
that is not known is some digits (no path or option is hidden in digits); patterns are bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import tree_sitter

from agent.policy.request import UNKNOWN
from agent.shell.arithmetic import evaluate
from agent.shell.patterns import cut_prefix, cut_suffix, replaced
from agent.shell.pieces import ANYTHING, MAX_FIELDS, NOTHING, Piece, Value, Word, has_glob, joined_words, makers
from agent.shell.quoting import unquote_ansi
from agent.shell.syntax import Source

if TYPE_CHECKING:
    from agent.shell.fold import Scope

type Pieces = Callable[..., Iterator[Piece]]

_DIGITS = frozenset(("?", "$", "!", "#", "RANDOM", "UID", "EUID", "PPID", "SECONDS", "LINENO", "BASHPID", "SRANDOM"))
_DEFAULTS = frozenset((":-", "-", ":=", "=", ":+", "+", ":?", "?"))
_CASES: dict[str, Callable[[str], str]] = {
    "^^": str.upper,
    ",,": str.lower,
    "^": lambda text: text[:1].upper() + text[1:],
    ",": lambda text: text[:1].lower() + text[1:],
    "~~": str.swapcase,
    "~": lambda text: text[:1].swapcase() + text[1:],
}
_TRANSFORMS: dict[str, Callable[[str], str]] = {
    "U": str.upper,
    "L": str.lower,
    "u": _CASES["^"],
    "E": unquote_ansi,
    "Q": lambda text: "'" + text.replace("'", "'\\''") + "'",
}


def variable(name: str, scope: Scope, quoted: bool) -> Iterator[Piece]:
    """``$name``."""
    if name in _DIGITS or name in ("EPOCHSECONDS", "EPOCHREALTIME"):
        yield Piece("0", quoted=True)
    elif name == "-":
        yield Piece("himBHc", quoted=True)
    else:
        yield from _value(scope.variable(name), quoted, every=name in ("@", "*"), join=name == "*", scope=scope)


def _value(value: Value | None, quoted: bool, *, every: bool, join: bool = False, scope: Scope) -> Iterator[Piece]:
    if value is None:
        yield Piece(UNKNOWN, quoted=quoted and not every, split=not quoted or every)
        return
    if join and quoted and every:
        whole = joined_words(value)
        known = (scope.separators() or "")[:1] == " " or len(value) < 2
        yield Piece(whole.text if known else UNKNOWN, quoted=True, glob=whole.glob, made_by=whole.made_by)
        return
    for index, word in enumerate(value if every else value[:1]):
        if index > MAX_FIELDS:
            yield Piece(UNKNOWN, split=True, made_by=makers(value))
            return
        if index:
            yield Piece("", ends=True)
        glob = word.glob or (not quoted and has_glob(word.text))
        loose = every and word.text == UNKNOWN
        yield Piece(word.text, quoted and not loose, not quoted or loose, glob, made_by=word.made_by)


def braced(node: tree_sitter.Node, source: Source, scope: Scope, quoted: bool, pieces: Pieces) -> Iterator[Piece]:
    """``${…}``."""
    scope.look_into(node)
    children = [child for child in node.children if child.type not in ("${", "}")]
    if children and children[0].type == "#":
        yield Piece(_length(source.text(node), scope), quoted=True)
        return
    indirect = bool(children) and children[0].type == "!"
    children = children[indirect:]
    name, index = _subject(children[0], source) if children else (None, "")
    operator, rest = (children[1].type, children[2:]) if len(children) > 1 else ("", [])
    if name is None or (indirect and operator in ("@", "*", "[")):
        yield _unknown(quoted)
        return
    if not index and not indirect and not operator:
        yield from variable(name, scope, quoted)
        return
    every = index in ("@", "*") or (not index and name in ("@", "*"))
    value = _element(scope.variable(name), index, scope, every)
    if indirect:
        value = _pointed(value, scope)
    if operator in _DEFAULTS:
        assigned = name if operator in ("=", ":=") and not index and not indirect else None
        yield from _defaulted(
            operator, rest, value, quoted, scope=scope, pieces=pieces, source=source, assigned=assigned
        )
        return
    value = _transformed(
        operator, rest, value, scope=scope, source=source, pieces=pieces, positional=name in ("@", "*")
    )
    yield from _value(value, quoted, every=every, join="*" in (name, index), scope=scope)


def _unknown(quoted: bool) -> Piece:
    return Piece(UNKNOWN, quoted=quoted, split=not quoted)


def _subject(node: tree_sitter.Node, source: Source) -> tuple[str | None, str]:
    """The name and the text between its square brackets."""
    if node.type in ("variable_name", "special_variable_name"):
        return source.text(node), ""
    if node.type == "subscript":
        name, _, index = source.text(node).removesuffix("]").partition("[")
        return name, index
    return None, ""


def _element(value: Value | None, index: str, scope: Scope, every: bool) -> Value | None:
    """What ``[index]`` takes of an array; the first element without one."""
    if value is None or every:
        return value
    if not index:
        return value[:1]
    at = evaluate(index, scope.variable)
    if at is None:
        return (Word(UNKNOWN, made_by=makers(value)),)
    if -len(value) <= at < len(value):
        return (value[at],)
    return (NOTHING,) if all(word.known for word in value) else (Word(UNKNOWN, made_by=makers(value)),)


def _pointed(value: Value | None, scope: Scope) -> Value | None:
    """``${!x}``: the variable that x names."""
    name = value[0].text if value else UNKNOWN
    return scope.variable(name) if name.isidentifier() or name.isdecimal() else None


def _length(text: str, scope: Scope) -> str:
    """``${#x}``, ``${#x[@]}``."""
    name, _, index = text[3:-1].rstrip("]").partition("[")
    value = scope.variable(name) if name.isidentifier() else None
    if value is None or not all(word.known for word in value):
        return "0"
    return str(len(value)) if index in ("@", "*") else str(len(value[0].text) if value else 0)


def _defaulted(
    operator: str,
    rest: Sequence[tree_sitter.Node],
    value: Value | None,
    quoted: bool,
    *,
    scope: Scope,
    pieces: Pieces,
    source: Source,
    assigned: str | None,
) -> Iterator[Piece]:
    if value is None or operator in (":?", "?") or any(not word.known for word in value):
        if assigned is not None:
            scope.define(assigned, None)
        yield from _value(value, quoted, every=False, scope=scope)
        return
    has_text = any(word.text for word in value)
    if (operator in ("+", ":+")) == has_text:
        found = [piece for node in rest for piece in pieces(node, source, scope, quoted=quoted)]
        if assigned is not None:
            scope.define(assigned, (Word("".join(p.text for p in found), made_by=makers(found)),))
        for piece in found:
            yield piece._replace(split=not piece.quoted)
    elif has_text:
        yield from _value(value, quoted, every=False, scope=scope)


def _transformed(
    operator: str,
    rest: Sequence[tree_sitter.Node],
    value: Value | None,
    *,
    scope: Scope,
    source: Source,
    pieces: Pieces,
    positional: bool,
) -> Value | None:
    """`value` after the operator behind it; unknown where that is not understood."""
    if not operator or value is None:
        return value

    def text_of(nodes: Sequence[tree_sitter.Node]) -> str:
        return "".join(_literal(node, source, scope, pieces) for node in nodes)

    if operator == ":":
        return _sliced(value, [text_of([node]) for node in rest if node.type != ":"], scope, positional)
    changed = [_changed(operator, rest, word.text, text_of) for word in value]
    return tuple(
        Word(UNKNOWN if text is None or not word.known else text, word.glob, word.made_by)
        for text, word in zip(changed, value, strict=True)
    )


def _changed(
    operator: str, rest: Sequence[tree_sitter.Node], text: str, text_of: Callable[[Sequence[tree_sitter.Node]], str]
) -> str | None:
    if operator in _CASES:
        return None if rest else _CASES[operator](text)
    if operator == "@" and len(rest) == 1:
        transform = _TRANSFORMS.get(rest[0].type)
        return transform(text) if transform is not None else None
    if operator in ("#", "##"):
        return cut_prefix(text, text_of(rest), longest=operator == "##")
    if operator in ("%", "%%"):
        return cut_suffix(text, text_of(rest), longest=operator == "%%")
    if operator in ("/", "//", "/#", "/%"):
        cut = next((i for i, node in enumerate(rest) if node.type == "/"), len(rest))
        return replaced(text, text_of(rest[:cut]), text_of(rest[cut + 1 :]), operator)
    return None


def _literal(node: tree_sitter.Node, source: Source, scope: Scope, pieces: Pieces) -> str:
    if node.type == "regex":
        text = source.text(node)
        cut = (len(text) - len(text.rstrip("\\"))) % 2  # the grammar ends a pattern at an escaped slash
        return UNKNOWN if cut or any(mark in text for mark in "$`'\"") else text
    return "".join(piece.text for piece in pieces(node, source, scope, quoted=True))


def _sliced(value: Value, bounds: Sequence[str], scope: Scope, positional: bool) -> Value:
    """``${x:start:length}``, of a text or of the elements of an array."""
    numbers = [evaluate(text, scope.variable) for text in bounds]
    if not numbers or len(numbers) > 2 or None in numbers:
        return tuple(Word(UNKNOWN, made_by=word.made_by) for word in value) or (ANYTHING,)
    start, length = numbers[0] or 0, numbers[1] if len(numbers) > 1 else None
    if positional or len(value) > 1:
        items = (ANYTHING, *value) if positional else value
        return items[_span(start, length, len(items))]
    word = value[0] if value else NOTHING
    if not word.known:
        return (word,)
    return (word._replace(text=word.text[_span(start, length, len(word.text))]),)


def _span(start: int, length: int | None, size: int) -> slice:
    begin = max(size + start, 0) if start < 0 else start
    end = size if length is None else (begin + length if length >= 0 else size + length)
    return slice(begin, max(end, begin))
