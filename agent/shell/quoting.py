"""What quotes stand for: the inside of ``$'…'`` (bash(1), "QUOTING")."""

from __future__ import annotations

import re


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
