"""HTTP/1 heads and chunked bodies, read strictly. Pure.

Rules kept here: one way to read every message, so that nobody behind us can read it differently: lines end in CR LF, a
header is not folded, a length is given once and in one way, nothing carries NUL or another control character. What
breaks a rule is a `HeadError`, never repaired.

Sources: RFC 9110 (fields, hop-by-hop), RFC 9112 (message syntax 2-3, framing 6, chunks 7.1, smuggling 11.2).
"""

from __future__ import annotations

import re
from typing import Final

from agent.expressions import expression
from agent.policy.http_fields import FRAMING_FIELDS
from agent.values import dataclass

MAX_HEAD: Final = 64 * 1024
MAX_FIELDS: Final = 128
MAX_TRAILERS: Final = 64 * 1024
_JUDGED_EARLY: Final = 2048
"""How much of a head that is not whole is looked at, with every piece that comes: many small ones must stay cheap."""
CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2
_METHOD_OVERRIDES: Final = frozenset({"x-http-method-override", "x-http-method", "x-method-override"})
_PATH_OVERRIDES: Final = frozenset({"x-original-url", "x-rewrite-url", "x-override-url"})
_TWO_WORDS: Final = frozenset(name for name in FRAMING_FIELDS if "-" in name)

_REQUEST: Final = expression(rb"([A-Z][A-Z0-9_-]{0,31}) ([\x21-\x7e]+) HTTP/1\.([01])", re.ASCII)
_STATUS: Final = expression(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t \x21-\x7e\x80-\xff]*))?", re.ASCII)
_FIELD: Final = expression(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t \x21-\x7e\x80-\xff]*)", re.ASCII)
_LENGTH: Final = expression(r"[0-9]{1,18}", re.ASCII)
_CHUNK: Final = expression(rb"([0-9A-Fa-f]{1,15})[ \t]*", re.ASCII)
_START: Final = expression(rb"[A-Z][A-Z0-9_-]{0,31}(?: [\x21-\x7e]*(?: [HTP/1.0]*\r?)?)?", re.ASCII)
_HOP_BY_HOP: Final = FRAMING_FIELDS - {"content-length", "expect"}
_NO_TOKENS: Final[frozenset[str]] = frozenset()
_NEVER_NOMINATED: Final = frozenset({"host", "content-length", "cache-control", "authorization", "expect"})


class HeadError(Exception):
    """Malformed. The text says what is wrong and is fit for an answer."""


type Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A request head. Field names are lower-case; values are latin-1 text. `minor` is the x of HTTP/1.x; `body` the
    bytes of body, or CHUNKED."""

    method: str
    target: str
    minor: int
    fields: Fields
    body: int

    @property
    def host(self) -> str | None:
        return first(self.fields, "host")

    @property
    def persistent(self) -> bool:
        """True where the client wants to go on with this connection."""
        options = tokens(self.fields, "connection") | tokens(self.fields, "proxy-connection")
        return "close" not in options and (self.minor == 1 or "keep-alive" in options)

    @property
    def accept(self) -> tuple[str, ...]:
        """The values of the Accept fields."""
        return tuple(value for name, value in self.fields if name == "accept")


@dataclass(frozen=True, slots=True)
class Response:
    """A response head. `length`: of its body as announced, CHUNKED, or None where nothing is said."""

    status: int
    reason: str
    minor: int
    fields: Fields
    length: int | None

    def body(self, method: str) -> int:
        """Bytes of body in an answer to `method`, CHUNKED or UNTIL_CLOSE."""
        if method == "HEAD" or self.status in (204, 304) or self.status < 200:
            return 0
        return UNTIL_CLOSE if self.length is None else self.length

    @property
    def persistent(self) -> bool:
        options = tokens(self.fields, "connection")
        return "close" not in options and (self.minor == 1 or "keep-alive" in options)


def overrides_method(name: str) -> bool:
    """Is this lower-case name of a field one by which some servers take a request for one of another method? Those that
    make variables of fields take `_` for `-` (RFC 3875 section 4.1.18). Refused where rules look at methods."""
    return name.replace("_", "-") in _METHOD_OVERRIDES


def overrides_path(name: str) -> bool:
    """Is this lower-case name of a field one by which some servers take a request for one of another path? IIS does
    with its rewriting module, and frameworks that serve behind it (CVE-2018-14773). Refused where rules look at paths.
    """
    return name.replace("_", "-") in _PATH_OVERRIDES


def disguised(name: str) -> bool:
    """Does such a server take this lower-case name for that of a field which frames the message?"""
    return "_" in name and name.replace("_", "-") in _TWO_WORDS


def first(fields: Fields, name: str) -> str | None:
    for key, value in fields:
        if key == name:
            return value
    return None


def tokens(fields: Fields, name: str) -> frozenset[str]:
    """The comma-separated words of a field, lower-case."""
    values = [value for key, value in fields if key == name]
    if not values:
        return _NO_TOKENS
    words = (word.strip().lower() for value in values for word in value.split(","))
    return frozenset(word for word in words if word)


def end_of_head(data: bytes | bytearray) -> int | None:
    """Where the head ends (after its empty line), None where more is needed. Raises HeadError if none can come."""
    end = data.find(b"\r\n\r\n")
    if end < 0 and len(data) < MAX_HEAD:
        line, newline, _ = bytes(data[:_JUDGED_EARLY]).partition(b"\n")
        whole = newline and line.endswith(b"\r") and _REQUEST.fullmatch(line[:-1])
        if b"\n\n" in data or not (whole if newline else not line or _START.fullmatch(line)):
            raise HeadError("this is no HTTP/1 request")
        return None
    if end < 0 or end + 4 > MAX_HEAD:
        raise HeadError(f"the request head is longer than {MAX_HEAD} bytes")
    return end + 4


def starts_request(data: bytes | bytearray) -> bool | None:
    """Is this the start of an HTTP/1 request? None: too little to tell."""
    end = data.find(b"\n")
    if end >= 0:
        line = bytes(data[:end])
        return line.endswith(b"\r") and _REQUEST.fullmatch(line[:-1]) is not None
    return None if len(data) < MAX_HEAD and (not data or _START.fullmatch(data[:_JUDGED_EARLY])) else False


def parse_request(head: bytes) -> Request:
    """A whole request head, empty line included. Raises HeadError."""
    line, fields = _split(head)
    match = _REQUEST.fullmatch(line)
    if match is None:
        raise HeadError("the request line is malformed")
    method, target, minor = match.groups()
    if [name for name, _ in fields].count("host") > 1:
        raise HeadError("more than one Host header")
    length = _framing(fields, minor=int(minor))
    return Request(method.decode(), target.decode(), int(minor), fields, 0 if length is None else length)


def parse_response(head: bytes) -> Response:
    """A whole response head, empty line included. Raises HeadError."""
    line, fields = _split(head)
    match = _STATUS.fullmatch(line)
    if match is None:
        raise HeadError("the status line is malformed")
    minor, status, reason = match.groups()
    length = _framing(fields, minor=int(minor))
    return Response(int(status), (reason or b"").decode("latin-1"), int(minor), fields, length)


def end_to_end(fields: Fields) -> list[tuple[str, str]]:
    """The fields that travel on: without hop-by-hop ones and those that Connection names (RFC 9110 7.6.1)."""
    named = (tokens(fields, "connection") | tokens(fields, "proxy-connection")) - _NEVER_NOMINATED
    gone = _HOP_BY_HOP | named if named else _HOP_BY_HOP
    return [field for field in fields if field[0] not in gone]


def render(start: str, fields: list[tuple[str, str]]) -> bytes:
    """A head as bytes."""
    lines = [start, *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _split(head: bytes) -> tuple[bytes, Fields]:
    if not head.endswith(b"\r\n\r\n"):
        raise HeadError("the head is not complete")
    line, *rest = head[:-4].split(b"\r\n")
    if len(rest) > MAX_FIELDS:
        raise HeadError(f"more than {MAX_FIELDS} header fields")
    fields = []
    for raw in rest:
        match = _FIELD.fullmatch(raw)
        if match is None:
            raise HeadError("folded header" if raw[:1] in (b" ", b"\t") else "a header field is malformed")
        name, value = match.groups()
        if disguised(name.decode().lower()):
            raise HeadError("a header field is named like one of the message's framing")
        fields.append((name.decode().lower(), value.decode("latin-1").rstrip(" \t")))
    return line, tuple(fields)


def _framing(fields: Fields, *, minor: int) -> int | None:
    """Content-Length, CHUNKED, or None where neither is given. Raises HeadError where it could be read in two ways."""
    lengths = [value for name, value in fields if name == "content-length"]
    codings = [value.lower() for name, value in fields if name == "transfer-encoding"]
    if lengths and codings:
        raise HeadError("both Content-Length and Transfer-Encoding")
    if codings:
        if codings != ["chunked"] or minor == 0:
            raise HeadError("a Transfer-Encoding other than chunked")
        return CHUNKED
    if not lengths:
        return None
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise HeadError("Content-Length is malformed or given twice")
    return int(lengths[0])


class Chunks:
    """Takes a chunked body apart. Chunk extensions and trailers are dropped; anything else odd is a HeadError."""

    __slots__ = ("_in_trailers", "_left", "_line", "_needs_break", "_trailers", "done", "rest")

    def __init__(self) -> None:
        self._line = bytearray()
        self._left = 0
        self._needs_break = False
        self._in_trailers = False
        self._trailers = 0
        self.done = False
        self.rest = b""  # what followed the body

    def feed(self, data: bytes) -> bytes:
        """The body bytes in `data`. Raises HeadError."""
        body, at = bytearray(), 0
        while at < len(data) and not self.done:
            if self._left:
                piece = data[at : at + self._left]
                body += piece
                self._left -= len(piece)
                self._needs_break = not self._left
                at += len(piece)
            else:
                at = self._take_line(data, at)
        if self.done:
            self.rest += data[at:]
        return bytes(body)

    def _take_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        stop = len(data) if end < 0 else end + 1
        self._line += data[at:stop]
        if len(self._line) > 4096:
            raise HeadError("a chunk line is too long")
        if end >= 0:
            if not self._line.endswith(b"\r\n"):
                raise HeadError("a chunk line ends in a bare LF")
            self._complete(bytes(self._line[:-2]))
            self._line.clear()
        return stop

    def _complete(self, line: bytes) -> None:
        if self._needs_break:
            if line:
                raise HeadError("a chunk is longer than it said")
            self._needs_break = False
        elif self._in_trailers:
            self._trailers += len(line)
            if self._trailers > MAX_TRAILERS:
                raise HeadError(f"the trailers are longer than {MAX_TRAILERS} bytes")
            if line and not _FIELD.fullmatch(line):
                raise HeadError("a trailer is malformed")
            self.done = not line
        else:
            match = _CHUNK.fullmatch(line.partition(b";")[0])
            if match is None or any(byte < 0x20 and byte != 9 for byte in line):
                raise HeadError("a chunk size is malformed")
            self._left = int(match[1], 16)
            self._in_trailers = not self._left
