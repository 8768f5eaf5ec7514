"""The room that an engine's connections have together."""

from __future__ import annotations

import contextlib
import ssl
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.enforce.egress import engine_room
from agent.enforce.egress.engine_room import LITTLE, MOST_HELD, MOST_IN_ALL, Room
from tests.enforce.egress.engine_front import HOST, PATIENCE, Target, policy_of, tls_rule, until
from tests.enforce.egress.engine_upstream import Authority
from tests.enforce.egress.secret_upstream import OK, KeepingUpstream
from tests.enforce.egress.test_engine_faults import Inside


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 2 * MOST_HELD))))
def test_what_is_taken_is_the_sum_of_what_is_held(changes: list[tuple[int, int]]) -> None:
    room = Room()
    shares = [room.share() for _ in range(8)]
    for which, count in changes:
        shares[which].hold(count)
    assert room.taken == sum(share.held for share in shares)
    for share in shares:
        assert share.enough(share.held) == (
            share.held > MOST_HELD or (room.taken > MOST_IN_ALL and share.held > LITTLE)
        )
        share.hold(0)
    assert room.taken == 0


def test_connections_wait_for_each_other_s_room_and_all_of_it_is_given_back(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, many, block = 512 * 1024, 3, b"a" * 65536
    monkeypatch.setattr(engine_room, "MOST_IN_ALL", most)
    answered = threading.Event()
    server = KeepingUpstream(authority.server_context(HOST))
    server.answer = lambda _: [OK] if answered.wait(PATIENCE) else []
    inside = Inside(policy_of(tls_rule(HOST, server.port, paths=("/**",))), authority)
    inside.target = Target(HOST, server.port)
    socks = [inside.tls() for _ in range(many)]
    room = inside.room
    try:
        for sock in socks:
            sock.sendall(f"GET /x HTTP/1.1\r\nHost: {HOST}:{server.port}\r\n\r\n".encode())
        until(lambda: [pour(sock, block) for sock in socks] != [] and room.taken > most, "full room")
        assert room.taken <= most + many * (LITTLE + 2 * len(block))
    finally:
        answered.set()
        for sock in socks:
            sock.close()
        for served in inside.served:
            served.result(PATIENCE)
        inside.close()
        server.close()
    assert room.taken == 0


def pour(sock: ssl.SSLSocket, block: bytes) -> None:
    """As much as is taken."""
    sock.settimeout(0.3)
    with contextlib.suppress(OSError):
        for _ in range(32):
            sock.sendall(block)
