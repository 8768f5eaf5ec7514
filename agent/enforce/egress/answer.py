"""What a refused or failed request is told. Pure.

Rules kept here: everything that did not come from this file is escaped before it is shown (no control, bidi or escape
characters; header values are visible ASCII); an answer ends the connection; the text says what was refused, by which
rule, and what to do instead.
"""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from typing import Final

_PHRASES: Final = {
    400: "Bad Request",
    403: "Forbidden",
    408: "Request Timeout",
    421: "Misdirected Request",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `rule` is empty where no rule refused (malformed, upstream failed)."""

    status: int
    reason: str
    rule: str = ""
    instead: str = ""
    request_id: str = ""


def render_answer(answer: Answer, *, as_json: bool = False, bodiless: bool = False) -> bytes:
    """The bytes of an answer. `bodiless`: to a HEAD request."""
    if as_json:
        verdict = "deny" if answer.rule else "error"
        body = json.dumps(
            {
                "verdict": verdict,
                "rule": visible(answer.rule) or None,
                "reason": visible(answer.reason),
                "instead": visible(answer.instead) or None,
                "request_id": answer.request_id,
            },
            ensure_ascii=True,
        )
    else:
        what = f"denied by {visible(answer.rule)}: " if answer.rule else ""
        body = f"parhelia: {what}{visible(answer.reason)}" + (f". {visible(answer.instead)}" if answer.instead else "")
    data = body.encode() + b"\n"
    kind = "application/json" if as_json else "text/plain; charset=utf-8"
    rule = f"X-Parhelia-Rule: {_ascii(answer.rule)}\r\n" if answer.rule else ""
    head = (
        f"HTTP/1.1 {answer.status} {_PHRASES[answer.status]}\r\n{rule}Content-Type: {kind}\r\n"
        f"Content-Length: {len(data)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + (b"" if bodiless else data)


def visible(text: str) -> str:
    """`text` with every character that is not shown, or that changes how others are shown, as a \\u escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"\\u{ord(character):04x}" if unicodedata.category(character) in _HIDDEN else character for character in text
    )


def _ascii(text: str) -> str:
    return "".join(character if " " < character <= "~" else "?" for character in text)
