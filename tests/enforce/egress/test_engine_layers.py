"""Bodies, streams and WebSockets through the engine, in bounded memory."""

from __future__ import annotations

import hashlib
import ssl

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, RejectConnection, Request, TextMessage

from tests.enforce.egress import engine_upstream
from tests.enforce.egress.engine_front import HOST, MEBIBYTE, Front, exchange, resident_peak, until
from tests.enforce.egress.engine_upstream import CHUNK, Http1Upstream


def test_a_body_arrives_whole_with_its_length_or_its_chunks(front: Front) -> None:
    body = CHUNK * 3
    _, said = front.get("POST", "/simple/up", body)
    assert said.split()[2:] == [str(len(body)).encode(), hashlib.sha256(body).hexdigest().encode()]
    client = front.client()
    client.request("POST", "/simple/up", iter([b"a" * 1000, b"b" * 70000]), encode_chunked=True)
    said = client.getresponse().read()
    client.close()
    assert said.split()[2:] == [b"71000", hashlib.sha256(b"a" * 1000 + b"b" * 70000).hexdigest().encode()]


def test_expect_continue_is_answered_for_an_allowed_request_and_not_for_a_refused_one(front: Front) -> None:
    with front.tls() as sock:
        sock.sendall(front.head("POST /simple/x HTTP/1.1", "Content-Length: 3", "Expect: 100-continue"))
        assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        assert exchange(sock, b"abc" + front.head("GET /admin HTTP/1.1", "Connection: close")).count(b" 200 OK") == 1
    with front.tls() as sock:
        sock.sendall(front.head("POST /admin HTTP/1.1", "Content-Length: 3", "Expect: 100-continue"))
        assert sock.recv(1000).startswith(b"HTTP/1.1 403 ")


def test_a_stream_of_events_is_not_held_back(front: Front) -> None:
    engine_upstream.RELEASE.clear()
    client = front.client()
    client.request("GET", "/events")
    response = client.getresponse()
    assert response.read1(100).startswith(b"data: first")
    engine_upstream.RELEASE.set()
    assert response.read().endswith(b"data: last\n\n")
    client.close()


def test_large_bodies_are_streamed_in_bounded_memory(front: Front) -> None:
    front.get("GET", "/big/64")
    before = resident_peak(front.engine.pid)
    blocks = 3000
    client = front.client()
    client.request("GET", f"/big/{blocks}")
    response = client.getresponse()
    received = 0
    while block := response.read(MEBIBYTE):
        received += len(block)
    assert received == blocks * len(CHUNK)
    client.request("POST", "/simple/up", iter([CHUNK] * blocks), {"Content-Length": str(received)})
    assert client.getresponse().read().split()[2] == str(received).encode()
    client.close()
    assert resident_peak(front.engine.pid) - before < 24 * MEBIBYTE
    until(lambda: front.down > received and front.up > received, "the byte counts")


def test_a_refused_upload_is_answered_at_once_and_its_body_is_thrown_away(
    front: Front, upstream: Http1Upstream
) -> None:
    before = resident_peak(front.engine.pid)
    size = 3000 * len(CHUNK)
    with front.tls() as sock:
        sock.sendall(front.head("POST /admin HTTP/1.1", f"Content-Length: {size}"))
        assert sock.recv(100).startswith(b"HTTP/1.1 403 ")
        for _ in range(3000):
            sock.sendall(CHUNK)
        assert exchange(sock, b"").endswith(b"policy\n")
    assert resident_peak(front.engine.pid) - before < 24 * MEBIBYTE
    assert upstream.connections == 0


def test_an_endless_request_head_is_cut(front: Front, upstream: Http1Upstream) -> None:
    with front.tls() as sock, pytest.raises((OSError, AssertionError)):
        sock.sendall(front.head("GET /simple/x HTTP/1.1")[:-2])
        for _ in range(400):
            sock.sendall(b"X: " + b"a" * 16000 + b"\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert front.journal.wait()[0].details["rule"] == "malformed-request"
    assert upstream.connections == 0


def websocket(front: Front, path: str) -> tuple[ssl.SSLSocket, WSConnection, list[object]]:
    sock = front.tls()
    peer = WSConnection(ConnectionType.CLIENT)
    sock.sendall(peer.send(Request(host=f"{HOST}:{front.target.port}", target=path)))
    return sock, peer, websocket_events(sock, peer, AcceptConnection, RejectConnection)


def websocket_events(sock: ssl.SSLSocket, peer: WSConnection, *last: type) -> list[object]:
    seen: list[object] = []
    while not any(isinstance(event, last) for event in seen):
        data = sock.recv(65536)
        peer.receive_data(data or None)
        seen += peer.events()
        if not data:
            break
    return seen


def test_a_websocket_to_an_allowed_path_passes_messages_both_ways(front: Front) -> None:
    sock, peer, seen = websocket(front, "/ws/chat")
    assert isinstance(seen[-1], AcceptConnection)
    for number in range(5):
        sock.sendall(peer.send(TextMessage(data=f"hello {number}")))
        assert [event.data for event in websocket_events(sock, peer, TextMessage)] == [f"hello {number}"]  # type: ignore[attr-defined]
    sock.sendall(peer.send(CloseConnection(code=1000)))
    assert isinstance(websocket_events(sock, peer, CloseConnection)[-1], CloseConnection)
    sock.close()


@pytest.mark.row(35)
def test_a_websocket_to_another_path_is_refused(front: Front, upstream: Http1Upstream) -> None:
    _, _, seen = websocket(front, "/chat")
    assert isinstance(seen[0], RejectConnection)
    assert seen[0].status_code == 403
    assert front.journal.wait()[0].details["path"] == "/chat"
    assert upstream.connections == 0


def test_a_websocket_whose_server_takes_an_extension_that_nobody_offered_is_cut(
    front: Front, upstream: Http1Upstream
) -> None:
    """Compressed messages would not be searched. The client offers it; the engine does not pass that on."""
    offer = ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Extensions: permessage-deflate")
    head = front.head(
        "GET /ws/extended HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", *offer
    )
    with front.tls() as sock:
        assert b"101" not in exchange(sock, head)
    assert [target for _, target, _ in upstream.requests] == ["/ws/extended"]
    assert "sec-websocket-extensions" not in upstream.headers[-1]


def test_after_a_websocket_upgrade_nothing_but_frames_passes(front: Front, upstream: Http1Upstream) -> None:
    sock, _, seen = websocket(front, "/ws/x")
    assert isinstance(seen[-1], AcceptConnection)
    exchange(sock, front.head("DELETE /admin HTTP/1.1"))
    sock.close()
    assert [target for _, target, _ in upstream.requests] == ["/ws/x"]
