"""The canonical form against an independent implementation, and one line's validity."""

from __future__ import annotations

import hashlib
import json
import math

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.record.chain import (
    GENESIS,
    MAX_INTEGER,
    MAX_LINE,
    CanonicalError,
    Head,
    Kind,
    LineError,
    canonical,
    escape,
    link,
    read,
    timestamp,
)
from agent.record.event import Action
from tests.record.logs import STAMPS, allowed, chained, denial, reforge

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def rfc8785(value: object) -> str:
    """RFC 8785 section 3.2, straight from its text, for values without floats."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
            return '"' + "".join(short.get(c) or (f"\\u{ord(c):04x}" if c < " " else c) for c in value) + '"'
        case list():
            return "[" + ",".join(rfc8785(entry) for entry in value) + "]"
        case dict():

            def units(key: str) -> list[int]:
                raw = key.encode("utf-16-be")
                return [raw[i] << 8 | raw[i + 1] for i in range(0, len(raw), 2)]

            keys = sorted(value, key=units)
            return "{" + ",".join(f"{rfc8785(key)}:{rfc8785(value[key])}" for key in keys) + "}"
    raise AssertionError(value)


@given(VALUES)
def test_canonical_json_equals_rfc_8785_and_reads_back_as_the_same_value(value):
    text = canonical(value)
    assert text == rfc8785(value).encode()
    assert json.loads(text) == value


def test_keys_are_ordered_by_utf_16_code_units_not_by_code_points():
    # U+1F600 is D83D DE00 in UTF-16 and so comes before U+FB33 (RFC 8785 section 3.2.3 orders an emoji before it).
    assert canonical({"\ufb33": 1, "\U0001f600": 2, "\r": 3, "1": 4, "\u20ac": 5}) == (
        '{"\\r":3,"1":4,"\u20ac":5,"\U0001f600":2,"\ufb33":1}'.encode()
    )


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (1.5, "float"),
        (math.nan, "float"),
        ({"a": [0.0]}, "float"),
        (MAX_INTEGER + 1, "2^53"),
        (-MAX_INTEGER - 1, "2^53"),
        (10**30, "2^53"),
        ({1: "a"}, "key"),
        ({"a": b"bytes"}, "bytes"),
        ({"a": {"set"}}, "set"),
        ("\ud800", "surrogate"),
        ({"\udc80": 1}, "surrogate"),
    ],
)
def test_a_value_without_one_canonical_form_is_refused(value, why):
    with pytest.raises(CanonicalError, match=r"(?i).*" + why.replace("^", r"\^")):
        canonical(value)


def test_nesting_is_bounded_so_that_no_event_can_exhaust_the_stack():
    deep: object = 1
    for _ in range(100):
        deep = [deep]
    with pytest.raises(CanonicalError, match="deeper"):
        canonical(deep)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("caf\u00e9 \U0001f600", "caf\u00e9 \U0001f600"),
        (b"a\xff\xfeb".decode("utf-8", "surrogateescape"), "a\\xff\\xfeb"),
        ("\ud800", "\\xed\\xa0\\x80"),
        ("x\udfff", "x\\xed\\xbf\\xbf"),
    ],
)
def test_what_is_not_utf_8_is_escaped_byte_by_byte(text, expected):
    assert escape(text) == expected


@given(st.binary())
def test_any_bytes_of_a_path_become_valid_text(raw):
    escape(raw.decode("utf-8", "surrogateescape")).encode("utf-8")


@given(
    st.text(st.characters()),
    st.dictionaries(st.text(st.characters(), max_size=5), st.text(st.characters()), max_size=4),
)
def test_any_text_from_a_session_makes_a_line_that_reads_back_valid(resource, details):
    try:
        line, head = link(Head("s"), denial(resource, **{"x": details}), STAMPS, 0)
    except CanonicalError as error:
        assert "one once escaped" in str(error)
        return
    found = read(line)
    assert (found.seq, found.hash, found.previous) == (1, head.hash, GENESIS)
    assert line.count(b"\n") == 1


def test_a_line_is_the_contract_to_the_letter():
    first, second = chained(2)
    body = json.loads(first)
    assert list(body) == sorted(body)
    assert set(body) == {
        "timestamp", "actor", "action", "resource", "resource_type", "source_ip", "result", "details", "event_hash",
        "previous_hash",
    }  # fmt: skip
    assert body["previous_hash"] == "0" * 64
    rest = {key: value for key, value in body.items() if key != "event_hash"}
    assert body["event_hash"] == hashlib.sha256(rfc8785(rest).encode()).hexdigest()
    assert first == rfc8785(body).encode() + b"\n"
    assert json.loads(second)["previous_hash"] == body["event_hash"]
    assert body["timestamp"] == "2023-11-14T22:13:20.000000Z"
    assert body["details"] == {
        "event_type": "network.egress", "event_id": "e", "session_id": "s", "stream": "stream", "seq": 1, "boot": "b",
        "mono_ns": "1", "policy_digest": "d", "rule": "egress.allow[0]", "n": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (999_999_999, "1970-01-01T00:00:00.999999Z"),
        (1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456Z"),
        (253402300799_999_999_999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_timestamps_are_utc_with_six_digits(ns, text):
    assert timestamp(ns) == text


def test_an_event_cannot_choose_its_place_in_the_chain():
    forged = denial(seq=99, stream="mine", event_type="agent.stop", session_id="other", boot="x", event_id="y")
    details = read(link(Head("real", 4, "a" * 64), forged, STAMPS, 0)[0]).details
    assert (details["seq"], details["stream"], details["event_type"]) == (5, "real", "network.egress_blocked")
    assert (details["session_id"], details["boot"], details["event_id"]) == ("s", "b", "e")


def test_a_huge_command_is_cut_with_its_length_and_digest_and_still_recorded():
    text = "A" * 1_000_000
    line, _ = link(Head("s"), denial(text, argv=[text] * 600, x="B" * 100_000), STAMPS, 0)
    assert len(line) <= MAX_LINE
    found = read(line)
    assert hashlib.sha256(text.encode()).hexdigest() in str(found.body["resource"])
    assert str(found.body["resource"]).startswith("AAAA")
    assert "more items" in str(found.details["argv"])


def _set(key, value):
    return lambda body: body.update({key: value})


def _detail(key, value):
    return lambda body: body["details"].update({key: value})


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        (lambda body: body.pop("source_ip"), Kind.BAD_KEYS, "source_ip"),
        (_set("extra", 1), Kind.BAD_KEYS, "extra"),
        (_set("timestamp", "2023-11-14 22:13:20Z"), Kind.BAD_VALUE, "timestamp"),
        (_set("action", "EXECUTE"), Kind.BAD_VALUE, "action"),
        (_set("action", ["READ"]), Kind.BAD_VALUE, "action"),
        (_set("result", "maybe"), Kind.BAD_VALUE, "result"),
        (_set("previous_hash", "0" * 63), Kind.BAD_VALUE, "previous_hash"),
        (_set("previous_hash", "A" * 64), Kind.BAD_VALUE, "previous_hash"),
        (_set("source_ip", 7), Kind.BAD_VALUE, "source_ip"),
        (_set("details", []), Kind.BAD_VALUE, "details"),
        (_set("resource", None), Kind.BAD_VALUE, "resource"),
        (_detail("seq", 0), Kind.BAD_VALUE, "seq"),
        (_detail("seq", "1"), Kind.BAD_VALUE, "seq"),
        (_detail("seq", True), Kind.BAD_VALUE, "seq"),
        (_detail("mono_ns", 12), Kind.BAD_VALUE, "mono_ns"),
        (_detail("stream", None), Kind.BAD_VALUE, "stream"),
        (_detail("x", 1.5), Kind.BAD_VALUE, "float"),
        (_detail("x", 2**53), Kind.BAD_VALUE, "2^53"),
    ],
)
def test_a_line_with_a_matching_hash_but_foreign_content_is_refused(change, kind, says):
    with pytest.raises(LineError) as caught:
        read(reforge(chained(1)[0], change))
    assert caught.value.kind is kind
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"", Kind.MALFORMED),
        (b"{}", Kind.BAD_KEYS),
        (b"[1]", Kind.MALFORMED),
        (b"\x00" * 50, Kind.MALFORMED),
        (b'{"a":NaN}', Kind.MALFORMED),
        (b"[" * 5000, Kind.MALFORMED),
    ],
)
def test_what_is_no_event_at_all_is_named(line, kind):
    with pytest.raises(LineError) as caught:
        read(line)
    assert caught.value.kind is kind


def test_another_spelling_of_the_same_content_is_not_canonical():
    line = chained(1)[0]
    body = orjson.loads(line)
    for other in (
        json.dumps(body).encode(),
        orjson.dumps(dict(reversed(body.items()))),
        line.replace(b'"actor":"session:s"', b'"actor":"\\u0073ession:s"').rstrip(b"\n"),
        line.replace(b'{"action":', b'{"action":"READ","action":').rstrip(b"\n"),
    ):
        with pytest.raises(LineError) as caught:
            read(other)
        assert caught.value.kind is Kind.NON_CANONICAL


def test_an_inner_member_that_looks_like_the_hash_does_not_confuse_the_reader():
    line, _ = link(Head("s"), denial(nested={"event_hash": "0" * 64, "previous_hash": "0" * 64}), STAMPS, 0)
    found = read(line)
    inner = f',"event_hash":"{found.hash}"'
    line, _ = link(Head("s"), denial(inner, nested={"a": 1, "event_hash": found.hash, "z": inner}), STAMPS, 0)
    assert read(line).seq == 1


@settings(max_examples=300)
@given(st.data())
def test_a_single_byte_edit_of_a_line_is_always_caught(data):
    line = chained(1)[0]
    at = data.draw(st.integers(0, len(line) - 2))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != line[at]))
    with pytest.raises(LineError):
        read(line[:at] + bytes([byte]) + line[at + 1 :])


def test_of_all_prefixes_of_a_line_none_but_the_whole_reads():
    line = chained(1)[0]
    for end in range(len(line) - 1):
        with pytest.raises(LineError):
            read(line[:end])
    assert read(line[:-1]) == read(line)


def test_every_action_of_the_vocabulary_is_written():
    assert {read(reforge(chained(1)[0], _set("action", action.value))).body["action"] for action in Action} == set(
        Action
    )
    assert read(link(Head("s"), allowed(), STAMPS, 0)[0]).details["event_type"] == "network.egress"
