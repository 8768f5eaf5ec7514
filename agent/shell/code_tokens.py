"""Inline code as tokens: literals with their text decoded, names, single characters.

Rules: comments and blanks are left out; what stands for the same thing becomes the same tokens, so that one reader of
calls is enough: aliases of imports, variables that are assigned a literal once, literals that the code decodes itself
(base64, hex), ``x["name"](…)``. What is interpolated into a literal is UNKNOWN.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from agent.expressions import expression
from agent.policy.request import UNKNOWN

_COMMENT = {"node": "//", "lua": "--", "other": "//", "lisp": ";"}
_HASH_COMMENT = "#"
_LEXER = expression(
    r"(?P<triple>[rbuRBU]{0,2}(?:\'\'\'.*?(?:\'\'\'|\Z)|\"\"\".*?(?:\"\"\"|\Z)))"
    r"|(?P<string>[rbufRBUF]{0,2}(?:'(?:[^'\\]|\\.)*+(?:'|\\?\Z)|\"(?:[^\"\\]|\\.)*+(?:\"|\\?\Z)))"
    r"|(?P<tick>`(?:[^`\\]|\\.)*+(?:`|\\?\Z))"
    r"|(?P<name>[A-Za-z_$@][\w$]*(?:(?:\?\.|\.|::|->)[A-Za-z_]\w*)*)"
    r"|(?P<number>\d[\w.]*)"
    r"|(?P<comment>\#[^\n]*|//[^\n]*|--[^\n]*|/\*.*?(?:\*/|\Z))"
    r"|(?P<space>\s+)"
    r"|(?P<other>.)",
    re.DOTALL,
)
"""Every alternative that can be left open ends at the end of the text too, so that no start is scanned twice."""

_QUOTE_LIKE = expression(r"(?:%x|qx|%w|%q|%Q|qq|q|qw)\s*([\[{(</|!])")
_CLOSING = {"[": "]", "{": "}", "(": ")", "<": ">"}
_INTERPOLATED = frozenset(("perl", "ruby", "php", "node", "julia", "tcl"))
_TEXTS = frozenset(("string", "triple"))
_DECODED = frozenset(
    [
        *("b64decode", "standard_b64decode", "urlsafe_b64decode", "decodebytes", "atob", "decode64", "base64_decode"),
        *("urlsafe_decode64", "strict_decode64", "decode_base64", "fromhex", "unhexlify", "from", "hex2bin"),
    ]
)
_UNCHANGED = frozenset(
    ["toString", "decode", "encode", "strip", "trim", "chomp", "to_s", "freeze", "valueOf", "as_posix", "resolve"]
)
_WRAPPED = frozenset(
    ["expanduser", "fspath", "Path", "PurePath", "PosixPath", "Pathname", "str", "String", "abspath", "realpath"]
)
_SIGILS = frozenset(("perl", "php", "ruby", "awk"))
_ROUNDS = 3
_LONGEST_FOLDED = 20_000  # tokens; longer code is read as it stands


class Token(NamedTuple):
    kind: str
    text: str

    @property
    def is_text(self) -> bool:
        return self.kind in _TEXTS

    def is_mark(self, text: str) -> bool:
        """Is it this character, outside a literal?"""
        return self.text == text and self.kind == "other"


def tokens_of(code: str, language: str) -> list[Token]:
    """The tokens of `code`, folded."""
    tokens = _without_aliases(list(_tokens(code, language)))
    if len(tokens) > _LONGEST_FOLDED or not any(token.is_text for token in tokens):
        return tokens
    for _ in range(_ROUNDS):
        before = len(tokens)
        tokens = _joined(_with_values(_decoded(tokens)))
        if len(tokens) == before:
            break
    return tokens


def last_name(token: Token) -> str:
    """``system`` of ``os.system``."""
    return re.split(r"\.|::|->", token.text)[-1]


def _without_aliases(tokens: list[Token]) -> list[Token]:
    """Python's ``import … as NAME``: the name is put back."""
    aliases: dict[str, str] = {}
    for index in range(1, len(tokens) - 1):
        if tokens[index].text == "as":
            before, after = tokens[index - 1], tokens[index + 1]
            if before.kind == after.kind == "name":
                aliases[after.text] = before.text
    if not aliases:
        return tokens
    return [Token(t.kind, aliases.get(t.text, t.text)) if t.kind == "name" else t for t in tokens]


def _decoded(tokens: list[Token]) -> list[Token]:
    """Literals that are decoded or passed through where they stand: ``b64decode("…")``, ``"…".toString()``."""
    found: list[Token] = []
    index = 0
    while index < len(tokens):
        token = tokens[index]
        name = last_name(token) if token.kind == "name" else ""
        if name in _DECODED or name in _WRAPPED:
            end, text = _one_literal(tokens, index + 1)
            if end and name in _DECODED:
                text = _decode(text, tokens[index + 1 : end], name)
            if end and text is not None:
                found.append(Token("string", text))
                index = end
                continue
        if (
            token.is_mark(".")
            and found
            and found[-1].is_text
            and index + 1 < len(tokens)
            and last_name(tokens[index + 1]) in _UNCHANGED
        ):
            index = _behind_call(tokens, index + 2)
            continue
        if _is_looked_up(tokens[index : index + 4]):
            found.append(Token("name", tokens[index + 1].text))
            index += 3
            continue
        found.append(token)
        index += 1
    return found


def _is_looked_up(tokens: Sequence[Token]) -> bool:
    """``["system"](`` behind an object."""
    return (
        len(tokens) == len('["x"](') - 2
        and tokens[0].is_mark("[")
        and tokens[1].is_text
        and tokens[2].is_mark("]")
        and tokens[3].is_mark("(")
    )


def _one_literal(tokens: Sequence[Token], start: int) -> tuple[int, str | None]:
    """Behind ``( LITERAL [, …] )`` and its literal; 0 where something else stands there."""
    if start + 2 >= len(tokens) or not tokens[start].is_mark("(") or not tokens[start + 1].is_text:
        return 0, None
    end = start + 2
    while end < len(tokens) and (tokens[end].is_mark(",") or tokens[end].is_text):
        end += 1
    if end < len(tokens) and tokens[end].is_mark(")"):
        return end + 1, tokens[start + 1].text
    return 0, None


def _decode(text: str | None, call: Sequence[Token], name: str) -> str | None:
    """The decoded literal, None where it is none of these codings."""
    codings = [token.text for token in call if token.is_text][1:]
    if text is None or (name == "from" and not codings):
        return None
    try:
        if "hex" in codings or name in ("fromhex", "unhexlify", "hex2bin"):
            return bytes.fromhex(text).decode("latin-1")
        if name == "from" and codings[0] not in ("base64", "base64url"):
            return text
        plain = text.replace("-", "+").replace("_", "/").rstrip("=")
        return base64.b64decode(plain + "=" * (-len(plain) % 4)).decode("latin-1")
    except (ValueError, binascii.Error):
        return None


def _behind_call(tokens: Sequence[Token], start: int) -> int:
    if start >= len(tokens) or not tokens[start].is_mark("("):
        return start
    depth = 0
    for index in range(start, len(tokens)):
        if tokens[index].kind == "other":
            depth += (tokens[index].text in "([{") - (tokens[index].text in ")]}")
            if depth == 0:
                return index + 1
    return len(tokens)


def _with_values(tokens: list[Token]) -> list[Token]:
    """Names that are assigned one literal and nothing else stand for it where they are used."""
    values: dict[str, str] = {}
    several: set[str] = set()
    around: list[str] = []  # the brackets that are open
    for index in range(1, len(tokens) - 1):
        name, sign, value = tokens[index - 1], tokens[index], tokens[index + 1]
        if name.kind == "other" and name.text in "([{":
            around.append(name.text)
        elif name.kind == "other" and name.text in ")]}" and around:
            around.pop()
        if not sign.is_mark("=") or value.is_mark("=") or value.is_mark(">") or (around and around[-1] != "{"):
            continue
        if name.kind != "name":  # x += …
            several.add(tokens[index - 2].text if index > 1 else "")
            continue
        after = tokens[index + 2] if index + 2 < len(tokens) else Token("other", ";")
        if not value.is_text or name.text in values or (after.kind == "other" and after.text in "+.%[*"):
            several.add(name.text)
        else:
            values[name.text] = value.text
    known = {name: text for name, text in values.items() if name not in several}
    if not known:
        return tokens
    found: list[Token] = []
    for index, token in enumerate(tokens):
        assigned = index + 1 < len(tokens) and tokens[index + 1].is_mark("=")
        if token.kind == "name" and token.text in known and not assigned:
            found.append(Token("string", known[token.text]))
        else:
            found.append(token)
    return found


def _joined(tokens: list[Token]) -> list[Token]:
    """``"a" + "b"`` is one literal."""
    found: list[Token] = []
    index = 0
    while index < len(tokens):
        joins = (
            0 < index < len(tokens) - 1
            and (tokens[index].is_mark("+") or tokens[index].is_mark("."))
            and found[-1].is_text
            and tokens[index + 1].is_text
        )
        if joins:
            found[-1] = Token("string", found[-1].text + tokens[index + 1].text)
            index += 2
        else:
            found.append(tokens[index])
            index += 1
    return found


def _tokens(code: str, language: str) -> Iterator[Token]:
    position = 0
    comment = _COMMENT.get(language, _HASH_COMMENT)
    while position < len(code):
        quoted = _QUOTE_LIKE.match(code, position) if language in ("perl", "ruby") else None
        if quoted is not None and (position == 0 or not (code[position - 1].isalnum() or code[position - 1] in "_$@%")):
            end = code.find(_CLOSING.get(quoted[1], quoted[1]), quoted.end())
            end = len(code) if end < 0 else end
            kind = "tick" if "x" in quoted[0][:2] else "string"
            yield Token(kind, _interpolated(code[quoted.end() : end], language))
            position = end + 1
            continue
        found = _LEXER.match(code, position)
        if found is None:
            break
        kind = found.lastgroup or "other"
        text = found[0]
        if kind == "comment" and not (text.startswith(comment) or text.startswith("/*")):
            kind, text = "other", text[0]
        if kind == "name" and language in _SIGILS:
            text = text[0] + text[1:].partition("$")[0]  # system$_
        position += len(text)
        if kind in ("string", "triple", "tick"):
            yield _literal(kind, text, language)
        elif kind not in ("space", "comment"):
            yield Token(kind, text.lstrip("@") if language == "php" else text)


def _literal(kind: str, text: str, language: str) -> Token:
    prefix = text[: min(text.find(quote) for quote in "'\"`" if quote in text)].lower()
    width = 3 if kind == "triple" else 1
    inner = text[len(prefix) + width : -width]
    quote = text[len(prefix)]
    if "r" not in prefix and "\\" in inner:
        inner = re.sub(r"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[0-7]{3}|.)", _escape, inner, flags=re.DOTALL)
    if "f" in prefix and "{" in inner:
        inner = re.sub(r"\{[^{}]*\}", UNKNOWN, inner)
    elif quote in '"`' and language in _INTERPOLATED:
        inner = _interpolated(inner, language)
    if kind == "tick" and language == "node":
        kind = "string"
    return Token(kind, inner)


def _interpolated(text: str, language: str) -> str:
    if language in ("ruby", "node"):
        return re.sub(r"[#$]\{[^{}]*\}", UNKNOWN, text)
    if language == "julia":
        return re.sub(r"\$(?:\([^()]*\)|\w+)", UNKNOWN, text)
    return re.sub(r"[$@](?:\{[^{}]*\}|\w+)", UNKNOWN, text)


def _escape(match: re.Match[str]) -> str:
    text = match[1]
    if text[0] in "xu" and len(text) > 2:
        return chr(int(text[1:], 16))
    if len(text) == 3:
        return chr(int(text, 8) & 0xFF)
    return {"n": "\n", "t": "\t", "r": "\r", "\n": ""}.get(text, text)
