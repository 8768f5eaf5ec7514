"""What the engine cuts after it has begun is on record once, with its rule and its reason."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, Request, TextMessage

from agent.enforce.egress import engine_layers, engine_room
from agent.policy.model import Pattern
from tests.enforce.egress.engine_front import HOST, PATIENCE, Front, Target, policy_of, tls_rule, until
from tests.enforce.egress.engine_upstream import Authority, Http1Upstream
from tests.enforce.egress.test_engine_faults import Inside
from tests.enforce.egress.test_engine_layers import websocket

MESSAGE = 1024 * 1024
KEY = "tstkey_" + "a1b2c3d4" * 3
PATTERNS = (Pattern("test-key", "key of a test", rb"tstkey_[a-z0-9]{24}", (b"tstkey_",)),)


def unfinished(sock: ssl.SSLSocket, peer: WSConnection, pieces: int) -> bool:
    """Send so many pieces of one message that has no end; True where the connection is cut."""
    piece = b"a" * MESSAGE
    with contextlib.suppress(OSError):
        for _ in range(pieces):
            sock.sendall(peer.send(BytesMessage(data=piece, message_finished=False)))
        return not sock.recv(65536)
    return True


def test_a_websocket_message_that_has_no_end_is_cut_and_recorded(front: Front) -> None:
    sock, peer, seen = websocket(front, "/ws/x")
    assert isinstance(seen[-1], AcceptConnection)
    with sock:
        assert unfinished(sock, peer, engine_layers.MAX_WEBSOCKET_MESSAGE // MESSAGE + 1)
    (event,) = front.journal.wait()
    assert (event.details["rule"], event.details["path"]) == ("message-too-long", "/ws/x")
    assert str(engine_layers.MAX_WEBSOCKET_MESSAGE) in str(event.details["reason"])
    assert (event.type, event.result) == ("network.egress_blocked", "denied")


@pytest.fixture
def inside(authority: Authority, upstream: Http1Upstream) -> Iterator[Inside]:
    rule = tls_rule(HOST, upstream.port, methods=("GET",), paths=("/ws/**",), scan=True)
    engine = Inside(policy_of(rule, patterns=PATTERNS), authority)
    engine.target = Target(HOST, upstream.port)
    yield engine
    engine.close()


def upgraded(inside: Inside) -> tuple[ssl.SSLSocket, WSConnection]:
    sock, peer = inside.tls(), WSConnection(ConnectionType.CLIENT)
    sock.sendall(peer.send(Request(host=f"{HOST}:{inside.target.port}", target="/ws/x")))
    peer.receive_data(sock.recv(65536))
    assert [type(event) for event in peer.events()] == [AcceptConnection]
    return sock, peer


def test_a_websocket_for_whose_messages_there_is_no_room_is_cut_and_recorded(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_room, "MOST_IN_ALL", MESSAGE)
    sock, peer = upgraded(inside)
    with sock:
        assert unfinished(sock, peer, 3)
    inside.served.pop().result(PATIENCE)
    (event,) = inside.journal.posted
    assert (event.details["rule"], "memory" in str(event.details["reason"])) == ("message-too-long", True)


def test_a_credential_in_a_websocket_message_is_recorded_once(inside: Inside) -> None:
    sock, peer = upgraded(inside)
    with sock, contextlib.suppress(OSError):
        sock.sendall(peer.send(TextMessage(data=f"so: {KEY}")))
        assert not sock.recv(65536)
    inside.served.pop().result(PATIENCE)
    (event,) = inside.journal.posted
    assert (event.details["rule"], "a WebSocket frame" in str(event.details["reason"])) == (
        "credential-in-upload",
        True,
    )


def test_what_a_server_switches_to_unasked_is_recorded(front: Front) -> None:
    offer = ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Extensions: permessage-deflate")
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    assert b"101" not in front.raw(front.head("GET /ws/extended HTTP/1.1", *upgrade, *offer))
    until(lambda: front.journal.rules() == ["upgrade-refused"], "the one record")
