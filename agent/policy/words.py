"""Words that reach a model or a terminal: shown so that they cannot act.

Rules kept here: no control, escape, bidi or other invisible character passes; a policy that holds one is refused, text
from outside is escaped; what is shown is bounded in length.
"""

from __future__ import annotations

import unicodedata

LONGEST = 300
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def hidden_character(text: str) -> str | None:
    """The first character that would not be seen as itself, None where there is none."""
    if text.isascii() and text.isprintable():  # nearly always; a policy has thousands
        return None
    return next((character for character in text if _is_hidden(character)), None)


def shown(text: str) -> str:
    """`text` escaped for display and cut to `LONGEST` characters."""
    cut = text if len(text) <= LONGEST else text[:LONGEST] + "…"
    if text.isascii() and text.isprintable():  # nearly always; decisions are on the path of every connection
        return cut
    return "".join(_escaped(character) if _is_hidden(character) else character for character in cut)


def _is_hidden(character: str) -> bool:
    return not " " <= character <= "~" and unicodedata.category(character) in _HIDDEN


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
