"""How long the session's connections on loopback are waited for."""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

import pytest

from agent.enforce.egress.dialling import PATIENCE_MS, REST_S, SHORT_MS, Patience
from tests.conftest import require
from tests.enforce.egress.connected import World, outcome, say

MOST_JIFFY_US = 10_000


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def waits_us(sock: socket.socket) -> int:
    seconds, micros = struct.unpack("=qq", sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16))
    return int(seconds) * 1_000_000 + int(micros)


def test_after_a_wait_in_vain_others_hardly_wait_for_a_while() -> None:
    clock = Clock()
    patience = Patience(clock)
    with socket.socket() as sock:
        for _ in range(3):
            with patience.hurried(sock):
                assert PATIENCE_MS * 1000 <= waits_us(sock) < PATIENCE_MS * 1000 + MOST_JIFFY_US
                clock.now += 0.001
            assert (patience.ms, waits_us(sock)) == (PATIENCE_MS, 0)
        with pytest.raises(OSError, match="full"), patience.hurried(sock):
            clock.now += PATIENCE_MS / 1000
            raise OSError(errno.EAGAIN, "full")
        assert waits_us(sock) == 0
        for _ in range(5):
            with patience.hurried(sock):
                assert SHORT_MS * 1000 <= waits_us(sock) < SHORT_MS * 1000 + MOST_JIFFY_US
                clock.now += SHORT_MS / 1000
        clock.now += REST_S
        assert patience.ms == PATIENCE_MS


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_a_server_whose_queue_is_full_is_refused_often_and_reached_when_it_has_room(
    family: socket.AddressFamily,
) -> None:
    require(os.geteuid() == 0 and Path("/usr/bin/true").exists(), "needs root: the session has a user of its own")
    world = World()

    def act() -> None:
        with socket.socket(family) as server:
            server.bind("full.sock" if family == socket.AF_UNIX else ("127.0.0.1", 0))
            server.listen(0)
            name = server.getsockname()
            held = [socket.socket(family) for _ in range(12)]
            said = [outcome(lambda sock=sock: sock.connect(name)) for sock in held]
            say(said[0], set(said[3:]))
            server.accept()
            say("ok" in [outcome(lambda sock=sock: sock.connect(name)) for sock in held[3:]])

    full = os.strerror(errno.EAGAIN if family == socket.AF_UNIX else errno.ECONNREFUSED)
    assert world.run(act).out.splitlines() == [f"ok {{{full!r}}}", "True"]
    world.close()
