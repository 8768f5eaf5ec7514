"""Secrets in what has no head of its own: HTTP/2 streams and trailers, WebSocket messages and control frames."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Ping, Pong, Request, TextMessage

from agent.enforce.egress.secrets import HeldSecret, Secrets
from agent.policy.model import Secret, SecretSource, SourceKind, Where
from agent.record.event import EventType
from tests.enforce.egress.engine_front import HOST, Front, Target, policy_of, tls_rule
from tests.enforce.egress.engine_upstream import Authority, Http1Upstream, Http2Upstream
from tests.enforce.egress.test_engine_http2 import Http2Client

VALUE = "real-Value+of/the~secret-0123456789"
PLACEHOLDER = "parhelia-placeholder-api-00112233445566778899aabbccddeeff"


@pytest.fixture(scope="module")
def engine(
    authority: Authority, session_upstream: Http1Upstream, session_h2_upstream: Http2Upstream
) -> Iterator[Front]:
    where = Where("t.yaml", 1, 1)
    source = SecretSource(SourceKind.ENV, ("KEY",))
    entry = Secret("api", source, (HOST,), ("x-api-key",), where, env="KEY")
    rules = [tls_rule(HOST, each.port, paths=("/**",)) for each in (session_upstream, session_h2_upstream)]
    held = Secrets([HeldSecret("api", PLACEHOLDER, VALUE)])
    front = Front(policy_of(*rules, secrets=(entry,)), authority.file, secrets=held)
    yield front
    front.close()


@pytest.fixture
def secret_front(engine: Front, upstream: Http1Upstream, h2_upstream: Http2Upstream) -> Front:
    engine.journal.renew()
    engine.target = Target(HOST, upstream.port)
    return engine


@pytest.fixture
def h2_front(secret_front: Front, h2_upstream: Http2Upstream) -> Front:
    secret_front.target = Target(HOST, h2_upstream.port)
    return secret_front


def test_each_http2_stream_gets_its_own_value_or_refusal(h2_front: Front, h2_upstream: Http2Upstream) -> None:
    client = Http2Client(h2_front)
    streams = [
        client.send("GET", "/a", ("x-api-key", PLACEHOLDER)),
        client.send("GET", "/b"),
        client.send("GET", "/c", ("x-other", PLACEHOLDER)),
        client.send("POST", "/d", ("content-length", str(len(VALUE))), body=VALUE.encode()),
        client.send("POST", "/e", body=b"harmless"),
    ]
    answers = client.answers(streams)
    assert [answers[stream][0] for stream in streams] == [200, 200, 403, 403, 200]
    assert [headers.get("x-api-key") for headers in h2_upstream.headers if headers[":path"] == "/a"] == [VALUE]
    assert sorted(path for _, path, _ in h2_upstream.requests) == ["/a", "/b", "/e"]
    assert [event.details["rule"] for event in h2_front.journal.wait(2)] == ["secret-leak", "secret-leak"]
    assert [event.type for event in h2_front.journal.accepted] == [EventType.SECRET_INJECT]
    assert b"denied by secret-leak" in answers[streams[2]][1]


def test_a_secret_in_pieces_of_http2_data_does_not_leave_whole(h2_front: Front, h2_upstream: Http2Upstream) -> None:
    client = Http2Client(h2_front)
    stream = client.peer.get_next_available_stream_id()
    fields = [(":method", "POST"), (":scheme", "https"), (":path", "/x"), (":authority", client.authority)]
    client.peer.send_headers(stream, fields)
    for character in VALUE:
        client.peer.send_data(stream, character.encode())
        client.peer.send_data(stream, b"")  # an empty frame is no end, and flushes nothing
    client.peer.send_data(stream, b"", end_stream=True)
    client.flush()
    assert client.answers([stream])[stream][0] == 0
    assert h2_front.journal.wait()[0].details["rule"] == "secret-leak"
    assert h2_upstream.requests == []


def test_a_secret_in_a_trailer_is_a_leak_and_the_request_never_ends(
    h2_front: Front, h2_upstream: Http2Upstream
) -> None:
    client = Http2Client(h2_front)
    stream = client.peer.get_next_available_stream_id()
    fields = [(":method", "POST"), (":scheme", "https"), (":path", "/x"), (":authority", client.authority)]
    client.peer.send_headers(stream, fields)
    client.peer.send_data(stream, b"harmless")
    client.peer.send_headers(stream, [("x-last", base64.b64encode(VALUE.encode()).decode())], end_stream=True)
    client.flush()
    assert client.answers([stream])[stream][0] == 0
    event = h2_front.journal.wait()[0]
    assert (event.details["rule"], "a trailer" in str(event.details["reason"])) == ("secret-leak", True)
    assert h2_upstream.requests == []


@pytest.mark.parametrize("name", ["authorization", "x-http-method-override", "x-last"])
def test_trailers_never_reach_an_upstream_that_could_take_them_for_fields(
    h2_front: Front, h2_upstream: Http2Upstream, name: str
) -> None:
    client = Http2Client(h2_front)
    stream = client.peer.get_next_available_stream_id()
    fields = [(":method", "POST"), (":scheme", "https"), (":path", "/x"), (":authority", client.authority)]
    client.peer.send_headers(stream, [*fields, ("te", "trailers"), ("trailer", name)])
    client.peer.send_data(stream, b"harmless")
    client.peer.send_headers(stream, [(name, "Bearer mine")], end_stream=True)
    client.flush()
    status, body = client.answers([stream])[stream]
    assert (status, body.split()[:3]) == (200, [b"POST", b"/x", b"8"])
    assert name not in h2_upstream.headers[0]


def test_http2_trailers_end_where_the_upstream_speaks_http1(secret_front: Front, upstream: Http1Upstream) -> None:
    client = Http2Client(secret_front)
    stream = client.peer.get_next_available_stream_id()
    fields = [(":method", "POST"), (":scheme", "https"), (":path", "/x"), (":authority", client.authority)]
    client.peer.send_headers(stream, fields)
    client.peer.send_data(stream, b"harmless")
    client.peer.send_headers(stream, [("x-last", "1")], end_stream=True)
    client.flush()
    status, body = client.answers([stream])[stream]
    assert (status, body.split()[:3]) == (200, [b"POST", b"/x", b"8"])


def open_websocket(front: Front, *fields: tuple[bytes, bytes]) -> tuple[ssl.SSLSocket, WSConnection]:
    sock, peer = front.tls(), WSConnection(ConnectionType.CLIENT)
    asked = Request(host=f"{HOST}:{front.target.port}", target="/ws/x", extra_headers=list(fields))
    sock.sendall(peer.send(asked))
    assert isinstance(following(sock, peer)[0], AcceptConnection)
    return sock, peer


def following(sock: ssl.SSLSocket, peer: WSConnection) -> list[Event]:
    """The next events; empty where the connection was cut."""
    seen: list[Event] = []
    while not seen:
        try:
            data = sock.recv(65536)
        except OSError:
            return []
        if not data:
            return []
        peer.receive_data(data)
        seen += peer.events()
    return seen


LEAKING = {
    "text": TextMessage(data=f"so: {VALUE}"),
    "bytes": BytesMessage(data=PLACEHOLDER.encode()),
    "ping": Ping(payload=VALUE.encode()),
    "pong": Pong(payload=VALUE.encode()),
    "close": CloseConnection(code=1000, reason=VALUE),
}


@pytest.mark.parametrize("name", LEAKING)
def test_a_secret_in_any_websocket_frame_cuts_the_connection(secret_front: Front, name: str) -> None:
    sock, peer = open_websocket(secret_front)
    sock.sendall(peer.send(LEAKING[name]))
    seen = following(sock, peer)
    assert seen == []
    event = secret_front.journal.wait()[0]
    assert (event.details["rule"], "a WebSocket frame" in str(event.details["reason"])) == ("secret-leak", True)


def test_a_secret_over_two_messages_is_found_with_the_second(secret_front: Front) -> None:
    sock, peer = open_websocket(secret_front)
    sock.sendall(peer.send(TextMessage(data=VALUE[:20])))
    assert [event.data for event in following(sock, peer)] == [VALUE[:20]]  # type: ignore[attr-defined]
    sock.sendall(peer.send(TextMessage(data=VALUE[20:])))
    assert following(sock, peer) == []
    assert secret_front.journal.wait()[0].details["rule"] == "secret-leak"


def test_a_websocket_with_an_injected_credential_passes_harmless_messages(
    secret_front: Front, upstream: Http1Upstream
) -> None:
    sock, peer = open_websocket(secret_front, (b"X-Api-Key", PLACEHOLDER.encode()))
    sock.sendall(peer.send(Ping(payload=b"there?")) + peer.send(TextMessage(data="hello")))
    assert [event.data for event in following(sock, peer)] == ["hello"]  # type: ignore[attr-defined]
    sock.sendall(peer.send(CloseConnection(code=1000, reason="done")))
    assert isinstance(following(sock, peer)[0], CloseConnection)
    assert upstream.headers[0]["x-api-key"] == VALUE
    assert secret_front.journal.posted == []


def test_a_value_in_the_answer_to_an_upgrade_is_masked(secret_front: Front, upstream: Http1Upstream) -> None:
    sock, peer = secret_front.tls(), WSConnection(ConnectionType.CLIENT)
    key = [(b"X-Api-Key", PLACEHOLDER.encode())]
    asked = Request(host=f"{HOST}:{secret_front.target.port}", target="/ws/told", extra_headers=key)
    sock.sendall(peer.send(asked))
    (accepted,) = following(sock, peer)
    assert isinstance(accepted, AcceptConnection)
    assert upstream.headers[0]["x-api-key"] == VALUE
    (echo,) = [value for name, value in accepted.extra_headers if name == b"x-echo"]
    assert echo == b"[secret api]".ljust(len(VALUE), b"*")
