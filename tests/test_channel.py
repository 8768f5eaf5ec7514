"""Frames and descriptors between the agent's processes."""

from __future__ import annotations

import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.channel import MAX_FRAME, Channel, ChannelClosed, pair

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def ends() -> tuple[Channel, Channel]:
    ours, theirs = pair()
    return Channel(ours), Channel(theirs)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), JSON, max_size=3), max_size=5))
def test_messages_arrive_whole_and_in_order(messages: list[dict[str, object]]) -> None:
    left, right = ends()
    for message in messages:
        left.send({"type": "x", **message})
    assert [right.receive()[0] for _ in messages] == [{"type": "x", **message} for message in messages]
    left.close()
    right.close()


def test_a_descriptor_arrives_with_its_message_and_is_close_on_exec() -> None:
    left, right = ends()
    reading, writing = os.pipe()
    left.send({"type": "first"})
    left.send({"type": "second"}, [writing])
    os.close(writing)
    assert right.receive() == ({"type": "first"}, [])
    message, (received,) = right.receive()
    assert message == {"type": "second"}
    assert not os.get_inheritable(received)
    os.write(received, b"through")
    assert os.read(reading, 10) == b"through"
    for fd in (received, reading):
        os.close(fd)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (struct.pack("!I", MAX_FRAME + 1), "frame of"),
        (struct.pack("!I", 3) + b"{]x", "malformed"),
        (struct.pack("!I", 2) + b"[]", "malformed"),
        (struct.pack("!I", 2) + b"{}", "malformed"),
        (struct.pack("!I", 9) + b'{"fds":1}', "malformed"),
        (struct.pack("!I", 9) + b'{"fds"', "end of channel"),
    ],
)
def test_a_malformed_frame_closes_the_channel(raw: bytes, reason: str) -> None:
    ours, theirs = pair()
    theirs.sendall(raw)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(ChannelClosed, match=reason):
        Channel(ours).receive()


def test_a_gone_peer_is_a_closed_channel_for_both_directions() -> None:
    left, right = ends()
    right.close()
    with pytest.raises(ChannelClosed):
        left.send({"type": "x"})
    with pytest.raises(ChannelClosed):
        left.receive()
