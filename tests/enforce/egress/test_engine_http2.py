"""HTTP/2 through the engine: every stream is decided, and what HTTP/2 can say that HTTP/1 cannot stays harmless."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterable
from typing import Protocol

import h2.config
import h2.connection
import h2.events
import pytest

from tests.conftest import require
from tests.enforce.egress.engine_front import (
    HOST,
    MEBIBYTE,
    Front,
    Target,
    policy_of,
    resident_peak,
    settle,
    tls_rule,
    until,
)
from tests.enforce.egress.engine_upstream import CHUNK, Authority, Http1Upstream, Http2Upstream

type Fields = list[tuple[str, str]]


class Reached(Protocol):
    """An engine, in a process of its own or in the test's."""

    target: Target

    def tls(self, *, alpn: tuple[str, ...]) -> ssl.SSLSocket: ...


class Http2Client:
    """A client that sends what it is told: h2's own checks of outgoing headers are off."""

    def __init__(self, front: Reached) -> None:
        self.authority = f"{front.target.host}:{front.target.port}"
        self.sock: ssl.SSLSocket = front.tls(alpn=("h2",))
        assert self.sock.selected_alpn_protocol() == "h2"
        self.peer = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding="latin-1",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.peer.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.sock.sendall(self.peer.data_to_send())

    def send(self, method: str, path: str, *more: tuple[str, str], body: bytes | None = None, **pseudo: str) -> int:
        stream = self.peer.get_next_available_stream_id()
        given = {"method": method, "scheme": "https", "path": path, "authority": self.authority} | pseudo
        fields: Fields = [(f":{key}", value) for key, value in given.items() if value != "-"]
        self.peer.send_headers(stream, [*fields, *more], end_stream=body is None)
        if body is not None:
            self.peer.send_data(stream, body, end_stream=True)
        self.flush()
        return stream

    def answers(self, streams: Iterable[int]) -> dict[int, tuple[int, bytes]]:
        """Status and body of each stream; status 0 where the stream or the connection was reset."""
        wanted = set(streams)
        statuses, bodies, ended = dict.fromkeys(wanted, 0), {stream: bytearray() for stream in wanted}, set[int]()
        while not wanted <= ended:
            data = self.sock.recv(65536)
            if not data:
                break
            for event in self.peer.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    statuses[event.stream_id] = int(dict(event.headers)[":status"])  # type: ignore[arg-type, index]
                elif isinstance(event, h2.events.DataReceived):
                    bodies[event.stream_id] += event.data
                    self.peer.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                    ended.add(event.stream_id)
                elif isinstance(event, h2.events.ConnectionTerminated):
                    ended |= wanted
            self.flush()
        return {stream: (statuses[stream], bytes(bodies[stream])) for stream in wanted}


@pytest.fixture
def h2_front(front: Front, h2_upstream: Http2Upstream) -> Front:
    front.target = Target(HOST, h2_upstream.port)
    return front


@pytest.mark.row(35)
def test_each_stream_of_a_connection_is_decided(h2_front: Front, h2_upstream: Http2Upstream) -> None:
    client = Http2Client(h2_front)
    streams = {client.send("GET", f"/simple/{n}" if n % 2 else f"/admin/{n}"): n for n in range(24)}
    answers = client.answers(streams)
    assert {n: answers[stream][0] for stream, n in streams.items()} == {n: 200 if n % 2 else 403 for n in range(24)}
    assert sorted(path for _, path, _ in h2_upstream.requests) == sorted(f"/simple/{n}" for n in range(1, 24, 2))
    assert h2_upstream.connections == 1
    assert {event.details["rule"] for event in h2_front.journal.wait(12)} == {"egress-default"}
    refused = next(body for stream, (_, body) in answers.items() if streams[stream] == 0)
    assert refused.startswith(b"parhelia: denied by egress-default")


def test_many_streams_over_an_http1_upstream_do_not_hang(front: Front, upstream: Http1Upstream) -> None:
    client = Http2Client(front)
    streams = [client.send("GET", f"/simple/{number}") for number in range(40)]
    assert {status for status, _ in client.answers(streams).values()} == {200}
    assert len(upstream.requests) == 40


HTTP2_ATTACKS = [
    ("another authority", {"authority": "evil.test"}, [], 421, "authority-mismatch"),
    ("another Host beside the authority", {}, [("host", "evil.test")], 0, "malformed-request"),
    ("no authority and another Host", {"authority": "-"}, [("host", "evil.test")], 421, "authority-mismatch"),
    ("no name at all", {"authority": "-"}, [], 0, "malformed-request"),
    ("a user in the authority", {"authority": f"{HOST}@evil.test"}, [], 0, "malformed-request"),
    (
        "a request in the path",
        {"path": "/simple/x HTTP/1.1\r\nHost: x\r\n\r\nDELETE /admin"},
        [],
        0,
        "malformed-request",
    ),
    ("a space in the path", {"path": "/simple/x y"}, [], 400, "malformed-request"),
    ("a path without a slash", {"path": "simple/x"}, [], 400, "malformed-request"),
    ("dot segments", {"path": "/simple/../admin"}, [], 403, "egress-default"),
    ("a lower-case method", {"method": "get"}, [], 400, "malformed-request"),
    ("a line in the method", {"method": "GET /admin HTTP/1.1\r\nX: "}, [], 0, "malformed-request"),
    ("TRACE", {"method": "TRACE"}, [], 403, "method-refused"),
    ("a header with a line break", {}, [("x", "a\r\nhost: evil.test")], 0, "malformed-request"),
    ("a field in a field's name", {}, [("authorization: bearer x", "y")], 0, "malformed-request"),
    ("a space after a name", {}, [("authorization ", "bearer x")], 0, "malformed-request"),
    ("no visible name", {}, [("x\x0by", "1")], 0, "malformed-request"),
    ("a coding of its own", {}, [("transfer-encoding", "chunked")], 0, "malformed-request"),
]


@pytest.mark.parametrize(
    ("pseudo", "more", "status", "rule"), [case[1:] for case in HTTP2_ATTACKS], ids=[case[0] for case in HTTP2_ATTACKS]
)
@pytest.mark.row(24, 35)
def test_a_stream_with_two_meanings_never_leaves(
    front: Front, upstream: Http1Upstream, pseudo: dict[str, str], more: Fields, status: int, rule: str
) -> None:
    client = Http2Client(front)
    method = pseudo.get("method", "GET")
    path = pseudo.get("path", "/simple/x")
    others = {key: value for key, value in pseudo.items() if key == "authority"}
    stream = client.send(method, path, *more, **others)
    said, _ = client.answers([stream])[stream]
    assert front.journal.wait()[0].details["rule"] == rule
    assert said == status
    assert upstream.requests == []


def test_connect_inside_a_stream_is_refused(front: Front, upstream: Http1Upstream) -> None:
    client = Http2Client(front)
    stream = client.send("CONNECT", "-", scheme="-", authority="evil.test:443")
    assert client.answers([stream])[stream][0] in (0, 403)
    assert front.journal.wait()[0].details["rule"] in ("connect-inside-tunnel", "malformed-request")
    assert upstream.connections == 0


def test_a_body_without_a_length_is_no_second_request_to_an_http1_upstream(
    front: Front, upstream: Http1Upstream
) -> None:
    hidden = f"DELETE /admin HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    client = Http2Client(front)
    stream = client.send("POST", "/simple/x", body=hidden)
    status, body = client.answers([stream])[stream]
    assert (status, body.split()[2]) == (200, str(len(hidden)).encode())
    assert [method for method, _, _ in upstream.requests] == ["POST"]
    assert upstream.headers[0]["transfer-encoding"] == "chunked"


def test_a_body_longer_than_its_length_never_reaches_the_upstream_whole(front: Front, upstream: Http1Upstream) -> None:
    client = Http2Client(front)
    stream = client.send("POST", "/simple/x", ("content-length", "2"), body=b"ab" + b"GET /admin HTTP/1.1\r\n\r\n")
    assert client.answers([stream])[stream][0] != 200
    client.sock.close()
    assert [target for _, target, _ in upstream.requests] in ([], ["/simple/x"])


def test_a_refused_upload_on_a_stream_is_answered_before_its_end(h2_front: Front, h2_upstream: Http2Upstream) -> None:
    client = Http2Client(h2_front)
    stream = client.peer.get_next_available_stream_id()
    names = [(":method", "POST"), (":scheme", "https"), (":path", "/admin"), (":authority", client.authority)]
    client.peer.send_headers(stream, names)
    client.peer.send_data(stream, b"a" * 1000)
    client.flush()
    assert client.answers([stream])[stream][0] == 403
    other = client.send("GET", "/simple/x")
    assert client.answers([other])[other][0] == 200
    assert [path for _, path, _ in h2_upstream.requests] == ["/simple/x"]


def test_a_client_that_opens_no_window_does_not_fill_the_worker(front: Front, upstream: Http1Upstream) -> None:
    client = Http2Client(front)
    quick = client.send("GET", "/simple/x")
    assert client.answers([quick])[quick][0] == 200
    before = resident_peak(front.engine.pid)
    stream = client.send("GET", "/big/1000")
    sent = front.down
    until(lambda: front.down - sent > len(CHUNK) or bool(upstream.requests[1:]), "the upstream's answer")
    settle(front)
    assert resident_peak(front.engine.pid) - before < 24 * MEBIBYTE
    client.peer.increment_flow_control_window(2**31 - 1 - 65535)
    client.peer.increment_flow_control_window(2**31 - 1 - 65535, stream)
    client.flush()
    status, body = client.answers([stream])[stream]
    assert (status, len(body)) == (200, 1000 * len(CHUNK))


def test_an_upload_over_a_dial_that_takes_its_time_does_not_fill_the_worker(authority: Authority) -> None:
    with socket.socket() as deaf, contextlib.ExitStack() as fillers:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        for _ in range(4):  # the backlog is full: from now on a SYN gets no answer
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        front = Front(policy_of(tls_rule(HOST, port, paths=("/**",))), authority.file)
        fillers.callback(front.close)
        front.target = Target(HOST, port)
        sock = fillers.enter_context(front.tls())
        sock.sendall(front.head("POST /x HTTP/1.1", f"Content-Length: {1 << 30}"))
        before = resident_peak(front.engine.pid)
        sock.settimeout(2)
        with pytest.raises(OSError):  # held back, or the dial has ended meanwhile
            for _ in range(1 << 14):
                sock.sendall(CHUNK)
        assert resident_peak(front.engine.pid) - before < 24 * MEBIBYTE


def test_curl_speaks_http2_through_the_engine(h2_front: Front, h2_upstream: Http2Upstream) -> None:
    shown = ["-w", "\n%{http_code} %{http_version}\n"]
    said = h2_front.curl("--http2", *shown, f"https://{HOST}:{h2_upstream.port}/simple/x")
    require(not said or said[-1] != "000 0", "curl with HTTP/2")
    assert said == ["GET /simple/x 0", "200 2"]
    refused = h2_front.curl("--http2", *shown, "-X", "DELETE", f"https://{HOST}:{h2_upstream.port}/simple/x")
    assert refused[-1] == "403 2"
    until(lambda: h2_front.journal.rules() == ["egress-default"], "the denial")


@pytest.mark.parametrize("scheme", ["http", "ftp", "https://evil.test/x?", "HTTPS", ""])
def test_what_a_stream_says_its_scheme_is_does_not_travel_on(
    h2_front: Front, h2_upstream: Http2Upstream, scheme: str
) -> None:
    client = Http2Client(h2_front)
    stream = client.send("GET", "/simple/x", scheme=scheme)
    client.answers([stream])
    assert {headers[":scheme"] for headers in h2_upstream.headers} <= {"https"}
    assert all(authority == client.authority for _, _, authority in h2_upstream.requests)


def test_a_failure_of_a_head_request_has_no_body_in_http2(front: Front, upstream: Http1Upstream) -> None:
    client = Http2Client(front)
    stream = client.send("HEAD", "/simple/x", scheme="ftp://")
    assert client.answers([stream])[stream] == (400, b"")


def test_a_request_that_is_given_up_in_the_same_breath_goes_nowhere(
    h2_front: Front, h2_upstream: Http2Upstream
) -> None:
    client = Http2Client(h2_front)
    given_up = client.peer.get_next_available_stream_id()
    fields = [(":method", "GET"), (":scheme", "https"), (":path", "/simple/gone"), (":authority", client.authority)]
    client.peer.send_headers(given_up, fields, end_stream=True)
    client.peer.reset_stream(given_up)
    client.flush()
    kept = client.send("GET", "/simple/kept")
    assert client.answers([kept])[kept][0] == 200
    assert [path for _, path, _ in h2_upstream.requests] == ["/simple/kept"]
