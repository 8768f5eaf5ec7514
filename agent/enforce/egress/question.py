"""The one question of a DNS message, read strictly before a library sees the bytes.

Rules kept here: exactly one question, a query, class IN, nothing after it but at most one EDNS record, every byte
accounted for; a question's name holds no compression pointer and no label that could be read as two; what can be
answered only as malformed, what is refused and what gets no answer at all are told apart. Pure: bytes in, value out.

Sources: RFC 1035 4.1 (header, question, label and name lengths), RFC 6891 6.1 (the OPT record), RFC 9619 (one
question), RFC 2181 11 (labels are octets: a dot inside a label is no separator).
"""

from __future__ import annotations

import re
import struct
from typing import Final

from agent.policy.addresses import canonical_address
from agent.policy.hosts import HostError, normalise_host
from agent.values import dataclass

HEADER: Final = 12
MAX_QUERY: Final = 4096
SMALLEST: Final = 512
"""What every client takes over UDP (RFC 1035 2.3.4); a larger size is said in the EDNS record."""

A: Final = 1
AAAA: Final = 28
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, REFUSED = 0, 1, 2, 3, 5

_OPT: Final = 41
_IN: Final = 1
_MAX_LABEL: Final = 63
_MAX_WIRE_NAME: Final = 255
_RESPONSE: Final = 0x8000
_OPCODE: Final = 0x7800
_RECURSION_DESIRED: Final = 0x0100
_RECURSION_AVAILABLE: Final = 0x0080
_LABEL: Final = re.compile(rb"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Question:
    """`host` is normalised, `written` the name in the case it came in.

    `edns`: the client sent an OPT record. `size`: the most bytes it takes in one datagram.
    """

    host: str
    written: str
    rdtype: int
    edns: bool
    size: int


class QuestionError(Exception):
    """The message is no question that is answered. `answer` is what is sent back, None for nothing at all."""

    def __init__(self, reason: str, answer: bytes | None) -> None:
        super().__init__(reason)
        self.answer = answer


def read_question(data: bytes) -> Question:
    """The question of a whole message. Raises QuestionError."""
    if len(data) < HEADER:
        raise QuestionError("the DNS message is too short", None)
    _, flags, questions, answers, authorities, additionals = struct.unpack_from(">6H", data)
    if flags & _RESPONSE:
        raise QuestionError("the DNS message is an answer, not a question", None)
    if len(data) > MAX_QUERY:
        raise _malformed(data, f"the DNS message is longer than {MAX_QUERY} bytes")
    if flags & _OPCODE:
        raise _refused(data, "the DNS message is no plain query")
    if questions != 1:
        raise _refused(data, f"the DNS message has {questions} questions, not one")
    if answers or authorities or additionals > 1:
        raise _refused(data, "the DNS message carries more than a question")
    labels, at = _labels(data)
    if len(data) < at + 4:
        raise _malformed(data, "the DNS question is cut short")
    rdtype, rdclass = struct.unpack_from(">HH", data, at)
    size = _edns_size(data, at + 4) if additionals else None
    if size is None and len(data) != at + 4:
        raise _malformed(data, "bytes follow the DNS question")
    if rdclass != _IN:
        raise _refused(data, f"DNS class {rdclass} is not answered")
    host, written = _host(data, labels)
    return Question(host, written, rdtype, size is not None, max(SMALLEST, min(size or 0, MAX_QUERY)))


def bare_answer(query: bytes, rcode: int) -> bytes:
    """A header that answers `query` (at least `HEADER` bytes) with nothing but the code."""
    number, flags = struct.unpack_from(">HH", query)
    kept = flags & (_OPCODE | _RECURSION_DESIRED)
    return struct.pack(">6H", number, _RESPONSE | kept | _RECURSION_AVAILABLE | rcode, 0, 0, 0, 0)


def _malformed(data: bytes, reason: str) -> QuestionError:
    return QuestionError(reason, bare_answer(data, FORMERR))


def _refused(data: bytes, reason: str) -> QuestionError:
    return QuestionError(reason, bare_answer(data, REFUSED))


def _labels(data: bytes) -> tuple[list[bytes], int]:
    """The labels of the question's name, and where what follows begins."""
    labels: list[bytes] = []
    at = HEADER
    while True:
        if at >= len(data):
            raise _malformed(data, "the DNS name is cut short")
        length = data[at]
        if length > _MAX_LABEL:
            raise _malformed(data, "the DNS name holds a pointer or an overlong label")
        at += 1
        if not length:
            return labels, at
        if at + length > len(data):
            raise _malformed(data, "the DNS name is cut short")
        labels.append(data[at : at + length])
        at += length
        if at - HEADER >= _MAX_WIRE_NAME:
            raise _malformed(data, f"the DNS name is longer than {_MAX_WIRE_NAME} bytes")


def _edns_size(data: bytes, at: int) -> int:
    """The size that the client takes, of the one additional record, which must be OPT, version 0, and the last."""
    if len(data) < at + 11:
        raise _malformed(data, "the DNS message's last record is cut short")
    owner, rdtype, size, _, version, _, length = struct.unpack_from(">BHHBBHH", data, at)
    if owner != 0 or rdtype != _OPT:
        raise _refused(data, "the DNS message carries more than a question")
    if len(data) != at + 11 + length:
        raise _malformed(data, "the DNS message does not end with its EDNS record")
    if version != 0:
        raise _refused(data, f"EDNS version {version} is not spoken")
    return int(size)


def _host(data: bytes, labels: list[bytes]) -> tuple[str, str]:
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise _refused(data, "the DNS name is no host name")
    text = b".".join(labels).decode("ascii")
    try:
        host = normalise_host(text)
    except HostError as error:
        raise _refused(data, f"the DNS name is no host name: {error.message}") from error
    if canonical_address(host) is not None:
        raise _refused(data, "the DNS name is an address")
    return host, text
