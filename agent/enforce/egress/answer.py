"""What a refused or failed request is told. Pure.

Rules kept here: everything that did not come from this file is escaped before it is shown (no control, bidi or escape
characters; the status line and header values are visible ASCII of bounded length; a page holds no markup but ours); an
answer ends the connection; the text says what was refused, by which rule, and what to do instead. Rule and reason are
in the status line and in headers as well: many clients show nothing else of a refused CONNECT.

Sources: RFC 9110 (Accept 12.5.1), RFC 9112 (status line 4).
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Iterable
from enum import Enum, auto
from typing import Final

from agent.values import dataclass

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
_STATUS_MOST: Final = 240
_HEADER_MOST: Final = 500
_ZERO: Final = re.compile(r"\s*q\s*=\s*0(\.0{0,3})?\s*", re.ASCII)
_PAGE: Final = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>\
<style>body{{font:1rem/1.5 sans-serif;max-width:40rem;margin:10vh auto;padding:0 1rem}}</style></head>\
<body><h1>{title}</h1>{paragraphs}</body></html>"""


class Form(Enum):
    """How the body is written."""

    TEXT = auto()
    JSON = auto()
    HTML = auto()

    @staticmethod
    def wanted(accept: Iterable[str]) -> Form:
        """By the values of the Accept field: JSON where it is named, else a page where HTML is, as browsers do."""
        kinds = [kind for value in accept for part in value.lower().split(",") if (kind := _named(part))]
        if any(kind.endswith(("/json", "+json")) for kind in kinds):
            return Form.JSON
        first = next((kind for kind in kinds if kind in ("text/html", "text/plain")), None)
        return Form.HTML if first == "text/html" else Form.TEXT


def _named(part: str) -> str | None:
    """The media type of one element of Accept, None where its weight is zero."""
    kind, *parameters = part.split(";")
    return None if any(map(_ZERO.fullmatch, parameters)) else kind.strip()


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `rule` is empty where no rule refused (malformed, upstream failed); `refused`: the upstream did."""

    status: int
    reason: str
    rule: str = ""
    instead: str = ""
    request_id: str = ""
    refused: bool = False


def render_answer(answer: Answer, *, form: Form = Form.TEXT, bodiless: bool = False) -> bytes:
    """The bytes of an answer. `bodiless`: to a HEAD request."""
    rule, reason = _ascii(answer.rule), _ascii(answer.reason)
    phrase = _PHRASES[answer.status]
    if rule:
        phrase = _cut(f"{phrase} by parhelia: {rule}: {reason}", _STATUS_MOST)
    kind, body = _BODIES[form](answer)
    data = body.encode() + b"\n"
    fields = [f"X-Parhelia-Rule: {rule}"] if rule else []
    fields += [f"X-Parhelia-Reason: {_cut(reason, _HEADER_MOST)}"] if reason.strip() else []
    fields += [
        f"Content-Type: {kind}",
        f"Content-Length: {len(data)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    head = "\r\n".join([f"HTTP/1.1 {answer.status} {phrase}", *fields, "", ""])
    return head.encode("ascii") + (b"" if bodiless else data)


def _text(answer: Answer) -> tuple[str, str]:
    what = f"denied by {visible(answer.rule)}: " if answer.rule else ""
    instead = f". {visible(answer.instead)}" if answer.instead else ""
    return "text/plain; charset=utf-8", f"parhelia: {what}{visible(answer.reason)}{instead}"


def _json(answer: Answer) -> tuple[str, str]:
    fields = {
        "verdict": "deny" if answer.rule else "error",
        "rule": visible(answer.rule) or None,
        "reason": visible(answer.reason),
        "instead": visible(answer.instead) or None,
        "request_id": answer.request_id,
    }
    return "application/json", json.dumps(fields, ensure_ascii=True)


def _page(answer: Answer) -> tuple[str, str]:
    title = f"Denied by {visible(answer.rule)}" if answer.rule else f"{answer.status} {_PHRASES[answer.status]}"
    said = [visible(answer.reason), visible(answer.instead), f"Request {visible(answer.request_id)}"]
    if not answer.request_id:
        said.pop()
    paragraphs = "".join(f"<p>{html.escape(text)}</p>" for text in said if text)
    return "text/html; charset=utf-8", _PAGE.format(title=html.escape(title), paragraphs=paragraphs)


_BODIES: Final = {Form.TEXT: _text, Form.JSON: _json, Form.HTML: _page}


def visible(text: str) -> str:
    """`text` with every character that is not shown, or that changes how others are shown, as a \\u escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"\\u{ord(character):04x}" if unicodedata.category(character) in _HIDDEN else character for character in text
    )


def _ascii(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if " " <= character <= "~" else "?" for character in text)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
