from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from agent.channel import Channel, ChannelClosed, Message, pair
from agent.enforce.egress.engine_link import MAX_QUEUED, Link, LinkBusy


class Side:
    """A link under test and the plain channel at its other end."""

    def __init__(self) -> None:
        ours, theirs = pair()
        self.received: list[tuple[Message, list[int]]] = []
        self.reasons: list[str] = []
        self.link = Link(ours, lambda message, fds: self.received.append((message, fds)), self.reasons.append)
        self.peer = Channel(theirs)


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


@in_a_loop
async def test_messages_arrive_whole_and_in_order_though_the_socket_takes_them_in_pieces() -> None:
    side = Side()
    for number in range(50):
        side.link.send({"n": number, "filling": "x" * 50_000})
    loop = asyncio.get_running_loop()
    for number in range(50):
        message, _ = await loop.run_in_executor(None, side.peer.receive)
        assert (message["n"], len(message["filling"])) == (number, 50_000)
    side.link.close()


@in_a_loop
async def test_descriptors_travel_with_their_message_and_are_closed_here() -> None:
    side = Side()
    reading, writing = os.pipe()
    for number in range(30):
        side.link.send({"n": number, "filling": "x" * 20_000}, [os.dup(writing)] if number % 3 == 0 else [])
    held = [os.dup(writing)]
    side.link.send({"n": 30}, held)
    os.close(writing)
    loop = asyncio.get_running_loop()
    for number in range(31):
        message, fds = await loop.run_in_executor(None, side.peer.receive)
        assert message["n"] == number
        assert len(fds) == (1 if number % 3 == 0 or number == 30 else 0)
        for fd in fds:
            os.write(fd, b"!")
            os.close(fd)
    assert os.read(reading, 100) == b"!" * 11
    assert os.read(reading, 100) == b""  # no copy of the writing end is left open anywhere
    side.link.close()
    os.close(reading)


@in_a_loop
async def test_a_queue_that_nobody_empties_refuses_further_messages_and_closes_their_descriptors() -> None:
    side = Side()
    with pytest.raises(LinkBusy):
        for _ in range(MAX_QUEUED * 2):
            side.link.send({"filling": "x" * 1000})
    one, other = socket.socketpair()
    with pytest.raises(LinkBusy):
        side.link.send({}, [other.detach()])
    assert one.recv(1) == b""
    side.link.send({"type": "answer"}, urgent=True)
    side.link.close()


@in_a_loop
async def test_the_end_of_the_other_side_is_told_once_and_queued_descriptors_are_closed() -> None:
    side = Side()
    for _ in range(100):
        side.link.send({"filling": "x" * 10_000})
    one, other = socket.socketpair()
    side.link.send({}, [other.detach()])
    side.peer.close()
    for _ in range(3000):
        if side.reasons:
            break
        await asyncio.sleep(0.01)
    side.link.close()
    assert len(side.reasons) == 1
    assert one.recv(1) == b""
    one_more, last = socket.socketpair()
    with pytest.raises(ChannelClosed):
        side.link.send({}, [last.detach()])
    assert one_more.recv(1) == b""
