"""Frames arrive as they were sent, however they are cut; what is no frame is said, and nothing large is kept."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.daemon.control.wire import MAX_FRAME, Frames, Message, WireError, encode

MESSAGES = st.dictionaries(st.text(max_size=9), st.one_of(st.integers(), st.text(max_size=99), st.booleans()))


@given(st.lists(MESSAGES, max_size=5), st.data())
def test_messages_arrive_however_they_are_cut(messages: list[Message], data: st.DataObject) -> None:
    raw = b"".join(encode(message) for message in messages)
    frames, found, at = Frames(), [], 0
    while at < len(raw):
        size = data.draw(st.integers(1, len(raw) - at))
        frames.feed(raw[at : at + size])
        at += size
        while (message := frames.take()) is not None:
            found.append(message)
    assert found == messages


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_an_error(raw: bytes) -> None:
    frames = Frames()
    frames.feed(raw)
    try:
        while (message := frames.take()) is not None:
            assert isinstance(message, dict)
    except WireError:
        pass


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack("!I", MAX_FRAME + 1),
        struct.pack("!I", 0xFFFFFFFF),
        struct.pack("!I", 0),
        struct.pack("!I", 2) + b"[]",
        struct.pack("!I", 4) + b"null",
        struct.pack("!I", 2) + b"\xff\xff",
        struct.pack("!I", 200_000) + b"[" * 200_000,
    ],
)
def test_what_is_no_frame_is_an_error(raw: bytes) -> None:
    frames = Frames()
    frames.feed(raw)
    with pytest.raises(WireError):
        frames.take()


def test_what_is_too_long_is_not_sent() -> None:
    with pytest.raises(WireError):
        encode({"text": "x" * MAX_FRAME})
