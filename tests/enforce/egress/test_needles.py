"""Secrets are found in every encoding named, over every cut of a stream, and what is held back never leaves."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.enforce.egress.needles import MIN_LENGTH, Leak, Mask, Needles, Watch

VALUE = "Zx9/kL+mN3~pQ7_rT5-vW1 yB4=cD8"
PLACEHOLDER = "parhelia-placeholder-ph-0123456789"
NEEDLES = Needles([("api", VALUE), ("other", "another-long-secret"), ("ph", PLACEHOLDER)])

ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda text: text,
    "upper case": lambda text: text.upper(),
    "base64": base64.b64encode,
    "base64, one byte in": lambda text: base64.b64encode(b"a" + text),
    "base64, two bytes in": lambda text: base64.b64encode(b"ab" + text + b"z"),
    "base64 of Basic": lambda text: base64.b64encode(b"user:" + text),
    "base64, URL-safe": lambda text: base64.urlsafe_b64encode(b"??>>" + text),
    "base64, wrapped": lambda text: base64.encodebytes(b"x" * 40 + text + b"y" * 40),
    "hex": lambda text: text.hex().encode(),
    "hex, upper case": lambda text: text.hex().upper().encode(),
    "hex, spaced": lambda text: text.hex(" ").encode(),
    "percent, where needed": lambda text: quote(text, safe="").encode(),
    "percent, throughout": lambda text: "".join(f"%{byte:02x}" for byte in text).encode(),
    "percent, twice": lambda text: quote(quote(text, safe=""), safe="").encode(),
    "percent over base64": lambda text: quote(base64.b64encode(text), safe="").encode(),
}
ESCAPED: dict[str, Callable[[bytes], bytes]] = {
    "JSON, slashes escaped": lambda text: json.dumps(text.decode()).replace("/", "\\/")[1:-1].encode(),
    "JSON, throughout": lambda text: "".join(f"\\u{byte:04X}" for byte in text).encode(),
    "HTML": lambda text: "".join(f"&#x{byte:x};" if byte < 0x30 else chr(byte) for byte in text).encode(),
    "HTML, throughout": lambda text: "".join(f"&#{byte:03};" for byte in text).encode(),
}
FOUND = ENCODINGS | ESCAPED


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize(("text", "said"), [(VALUE, "api"), (PLACEHOLDER, "ph")])
def test_a_secret_is_found_and_named_in_every_encoding(name: str, text: str, said: str) -> None:
    encoded = FOUND[name](text.encode())
    assert NEEDLES.find(b"before " + encoded + b" after") == said
    assert NEEDLES.redact(f"before {encoded.decode()} after").count(f"[secret {said}]") == 1


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_masked_text_keeps_its_length_and_nothing_of_the_secret(name: str) -> None:
    data = b'{"a": "' + ENCODINGS[name](VALUE.encode()) + b'", "b": 1}'
    masked = NEEDLES.mask(data)
    assert len(masked) == len(data)
    assert NEEDLES.find(masked) is None
    assert masked.startswith(b'{"a": "')
    assert masked.endswith(b'", "b": 1}')


@pytest.mark.parametrize(
    "data", [b"", b"%", b"%%%", b"%4", b"&#47;\\/&amp;", VALUE[:-1].encode(), VALUE[1:].encode(), bytes(range(256))]
)
def test_what_is_no_secret_is_left_alone(data: bytes) -> None:
    assert NEEDLES.find(data) is None
    assert NEEDLES.mask(data) == data
    assert NEEDLES.redact("harmless") == "harmless"


def test_a_secret_of_escaped_characters_is_found() -> None:
    value = "a\"b&c<d>e'f\\g/h"
    needles = Needles([("odd", value)])
    for coded in (html.escape(value), json.dumps(value)[1:-1], json.dumps(value)[1:-1].replace("/", "\\/"), value):
        assert needles.find(coded.encode()) == "odd"


@pytest.mark.parametrize("name", ESCAPED)
def test_an_escaped_secret_is_not_masked_but_ends_the_answer(name: str) -> None:
    with pytest.raises(Leak, match=r"^api$"):
        NEEDLES.mask(b'{"a": "' + ESCAPED[name](VALUE.encode()) + b'"}')


def test_a_secret_too_short_to_be_told_from_anything_is_refused() -> None:
    with pytest.raises(ValueError, match="fewer than"):
        Needles([("short", "x" * (MIN_LENGTH - 1))])


def cuts(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(edges)] or [b""]


PLACES = st.lists(st.integers(0, 2000), max_size=40)
NOISE = st.one_of(st.binary(max_size=80), st.text("%4aZx9/ =\n", max_size=40).map(str.encode))


@given(before=NOISE, after=NOISE, places=PLACES, name=st.sampled_from(sorted(FOUND)))
def test_however_a_stream_is_cut_the_secret_is_found_and_does_not_leave_whole(
    before: bytes, after: bytes, places: list[int], name: str
) -> None:
    data = before + FOUND[name](VALUE.encode()) + after
    if NEEDLES.find(data) is None:  # noise that changes what the encoding says, such as a % right before it
        return
    watch, sent = Watch(NEEDLES), b""
    with pytest.raises(Leak, match=r"^api$"):
        for piece in cuts(data, places):
            sent += watch.feed(piece)
        watch.feed(b"", last=True)
    assert data.startswith(sent)
    assert NEEDLES.find(sent) is None


@given(data=NOISE, places=PLACES, begun=st.integers(0, len(VALUE) - 1))
def test_a_stream_without_a_secret_arrives_as_it_was_sent(data: bytes, places: list[int], begun: int) -> None:
    data += VALUE.encode()[:begun]
    if NEEDLES.find(data) is not None:
        return
    for stream in (Watch(NEEDLES), Mask(NEEDLES)):
        sent = b"".join(stream.feed(piece) for piece in cuts(data, places))
        assert sent + stream.feed(b"", last=True) == data


@given(before=NOISE, after=NOISE, places=PLACES, name=st.sampled_from(sorted(FOUND)))
def test_however_a_stream_is_cut_what_comes_back_is_masked_in_its_own_length(
    before: bytes, after: bytes, places: list[int], name: str
) -> None:
    data = before + FOUND[name](VALUE.encode()) + after
    stream, seen = Mask(NEEDLES), b""
    try:
        for piece in cuts(data, places):
            seen += stream.feed(piece)
        seen += stream.feed(b"", last=True)
    except Leak:  # fails closed: the rest never comes
        assert NEEDLES.find(seen) is None
        return
    assert len(seen) == len(data)
    assert NEEDLES.find(seen) is None


def test_what_could_be_a_beginning_waits_and_a_few_bytes_do_not() -> None:
    watch = Watch(NEEDLES)
    assert watch.feed(b"data:" + VALUE[:3].encode()) == b"data:" + VALUE[:3].encode()
    watch = Watch(NEEDLES)
    assert watch.feed(b"data:" + VALUE[:9].encode()) == b"data:"
    assert watch.feed(b"!") == VALUE[:9].encode() + b"!"
