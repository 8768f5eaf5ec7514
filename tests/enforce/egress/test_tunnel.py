"""Bytes through a tunnel: complete, in order, counted; ends and resets passed on as what they are."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from agent.enforce.egress.tunnel import BULK, PIECE, Carrier, Pipes, Traffic
from agent.enforce.egress.wire import Poller, Wire
from agent.policy.model import HostLimits
from agent.policy.terms import NO_LIMITS
from tests.enforce.egress.tickets import Desk

MANY = 3_000_000
LIMIT = 120


def connected() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        two, _ = listener.accept()
    one.setblocking(False)
    two.setblocking(False)
    return one, two


class Bench:
    """A tunnel between `client` and `server`, the sockets of those who use it."""

    def __init__(self, pipes: int = 4, first: bytes = b"", bounds: HostLimits = NO_LIMITS, **limits: float) -> None:
        self.desk = Desk()
        self.ticket = self.desk.open(bounds)
        self.poller = Poller()
        self.traffic = Traffic()
        self.carrier = Carrier(self.poller, self.traffic, pipes=pipes, **limits)
        self.client, near = connected()
        far, self.server = connected()
        self.first = first
        self.wires = (Wire(self.poller, near), Wire(self.poller, far))

    def start(self) -> None:
        self.carrier.carry(self.wires[0].sock, self.wires[1].sock, self.first, self.ticket)


def run(test: Callable[[Bench], Awaitable[None]], **how: object) -> None:
    async def body() -> None:
        bench = Bench(**how)  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(LIMIT):
                await test(bench)
        finally:
            bench.poller.stop()
            bench.client.close()
            bench.server.close()

    asyncio.run(body())


async def pour(sock: socket.socket, data: bytes, dice: random.Random) -> None:
    loop, at = asyncio.get_running_loop(), 0
    while at < len(data):
        size = dice.choice((1, 7, 1000, 65536, 300_000))
        await loop.sock_sendall(sock, data[at : at + size])
        at += size
        if dice.random() < 0.2:
            await asyncio.sleep(0)
    sock.shutdown(socket.SHUT_WR)


async def drink(sock: socket.socket, dice: random.Random) -> bytes:
    loop, data = asyncio.get_running_loop(), bytearray()
    while piece := await loop.sock_recv(sock, dice.choice((1, 100, 65536, 1 << 20))):
        data += piece
        if dice.random() < 0.1:
            await asyncio.sleep(0.001)
    return bytes(data)


def digest(data: bytes) -> str:
    return f"{len(data)}:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize("pipes", [0, 4])
@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_sent_both_ways_in_any_pieces_arrives(seed: int, pipes: int) -> None:
    dice = random.Random(seed)
    up, down = (dice.randbytes(dice.choice((0, 1, 5000, BULK + 1, PIECE, MANY))) for _ in range(2))
    first = dice.randbytes(dice.choice((0, 500)))

    async def check(bench: Bench) -> None:
        bench.start()
        _, _, received, answered = await asyncio.gather(
            pour(bench.client, up, dice),
            pour(bench.server, down, dice),
            drink(bench.server, dice),
            drink(bench.client, dice),
        )
        assert digest(received) == digest(first + up)
        assert digest(answered) == digest(down)
        assert bench.traffic.take()[:2] == (len(first + up), len(down))
        assert bench.carrier.open == 0

    run(check, pipes=pipes, first=first)


def test_bytes_and_an_end_that_came_before_the_tunnel_began_are_not_forgotten() -> None:
    async def check(bench: Bench) -> None:
        bench.client.send(b"early")
        bench.client.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.05)  # the edge is spent on the wire that came before the tunnel
        bench.start()
        assert await drink(bench.server, random.Random(1)) == b"early"
        bench.server.send(b"answer")
        bench.server.close()
        assert await drink(bench.client, random.Random(1)) == b"answer"

    run(check)


def test_one_side_may_end_and_the_other_goes_on() -> None:
    async def check(bench: Bench) -> None:
        bench.start()
        bench.client.shutdown(socket.SHUT_WR)
        loop = asyncio.get_running_loop()
        assert await loop.sock_recv(bench.server, 1) == b""
        for _ in range(3):
            await loop.sock_sendall(bench.server, b"more")
            assert await loop.sock_recv(bench.client, 10) == b"more"
        assert bench.carrier.open == 1

    run(check)


@pytest.mark.parametrize("amount", [10, MANY])
def test_a_reset_is_passed_on_as_a_reset(amount: int) -> None:
    async def check(bench: Bench) -> None:
        bench.start()
        loop = asyncio.get_running_loop()
        sending = loop.create_task(loop.sock_sendall(bench.server, bytes(amount)))
        await loop.sock_recv(bench.client, 5)
        bench.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        bench.server.close()
        with pytest.raises(ConnectionResetError):
            while await loop.sock_recv(bench.client, 65536):
                pass
        assert bench.carrier.open == 0

    run(check)


@pytest.mark.parametrize("pipes", [0, 4])
def test_a_reader_that_stalls_holds_up_its_writer_and_costs_bounded_memory(pipes: int) -> None:
    async def check(bench: Bench) -> None:
        bench.start()
        loop, sent = asyncio.get_running_loop(), 0
        still = 0
        while still < 20:
            try:
                sent += bench.client.send(bytes(1 << 20))
                still = 0
            except BlockingIOError:
                still += 1
                await asyncio.sleep(0.01)
        assert sent < 64 << 20, "nothing holds the writer back"
        bench.client.shutdown(socket.SHUT_WR)
        received = 0
        while piece := await loop.sock_recv(bench.server, 1 << 20):
            received += len(piece)
        assert received == sent

    run(check, pipes=pipes)


def test_a_tunnel_at_rest_past_its_time_is_reset() -> None:
    async def check(bench: Bench) -> None:
        bench.start()
        with pytest.raises(ConnectionResetError):
            await asyncio.get_running_loop().sock_recv(bench.client, 1)
        assert bench.carrier.open == 0

    run(check, idle=0.1)


def test_tunnels_that_end_leave_no_descriptor_behind() -> None:
    async def check(bench: Bench) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for number in range(30):
            client, near = connected()
            far, server = connected()
            for sock in (near, far):
                Wire(bench.poller, sock)
            bench.carrier.carry(near, far, b"x" * number, bench.desk.open())
            dice = random.Random(number)
            await asyncio.gather(
                pour(client, bytes(BULK * 3), dice),
                pour(server, b"", dice),
                drink(client, dice),
                drink(server, dice),
            )
            client.close()
            server.close()
        after = len(os.listdir("/proc/self/fd"))
        assert after - before <= 2 * 4, "only the stock of pipes may remain"

    run(check)


def test_the_stock_of_pipes_is_bounded_and_never_gives_a_dirty_one() -> None:
    pipes = Pipes(2)
    one, two = pipes.take(), pipes.take()
    assert one is not None
    assert two is not None
    assert pipes.take() is None
    os.write(one[1], b"left over")
    pipes.give(one, empty=False)
    pipes.give(two, empty=True)
    again, other = pipes.take(), pipes.take()
    assert again == two
    assert other is not None
    with pytest.raises(BlockingIOError):
        os.read(other[0], 1)
    for pipe in (two, other):
        os.close(pipe[0])
        os.close(pipe[1])


@pytest.fixture(autouse=True)
def _no_descriptor_is_lost() -> Iterator[None]:
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 8
