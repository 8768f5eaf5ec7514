"""Uploads in intercepted traffic, searched for credentials where a rule says `scan`.

Rules kept here: the head is searched before anything of the request is sent, the body, trailers and WebSocket messages
as they flow, each piece before it goes on; what is only observed is reported once and not searched further.
"""

from __future__ import annotations

from agent.enforce.egress.engine_requests import Head, Refusal, printable
from agent.enforce.egress.scan import INSTEAD, Spill, Upload, shapes
from agent.policy.model import Pattern

_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"content-encoding"})


class Search:
    """One request's upload. The methods return why it may not go on, None where it may."""

    def __init__(self, patterns: tuple[Pattern, ...], head: Head) -> None:
        encodings = b",".join(head.values(b"content-encoding")).decode("latin-1")
        length = b",".join(head.values(b"content-length")).decode("latin-1")
        announced = int(length) if length.isdecimal() else None
        self._upload: Upload | None = Upload(shapes(patterns), encodings, announced)

    def stop(self) -> None:
        """Search no more."""
        self._upload = None

    def head(self, head: Head) -> Refusal | None:
        refusal = self.text(head.target, "the URL")
        for name, value in head.headers:
            if refusal is None and name.lower() not in _FRAMING:
                refusal = self.text(
                    name + b": " + value, f"the header field {printable(name.decode('latin-1').lower(), 64)}"
                )
        return refusal

    def text(self, data: bytes, where: str) -> Refusal | None:
        """A piece that is whole."""
        try:
            if self._upload is not None:
                self._upload.text(data, where)
        except Spill as found:
            return _refusal(found)
        return None

    def body(self, data: bytes) -> Refusal | None:
        """The next piece of the body."""
        try:
            if self._upload is not None:
                self._upload.body(data)
        except Spill as found:
            return _refusal(found)
        return None

    def end(self) -> Refusal | None:
        """The body is whole."""
        try:
            if self._upload is not None:
                self._upload.end()
        except Spill as found:
            return _refusal(found)
        return None


def _refusal(found: Spill) -> Refusal:
    return Refusal(403, found.rule, found.reason, INSTEAD)
