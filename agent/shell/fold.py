"""Words: quotes, escapes, braces, tildes and known variables folded away (bash(1), "EXPANSION").

Rules: what is not known becomes UNKNOWN, never a guess; an unquoted unknown may be any number of words; a word keeps
whether the shell has still to expand its ``*``, ``?`` and ``[``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import tree_sitter

from agent.policy.request import UNKNOWN
from agent.shell.syntax import MAX_TEXT, Source

MAX_FIELDS = 256
MAX_BRACES = 32
_BLANKS = " \t\n"
_GLOB = re.compile(r"[*?\[]")


class Word(NamedTuple):
    """One word after folding. `glob`: still to be expanded against the file system."""

    text: str
    glob: bool = False

    @property
    def known(self) -> bool:
        return UNKNOWN not in self.text


type Value = tuple[Word, ...]
"""What a variable holds: one word, or the elements of an array."""


class Piece(NamedTuple):
    """A part of a word. `split`: the unquoted result of an expansion. `ends`: a field ends here (``"$@"``)."""

    text: str
    quoted: bool = False
    split: bool = False
    glob: bool = False
    ends: bool = False


class Scope(Protocol):
    """What folding asks of whoever walks the text."""

    home: str

    def variable(self, name: str) -> Value | None:
        """What `name` holds, None where that is not known."""

    def splits_at_blanks(self) -> bool:
        """True where IFS is what it is by default."""

    def directory(self) -> str | None:
        """The current directory, None where it is not known."""

    def substitution(self, node: tree_sitter.Node) -> Word:
        """Look into a command or process substitution; the text it leaves, UNKNOWN where that is not known."""

    def look_into(self, node: tree_sitter.Node) -> None:
        """Look into the substitutions anywhere under `node`."""


def fields(node: tree_sitter.Node, source: Source, scope: Scope) -> list[Word]:
    """The words that `node` becomes where the shell splits it."""
    pieces = _with_tilde(list(_pieces(node, source, scope, quoted=False)), scope)
    words: list[Word] = []
    for alternative in _braces(pieces):
        words += _split(alternative)
        if len(words) > MAX_FIELDS:
            return [*words[:MAX_FIELDS], Word(UNKNOWN)]
    return words


def single(node: tree_sitter.Node, source: Source, scope: Scope) -> Word:
    """The one word that `node` becomes where the shell does not split (assignments, redirections, here-strings)."""
    pieces = _with_tilde(list(_pieces(node, source, scope, quoted=False)), scope)
    if sum(len(piece.text) for piece in pieces) > MAX_TEXT:
        return Word(UNKNOWN)
    return Word("".join(p.text for p in pieces), any(p.glob for p in pieces))


def heredoc_text(body: tree_sitter.Node, source: Source, scope: Scope, *, literal: bool) -> str:
    """The text of a here-document; with an unquoted delimiter its expansions are folded."""
    if literal:
        return source.text(body)
    return "".join(piece.text for piece in _spans(body, source, scope, _unescape_double))


def unquote_ansi(text: str) -> str:
    """The inside of ``$'…'`` decoded (bash(1), "QUOTING")."""
    return _ANSI.sub(_ansi_character, text)


_ANSI = re.compile(
    r"\\(?:x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{1,4})|U([0-9A-Fa-f]{1,8})|([0-7]{1,3})|c(.)|(.))", re.DOTALL
)
_ANSI_NAMED = {"a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _ansi_character(match: re.Match[str]) -> str:
    hexadecimal = match[1] or match[2] or match[3]
    if hexadecimal:
        code = int(hexadecimal, 16)
        return chr(code) if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000 else ""
    if match[4]:
        return chr(int(match[4], 8) & 0xFF) if int(match[4], 8) & 0xFF else ""
    if match[5]:
        return chr(ord(match[5]) & 0x1F)
    return _ANSI_NAMED.get(match[6], match[6] if match[6] in "\\'\"?" else "\\" + match[6])


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
            yield from _variable(source.text(node)[1:], scope, quoted)
        case "expansion":
            yield from _braced(node, source, scope, quoted)
        case "command_substitution":
            word = scope.substitution(node)
            yield Piece(word.text, quoted=quoted, split=not quoted, glob=word.glob)
        case "process_substitution":
            scope.substitution(node)
            yield Piece("/dev/fd/63", quoted=True)
        case "arithmetic_expansion":
            scope.look_into(node)
            yield Piece("0", quoted=True)
        case _:
            scope.look_into(node)
            yield from _unescape_bare(source.text(node))


def _spans(
    node: tree_sitter.Node, source: Source, scope: Scope, unescape: _Unescape, *, strip: bool = False
) -> Iterator[Piece]:
    """The children that expand, and the literal text around and between them (the grammar leaves gaps)."""
    start, end = node.start_byte, node.end_byte
    if strip:
        start += 1
        end -= source.data[end - 1 : end] == b'"' and end - 1 > node.start_byte
    expanding = ("simple_expansion", "expansion", "command_substitution", "arithmetic_expansion")
    for child in node.children:
        if child.type in expanding:
            yield Piece(unescape(source.slice(start, child.start_byte)), quoted=True)
            yield from _pieces(child, source, scope, quoted=True)
            start = child.end_byte
    yield Piece(unescape(source.slice(start, end)), quoted=True)


class _Unescape(Protocol):
    def __call__(self, text: str, /) -> str: ...


def _unescape_double(text: str) -> str:
    return re.sub(r'\\([$`"\\\n])', lambda m: "" if m[1] == "\n" else m[1], text) if "\\" in text else text


def _unescape_bare(text: str) -> Iterator[Piece]:
    for index, part in enumerate(re.split(r"\\(.|\n)", text, flags=re.DOTALL)):
        if index % 2:
            yield Piece("" if part == "\n" else part, quoted=True)
        elif part:
            yield Piece(part, glob=_GLOB.search(part) is not None)


def _variable(name: str, scope: Scope, quoted: bool) -> Iterator[Piece]:
    if name in "?$!#" or name in ("RANDOM", "UID", "EUID", "PPID", "SECONDS", "LINENO", "BASHPID", "EPOCHSECONDS"):
        yield Piece("0", quoted=True)  # digits, whatever they are
        return
    if name == "-":
        yield Piece("himBHc", quoted=True)
        return
    yield from _value(_splittable(scope.variable(name), scope, quoted), quoted, every=name in ("@", "*"))


def _splittable(value: Value | None, scope: Scope, quoted: bool) -> Value | None:
    """Where IFS was set, an unquoted value becomes words that are not known here."""
    return value if quoted or scope.splits_at_blanks() else None


def _value(value: Value | None, quoted: bool, *, every: bool) -> Iterator[Piece]:
    if value is None:
        yield Piece(UNKNOWN, quoted=quoted and not every, split=not quoted or every)
        return
    for index, word in enumerate(value if every else value[:1]):
        if index:
            yield Piece("", ends=True)
        glob = word.glob or (not quoted and _GLOB.search(word.text) is not None)
        yield Piece(word.text, quoted=quoted, split=not quoted, glob=glob)


_OPERATORS = frozenset((":-", "-", ":=", "=", ":+", "+", ":?", "?"))


def _braced(node: tree_sitter.Node, source: Source, scope: Scope, quoted: bool) -> Iterator[Piece]:
    """``${…}``: the plain form, arrays and the default operators; anything else is unknown unless it is a length."""
    scope.look_into(node)
    children = [child for child in node.children if child.type not in ("${", "}")]
    kinds = [child.type for child in children]
    if kinds[:1] == ["#"]:
        yield Piece("0", quoted=True)
        return
    every = False
    name = None
    if kinds and kinds[0] in ("variable_name", "special_variable_name"):
        name = source.text(children[0])
    elif kinds[:1] == ["subscript"]:
        name, _, index = source.text(children[0]).rstrip("]").partition("[")
        every = index in ("@", "*")
        name = name if every or index == "0" else None
    if name is None or (len(children) > 1 and kinds[1] not in _OPERATORS):
        yield Piece(UNKNOWN, quoted=quoted, split=not quoted)
        return
    if len(children) == 1:
        yield from _value(scope.variable(name), quoted, every=True) if every else _variable(name, scope, quoted)
        return
    yield from _defaulted(kinds[1], children[2:], scope.variable(name), source=source, scope=scope, quoted=quoted)


def _defaulted(
    operator: str, rest: Sequence[tree_sitter.Node], value: Value | None, *, source: Source, scope: Scope, quoted: bool
) -> Iterator[Piece]:
    if value is None or operator in (":?", "?"):
        yield from _value(value, quoted, every=False)
        return
    has_text = any(word.text for word in value)
    if (operator in ("+", ":+")) == has_text:
        for node in rest:
            for piece in _pieces(node, source, scope, quoted=quoted):
                yield piece._replace(split=not piece.quoted)
    elif has_text:
        yield from _value(value, quoted, every=False)


def _with_tilde(pieces: list[Piece], scope: Scope) -> list[Piece]:
    first = pieces[0] if pieces else None
    if first is None or first.quoted or first.split or not first.text.startswith("~"):
        return pieces
    prefix, slash, rest = first.text.partition("/")
    if not slash and len(pieces) > 1 and "{" not in first.text:
        return pieces
    known = {"~": scope.home, "~+": scope.directory() or UNKNOWN, "~root": "/root"}
    return [Piece(known.get(prefix, UNKNOWN), quoted=True), first._replace(text=slash + rest), *pieces[1:]]


_HELD = 0x100000  # private use: one stand-in for each piece that braces do not look into


def _braces(pieces: list[Piece]) -> list[list[Piece]]:
    """Brace expansion (it comes before all others)."""
    opened = sum(p.text.count("{") for p in pieces if not p.quoted and not p.split)
    if not opened:
        return [pieces]
    if opened > MAX_BRACES or len(pieces) > 0xFFFF:
        return [[Piece(UNKNOWN, split=True)]]
    plain = "".join(p.text if not (p.quoted or p.split or p.ends) else chr(_HELD + i) for i, p in enumerate(pieces))
    expanded = list(itertools.islice(_expand(plain, 0), MAX_FIELDS + 1))
    if len(expanded) > MAX_FIELDS:
        return [[Piece(UNKNOWN, split=True)]]
    return [_restored(text, pieces) for text in expanded]


def _restored(text: str, pieces: list[Piece]) -> list[Piece]:
    found: list[Piece] = []
    for part in re.split(f"([{chr(_HELD)}-{chr(_HELD + 0xFFFF)}])", text):
        held = ord(part) - _HELD if len(part) == 1 and ord(part) >= _HELD else -1
        if 0 <= held < len(pieces):
            found.append(pieces[held])
        elif part:
            found.append(Piece(part, glob=_GLOB.search(part) is not None))
    return found


def _expand(text: str, depth: int) -> Iterator[str]:
    """Every text that the braces of `text` stand for."""
    start = text.find("{")
    while start >= 0 and depth < 16:
        end, parts = _group(text, start)
        if parts is not None:
            for part in parts:
                for head in _expand(part, depth + 1) if len(parts) > 1 or "{" in part else (part,):
                    for tail in _expand(text[end + 1 :], depth + 1):
                        yield text[:start] + head + tail
            return
        start = text.find("{", start + 1)
    yield text


def _group(text: str, start: int) -> tuple[int, list[str] | None]:
    depth, parts, begin = 0, [], start + 1
    for index in range(start, len(text)):
        char = text[index]
        if char == "{":
            depth += 1
        elif char == "," and depth == 1:
            parts.append(text[begin:index])
            begin = index + 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                inner = text[begin:index]
                return index, [*parts, inner] if parts else _sequence(inner)
    return len(text), None


def _sequence(inner: str) -> list[str] | None:
    found = re.fullmatch(r"(-?\d{1,6})\.\.(-?\d{1,6})|([A-Za-z])\.\.([A-Za-z])", inner)
    if found is None:
        return None
    if found[1]:
        low, high = sorted((int(found[1]), int(found[2])))
        return [str(number) for number in range(low, min(high, low + MAX_FIELDS) + 1)]
    low, high = sorted((ord(found[3]), ord(found[4])))
    return [chr(code) for code in range(low, high + 1)]


def _split(pieces: list[Piece]) -> list[Word]:
    """Word splitting of what expansions left unquoted."""
    words: list[Word] = []
    current: list[str] = []
    present = glob = loose = False

    def finish() -> None:
        nonlocal present, glob
        if present:
            words.append(Word("".join(current), glob))
        current.clear()
        present = glob = False

    for piece in pieces:
        if piece.ends:
            finish()
            continue
        if not piece.split:
            current.append(piece.text)
            present |= bool(piece.text) or piece.quoted
            glob |= piece.glob
            continue
        loose |= UNKNOWN in piece.text
        for index, part in enumerate(re.split(f"([{_BLANKS}]+)", piece.text)):
            if index % 2:
                finish()
            elif part:
                current.append(part)
                present = True
                glob |= piece.glob
    finish()
    if loose and words != [Word(UNKNOWN)]:
        words.append(Word(UNKNOWN))
    return words
