"""One line of the audit log: its canonical bytes, its hashes, and what makes it valid on its own.

Rules: a line is the canonical JSON (RFC 8785) of exactly the contract's ten keys, then a newline. `event_hash` is the
SHA-256 of the canonical JSON of the same object without `event_hash`; `previous_hash` is the hash of the event before,
64 zeros for the first. RFC 8785 sorts keys by their UTF-16 code units and writes strings as ECMAScript does; orjson
writes strings that way, so the keys are ordered here and only the types that have one representation are let through:
no floats, integers within 2^53 - 1 of zero, strings without lone surrogates.

Text on its way *into* the log is made fit first (`link`): lone surrogates, which is how Python carries bytes that are
not UTF-8, become ``\\xNN``, and what is too long is cut with a mark that gives the length and the SHA-256 of the whole.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import NoReturn, cast

import orjson

from agent.expressions import expression
from agent.record.event import Action, Event, Json, Result
from agent.values import dataclass

GENESIS = "0" * 64
KEYS = frozenset(
    {"timestamp", "actor", "action", "resource", "resource_type", "source_ip", "result", "details"}
    | {"event_hash", "previous_hash"}
)
MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 16
MAX_LINE = 1 << 20
"""Bytes of the longest line, its newline included. Nothing longer is written; a reader may refuse it unread."""
_MAX_KEYS = 256
_SURROGATE = expression("[\ud800-\udfff]")
_TIMESTAMP = expression(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_HASH = expression(r"[0-9a-f]{64}")
_DIGITS = expression(r"[0-9]+")
_ACTION = expression("|".join(Action))
_RESULT = expression("|".join(Result))
_PATTERNS = (
    ("timestamp", _TIMESTAMP),
    ("event_hash", _HASH),
    ("previous_hash", _HASH),
    ("action", _ACTION),
    ("result", _RESULT),
    ("actor", None),
    ("resource", None),
    ("resource_type", None),
)


class CanonicalError(ValueError):
    """The value has no canonical form here: a float, a large integer, a foreign type, too deep, too long."""


class Kind(StrEnum):
    """What can be wrong with a log; the first that applies is named."""

    TORN_TAIL = "torn-tail"
    MALFORMED = "malformed"
    BAD_KEYS = "bad-keys"
    BAD_VALUE = "bad-value"
    NON_CANONICAL = "non-canonical"
    EDITED = "edited"
    WRONG_GENESIS = "wrong-genesis"
    WRONG_FILE_LINK = "wrong-file-link"
    REMOVED = "removed"
    SWAPPED = "swapped"
    REORDERED = "reordered"
    DUPLICATED = "duplicated"
    FORKED = "forked"
    SEQ_GAP = "seq-gap"
    FOREIGN_STREAM = "foreign-stream"
    EMPTY = "empty"
    WRONG_PARENT = "wrong-parent"


@dataclass(frozen=True, slots=True)
class Head:
    """The last event of a chain: what the next one links to. `seq` 0 and `GENESIS` before the first."""

    stream: str
    seq: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True)
class Link:
    """One line as read: its place in the chain and the whole object."""

    seq: int
    hash: str
    previous: str
    stream: str
    body: dict[str, Json]

    @property
    def details(self) -> dict[str, Json]:
        details = self.body["details"]
        return details if isinstance(details, dict) else {}


class LineError(Exception):
    """A line is not what the contract says. `link` is what it claims, where it claims a place in the chain at all."""

    def __init__(self, kind: Kind, message: str, link: Link | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.link = link


@dataclass(frozen=True, slots=True)
class _Limits:
    text: int
    items: int


_ROOMY = _Limits(text=32 * 1024, items=512)
_TIGHT = _Limits(text=1024, items=16)


def canonical(value: object) -> bytes:
    """The RFC 8785 bytes of `value`. Raises CanonicalError for what the log does not hold."""
    return _plain(value) or _dump(_ordered(value, MAX_DEPTH, _same))


def escape(text: str) -> str:
    """`text` without lone surrogates: a byte that was not UTF-8, and each byte of any other one, becomes ``\\xNN``."""
    if text.isascii():
        return str.__str__(text)
    return _SURROGATE.sub(_escape_surrogate, str.__str__(text))


def timestamp(ns: int) -> str:
    """Nanoseconds since the epoch as ``YYYY-MM-DDThh:mm:ss.ffffffZ`` (cut to microseconds, never rounded up)."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def link(head: Head, event: Event, stamps: Mapping[str, Json], time_ns: int) -> tuple[bytes, Head]:
    """The line for `event` after `head`, and the new head.

    `stamps` are the writer's own details (event id, session, boot, clock …): they replace what the event says under the
    same names, as do `event_type`, `seq` and `stream`. Raises CanonicalError where the event has no canonical form.
    """
    seq = head.seq + 1
    details = {**event.details, **stamps, "event_type": event.type.value, "seq": seq, "stream": head.stream}
    for limits in (_ROOMY, _TIGHT):
        line, digest = _line(head.hash, event, details, timestamp(time_ns), limits)
        if len(line) <= MAX_LINE:
            return line, Head(head.stream, seq, digest)
    raise CanonicalError(f"an event of {len(line)} bytes; at most {MAX_LINE} fit a line")


def read(line: bytes) -> Link:
    """Take one line, with or without its newline, apart. Raises LineError naming the first thing wrong with it."""
    raw = line.removesuffix(b"\n")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise LineError(Kind.MALFORMED, f"not JSON: {error}") from error
    if not isinstance(body, dict):
        raise LineError(Kind.MALFORMED, "not a JSON object")
    if body.keys() != KEYS:
        missing, extra = sorted(KEYS - body.keys()), sorted(body.keys() - KEYS)
        raise LineError(Kind.BAD_KEYS, f"missing keys {missing}, foreign keys {extra}")
    found = _claims(body)
    try:
        whole = canonical(body)
    except CanonicalError as error:
        raise LineError(Kind.BAD_VALUE, str(error), found) from error
    if whole != raw:
        raise LineError(Kind.NON_CANONICAL, "not the canonical form (RFC 8785) of its content", found)
    # In canonical form `event_hash` stands before `previous_hash` and five strings, in which a quote is escaped: the
    # last occurrence is the member itself.
    member = b',"event_hash":"%b"' % found.hash.encode()
    at = raw.rindex(member)
    if hashlib.sha256(raw[:at] + raw[at + len(member) :]).hexdigest() != found.hash:
        raise LineError(Kind.EDITED, "the content does not match its event_hash", found)
    return found


def _claims(body: dict[str, Json]) -> Link:
    details = body["details"]
    if not isinstance(details, dict):
        _bad("details is not an object")
    for key, pattern in _PATTERNS:
        _text(body, key, pattern)
    if not isinstance(body["source_ip"], str | None):
        _bad("source_ip is neither a string nor null")
    for key in ("event_type", "event_id", "session_id", "boot", "policy_digest"):
        _text(details, key, None)
    _text(details, "mono_ns", _DIGITS)
    seq = details.get("seq")
    if type(seq) is not int or not 0 < seq <= MAX_INTEGER:
        _bad("details.seq is not a positive integer")
    return Link(
        seq=seq,
        hash=_text(body, "event_hash", None),
        previous=_text(body, "previous_hash", None),
        stream=_text(details, "stream", None),
        body=body,
    )


def _text(body: dict[str, Json], key: str, pattern: re.Pattern[str] | None) -> str:
    value = body.get(key)
    if not isinstance(value, str) or (pattern is not None and pattern.fullmatch(value) is None):
        _bad(f"{key} is missing or malformed")
    return value


def _bad(message: str) -> NoReturn:
    raise LineError(Kind.BAD_VALUE, message)


def _line(previous: str, event: Event, details: dict[str, Json], stamp: str, limits: _Limits) -> tuple[bytes, str]:
    """In key order the hash stands between `details` and `previous_hash`: two halves, each canonical, joined twice."""
    front: dict[str, Json] = {"action": event.action.value, "actor": event.actor, "details": details}
    back: dict[str, Json] = {
        "previous_hash": previous,
        "resource": event.resource,
        "resource_type": event.resource_type.value,
        "result": event.result.value,
        "source_ip": event.source_ip,
        "timestamp": stamp,
    }
    head = _fitted(front, limits)[:-1]
    tail = _fitted(back, limits)[1:]
    digest = hashlib.sha256(b"%b,%b" % (head, tail)).hexdigest()
    return b'%b,"event_hash":"%b",%b\n' % (head, digest.encode(), tail), digest


def _fitted(value: dict[str, Json], limits: _Limits) -> bytes:
    plain = _plain(value) if limits is _ROOMY else None
    return plain or _dump(_ordered(value, MAX_DEPTH, lambda text: _fit(text, limits), limits.items))


def _plain(value: object) -> bytes | None:
    """The canonical bytes of the usual case, an object of short ASCII texts, small integers, booleans and nulls.

    There orjson's own order (by UTF-8 bytes) is RFC 8785's, and nothing is to be escaped, cut or refused.
    """
    if type(value) is not dict or len(value) > _MAX_KEYS or not _simple(value.values(), MAX_DEPTH - 1):
        return None
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER)
    except orjson.JSONEncodeError:
        return None
    return text if text.isascii() else None


def _simple(members: Iterable[object], depth: int) -> bool:
    for member in members:
        kind = type(member)
        if kind is str:
            if len(cast(str, member)) > _ROOMY.text:
                return False
        elif kind is list or kind is dict:
            inner = cast(list[object] | dict[str, object], member)
            if not depth or len(inner) > (_ROOMY.items if kind is list else _MAX_KEYS):
                return False
            if not _simple(inner.values() if isinstance(inner, dict) else inner, depth - 1):
                return False
        elif kind is not int and kind is not bool and member is not None:
            return False
    return True


def _ordered(value: object, depth: int, text: Callable[[str], str], items: int | None = None) -> Json:
    """`value` in plain types with every object's keys in RFC 8785 order; `items` cuts longer lists, None keeps all."""
    exact = type(value)
    if exact is str:
        return text(cast(str, value))
    if value is None or exact is bool:
        return cast(Json, value)
    if exact is dict and depth:
        return _object(cast(dict[object, object], value), depth, text, items)
    match value:  # the rarer types, and subclasses of the ones above
        case str():
            return text(value)
        case int():
            if -MAX_INTEGER <= value <= MAX_INTEGER:
                return int(value)
            raise CanonicalError("an integer of 2^53 or more: write it as a string")
        case Mapping() | list() | tuple() if depth == 0:
            raise CanonicalError(f"nested deeper than {MAX_DEPTH}")
        case Mapping():
            return _object(value, depth, text, items)
        case list() | tuple():
            kept = [_ordered(entry, depth - 1, text, items) for entry in value[:items]]
            if items is not None and len(value) > items:
                kept.append(f"…[{len(value) - items} more items]")
            return kept
    raise CanonicalError(f"a {type(value).__name__} has no place in the log")


def _object(value: Mapping[object, object], depth: int, text: Callable[[str], str], items: int | None) -> Json:
    if items is not None and len(value) > _MAX_KEYS:
        raise CanonicalError(f"an object of {len(value)} keys; at most {_MAX_KEYS}")
    named = cast(Mapping[str, object], value)
    try:
        plain = "".join(named).isascii()
    except TypeError as error:
        raise CanonicalError("a key that is not a string") from error
    if plain:  # in ASCII, UTF-16 order is the order of the characters, and nothing needs escaping
        return {str.__str__(key): _ordered(named[key], depth - 1, text, items) for key in sorted(named)}
    spelled = {text(key): member for key, member in named.items()}
    if len(spelled) != len(named):
        raise CanonicalError("two keys that are one once escaped")
    return {key: _ordered(spelled[key], depth - 1, text, items) for key in sorted(spelled, key=_utf16)}


def _dump(value: Json) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise CanonicalError(str(error)) from error


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be", "surrogatepass")


def _same(text: str) -> str:
    return str.__str__(text)


def _fit(text: str, limits: _Limits) -> str:
    if len(text) <= limits.text:
        return escape(text)
    whole = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{escape(text[: limits.text])}…[{len(text) - limits.text} more characters, sha256 of all {whole}]"


def _escape_surrogate(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape (PEP 383): the byte itself
        return f"\\x{code - 0xDC00:02x}"
    return "".join(f"\\x{byte:02x}" for byte in found[0].encode("utf-8", "surrogatepass"))
