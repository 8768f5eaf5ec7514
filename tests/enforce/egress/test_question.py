"""The strict reading of one DNS question: what is taken, what is refused and what gets no answer."""

from __future__ import annotations

import struct

import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.enforce.egress.question import (
    FORMERR,
    MAX_QUERY,
    REFUSED,
    Question,
    QuestionError,
    bare_answer,
    read_question,
)

ID = 0x1234


def header(
    flags: int = 0x0100, questions: int = 1, answers: int = 0, authorities: int = 0, additionals: int = 0
) -> bytes:
    return struct.pack(">6H", ID, flags, questions, answers, authorities, additionals)


def name(*labels: bytes) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def question(*labels: bytes, rdtype: int = 1, rdclass: int = 1) -> bytes:
    return name(*labels) + struct.pack(">HH", rdtype, rdclass)


def opt(size: int = 1232, version: int = 0, data: bytes = b"", owner: bytes = b"\0") -> bytes:
    return owner + struct.pack(">HHBBHH", 41, size, 0, version, 0, len(data)) + data


GOOD = question(b"api", b"good", b"test")

LONGEST = ".".join([*["a" * 61] * 4, "abcde"])


def rcode(answer: bytes | None) -> int | None:
    return None if answer is None else answer[3] & 0x0F


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (header() + GOOD, Question("api.good.test", "api.good.test", 1, False, 512)),
        (
            header() + question(b"API", b"gOOd", b"test", rdtype=28),
            Question("api.good.test", "API.gOOd.test", 28, False, 512),
        ),
        (
            header() + question(b"_srv", b"a_b", b"test", rdtype=16),
            Question("_srv.a_b.test", "_srv.a_b.test", 16, False, 512),
        ),
        (header(additionals=1) + GOOD + opt(), Question("api.good.test", "api.good.test", 1, True, 1232)),
        (header(additionals=1) + GOOD + opt(size=100), Question("api.good.test", "api.good.test", 1, True, 512)),
        (
            header(additionals=1) + GOOD + opt(size=65535),
            Question("api.good.test", "api.good.test", 1, True, MAX_QUERY),
        ),
        (
            header(additionals=1) + GOOD + opt(data=b"\0\x0a\0\x08cookie12"),
            Question("api.good.test", "api.good.test", 1, True, 1232),
        ),
        (header() + question(*[b"a" * 61] * 4, b"abcde"), Question(LONGEST, LONGEST, 1, False, 512)),
        (
            header(flags=0x0130) + GOOD,
            Question("api.good.test", "api.good.test", 1, False, 512),
        ),  # AD and CD set by a validating stub
    ],
)
def test_a_plain_question_is_read(data: bytes, expected: Question) -> None:
    assert read_question(data) == expected


@pytest.mark.parametrize(
    ("data", "answer", "reason"),
    [
        (b"", None, "too short"),
        (header()[:11], None, "too short"),
        (header(flags=0x8100) + GOOD, None, "an answer, not a question"),
        (header(flags=0x2800) + GOOD, REFUSED, "no plain query"),  # UPDATE
        (header(flags=0x1000) + GOOD, REFUSED, "no plain query"),  # STATUS
        (header(questions=0), REFUSED, "0 questions"),
        (header(questions=2) + GOOD + question(b"evil", b"test"), REFUSED, "2 questions"),
        (header(questions=65535) + GOOD, REFUSED, "65535 questions"),
        (header(answers=1) + GOOD, REFUSED, "more than a question"),
        (header(authorities=1) + GOOD, REFUSED, "more than a question"),
        (header(additionals=2) + GOOD + opt() + opt(), REFUSED, "more than a question"),
        (header(additionals=1) + GOOD + opt(owner=b"\x01a\0"), REFUSED, "more than a question"),
        (header(additionals=1) + GOOD + question(b"x", rdtype=1) + bytes(6), REFUSED, "more than a question"),
        (header(additionals=1) + GOOD, FORMERR, "cut short"),
        (header(additionals=1) + GOOD + opt()[:-1], FORMERR, "cut short"),
        (header(additionals=1) + GOOD + opt() + b"x", FORMERR, "does not end"),
        (header(additionals=1) + GOOD + opt(data=b"abcd")[:-1], FORMERR, "does not end"),
        (header(additionals=1) + GOOD + opt(version=1), REFUSED, "EDNS version 1"),
        (header() + GOOD + b"x", FORMERR, "bytes follow"),
        (header() + GOOD + opt(), FORMERR, "bytes follow"),
        (header() + GOOD[:-1], FORMERR, "cut short"),
        (header() + b"\x03api", FORMERR, "cut short"),
        (header() + b"\x09api", FORMERR, "cut short"),
        (header(), FORMERR, "cut short"),
        (header() + b"\xc0\x0c\0\x01\0\x01", FORMERR, "pointer"),
        (header() + b"\x03api\xc0\x0c\0\x01\0\x01", FORMERR, "pointer"),
        (header() + b"\x40" + b"a" * 64 + b"\0\0\x01\0\x01", FORMERR, "overlong label"),
        (header() + b"\x80" + GOOD, FORMERR, "overlong label"),
        (header() + question(*[b"a" * 63] * 4), FORMERR, "longer than 255"),
        (header() + question(*[b"a"] * 128), FORMERR, "longer than 255"),
        (header() + question(*[b"a" * 61] * 4, b"abcdef"), FORMERR, "longer than 255"),
        (header() + question(b"api", b"good", b"test", rdclass=3), REFUSED, "class 3"),
        (header() + question(b"api", b"good", b"test", rdclass=255), REFUSED, "class 255"),
        (header() + question(), REFUSED, "no host name"),
        (header() + question(b"good.test"), REFUSED, "no host name"),
        (header() + question(b"evil.test\0", b"good", b"test"), REFUSED, "no host name"),
        (header() + question(b"a b", b"test"), REFUSED, "no host name"),
        (header() + question(b"*", b"good", b"test"), REFUSED, "no host name"),
        (header() + question("bücher".encode(), b"test"), REFUSED, "no host name"),
        (header() + question(b"xn--zz--zz", b"test"), REFUSED, "no host name"),
        (header() + question(b"-a", b"test"), REFUSED, "no host name"),
        (header() + question(b"8", b"8", b"8", b"8"), REFUSED, "an address"),
        (header() + question(b"0x7f", b"1"), REFUSED, "an address"),
        (header() + question(b"2130706433"), REFUSED, "an address"),
        (header(additionals=1) + GOOD + opt(data=b"x" * MAX_QUERY), FORMERR, "longer than 4096"),
    ],
)
def test_everything_else_is_refused_or_malformed_or_gets_no_answer(
    data: bytes, answer: int | None, reason: str
) -> None:
    with pytest.raises(QuestionError, match=reason) as caught:
        read_question(data)
    assert rcode(caught.value.answer) == answer


def test_a_bare_answer_has_the_question_s_number_and_claims_nothing() -> None:
    for flags in (0x0000, 0x0100, 0x07FF, 0x2930):
        answer = bare_answer(header(flags=flags) + GOOD, REFUSED)
        number, got, *counts = struct.unpack(">6H", answer)
        assert (number, counts) == (ID, [0, 0, 0, 0])
        assert got & 0x8080 == 0x8080  # an answer; recursion is available
        assert got & 0x0730 == flags & 0x0100  # no authority, no truncation, no validation; RD as it was asked
        assert got & 0x0F == REFUSED


@given(st.binary(max_size=600))
def test_no_bytes_crash_it_and_none_of_them_are_answered_with_more_than_a_code(data: bytes) -> None:
    check_any(data)


@given(
    st.integers(0, 0xFFFF),
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
    st.lists(st.binary(min_size=0, max_size=70), max_size=8),
    st.binary(max_size=40),
)
def test_no_near_miss_of_a_question_crashes_it(flags: int, counts: list[int], labels: list[bytes], tail: bytes) -> None:
    wire = b"".join(bytes([len(label)]) + label for label in labels)
    check_any(struct.pack(">6H", ID, flags, *counts) + wire + tail)


@given(
    st.lists(st.from_regex(r"[a-zA-Z0-9_]{1,20}", fullmatch=True), min_size=1, max_size=6),
    st.integers(1, 65535),
    st.booleans(),
)
def test_what_is_taken_is_what_the_library_reads(labels: list[str], rdtype: int, edns: bool) -> None:
    data = header(additionals=int(edns)) + question(*(label.encode() for label in labels), rdtype=rdtype)
    data += opt() if edns else b""
    check_any(data)


def check_any(data: bytes) -> None:
    try:
        found = read_question(data)
    except QuestionError as error:
        assert error.answer is None or (len(error.answer) == 12 and rcode(error.answer) in (FORMERR, REFUSED))
        return
    try:
        read = dns.message.from_wire(data)
    except Exception:
        return  # the option data of an EDNS record is the library's to judge: `parse` refuses it then
    (asked,) = read.question
    assert asked.name.to_text(omit_final_dot=True).lower() == found.host
    assert (asked.rdclass, asked.rdtype) == (1, found.rdtype)
    assert (read.edns >= 0) == found.edns
    assert not read.answer
    assert not read.authority
    assert not read.additional
