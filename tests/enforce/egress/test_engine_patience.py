"""Slow clients of the engine: what is begun and never completed ends, what is only slow or at rest goes on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import h2.config
import h2.connection
import pytest

from agent.enforce.egress import engine_patience
from agent.enforce.egress.engine_patience import HeadClock, Rest
from agent.policy.model import EgressLimits, Policy
from tests.enforce.egress.engine_front import HOST, PATIENCE, Front, Target, policy_of, tls_rule
from tests.enforce.egress.engine_upstream import Authority, Http1Upstream, Http2Upstream
from tests.enforce.egress.secret_upstream import OK, KeepingUpstream

HEAD = 1
DRIP = 0.1


def limited(given: Policy, **limits: int) -> Policy:
    (layer,) = given.layers
    assert layer.egress is not None
    return replace(given, layers=(replace(layer, egress=replace(layer.egress, limits=EgressLimits(**limits))),))


@pytest.fixture(scope="module")
def engine(
    authority: Authority, session_upstream: Http1Upstream, session_h2_upstream: Http2Upstream
) -> Iterator[Front]:
    rules = [tls_rule(HOST, server.port, paths=("/simple/**",)) for server in (session_upstream, session_h2_upstream)]
    front = Front(limited(policy_of(*rules), head=HEAD), authority.file)
    yield front
    front.close()


@pytest.fixture
def front(engine: Front, upstream: Http1Upstream) -> Front:
    engine.target = Target(HOST, upstream.port)
    return engine


def dripped_until_cut(sock: socket.socket, data: bytes) -> bool:
    """True where the connection ends while `data` is sent byte by byte (the last one over and over)."""
    sock.settimeout(DRIP)
    for at in range(int(PATIENCE / DRIP)):
        try:
            sock.sendall(data[min(at, len(data) - 1)].to_bytes())
            if not sock.recv(65536):
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def http1(front: Front) -> tuple[socket.socket, bytes]:
    return front.tls(), front.head("GET /simple/x HTTP/1.1")[:-2] + b"X-Slow: "


def http1_again(front: Front) -> tuple[socket.socket, bytes]:
    """A second head, after a request that was answered."""
    sock = front.tls()
    sock.sendall(front.head("GET /simple/x HTTP/1.1"))
    assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
    return sock, front.head("GET /simple/x HTTP/1.1")[:-2] + b"X-Slow: "


def http2_block(front: Front) -> tuple[socket.socket, bytes]:
    """HEADERS without END_HEADERS, then a CONTINUATION whose end never comes (RFC 9113 6.2, 6.10)."""
    sock = _http2(front)
    sock.sendall(b"\x00\x00\x01\x01\x01\x00\x00\x00\x01\x82")
    return sock, b"\x00\x40\x00\x09\x00\x00\x00\x00\x01" + b"\x00"


def http2_frame(front: Front) -> tuple[socket.socket, bytes]:
    return _http2(front), b"\x00\x40\x00\x01\x04\x00\x00\x00\x01" + b"\x00"


def _http2(front: Front) -> ssl.SSLSocket:
    sock = front.tls(alpn=("h2",))
    client = h2.connection.H2Connection(h2.config.H2Configuration())
    client.initiate_connection()
    sock.sendall(client.data_to_send())
    return sock


def handshake(front: Front) -> tuple[socket.socket, bytes]:
    """A ClientHello that goes on for ever."""
    return front.connect(), b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03" + b"\x00"


def tls_record(front: Front) -> tuple[socket.socket, bytes]:
    """One TLS record for one request, byte by byte: nothing of it can be read before its end."""
    context = ssl.create_default_context(cadata=front.ca_pem)
    sock, into, out = front.connect(), ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(into, out, server_hostname=HOST)
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            sock.sendall(out.read())
            into.write(sock.recv(65536))
    sock.sendall(out.read())
    tls.write(front.head("GET /simple/x HTTP/1.1", f"X-Long: {'x' * 8000}"))
    return sock, out.read()


SLOW = [http1, http1_again, http2_block, http2_frame, handshake, tls_record]


@pytest.mark.row(42)
@pytest.mark.parametrize("begin", SLOW)
def test_what_a_client_never_completes_is_cut(
    front: Front, begin: Callable[[Front], tuple[socket.socket, bytes]]
) -> None:
    sock, data = begin(front)
    with sock:
        assert dripped_until_cut(sock, data)
    assert front.get("GET", "/simple/x")[0].status == 200


def test_a_head_that_began_behind_another_request_is_cut(front: Front) -> None:
    whole = front.head("GET /simple/x HTTP/1.1")
    with front.tls() as sock:
        sock.sendall(whole + whole[:20])
        answer = bytearray()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while piece := sock.recv(65536):
                answer += piece
        assert answer.count(b"HTTP/1.1 200 ") == 1


@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
def test_an_answer_may_take_longer_than_a_head(authority: Authority, alpn: str) -> None:
    """One request in one piece, and nothing more of the client."""
    server = KeepingUpstream(authority.server_context(HOST))

    def late(_: bytes) -> list[bytes]:
        time.sleep(HEAD + 5 * DRIP)
        return [OK]

    server.answer = late
    front = Front(limited(policy_of(tls_rule(HOST, server.port, paths=("/simple/**",))), head=HEAD), authority.file)
    front.target = Target(HOST, server.port)
    try:
        if alpn == "h2":
            assert "200" in front.curl("--http2", "-o", "/dev/null", "-w", "%{http_code}", _url(front))
        else:
            assert front.raw(front.head("GET /simple/x HTTP/1.1", "Connection: close")).startswith(b"HTTP/1.1 200 ")
    finally:
        front.close()
        server.close()


def _url(front: Front) -> str:
    return f"https://{HOST}:{front.target.port}/simple/x"


def test_a_connection_at_rest_between_requests_and_a_slow_body_go_on(front: Front) -> None:
    def slowly() -> Iterator[bytes]:
        for _ in range(15):
            yield b"x"
            time.sleep(DRIP)

    client = front.client()
    for _ in range(2):
        client.request("POST", "/simple/x", slowly(), {"Content-Length": "15"})
        response = client.getresponse()
        assert (response.status, bool(response.read())) == (200, True)
        time.sleep(HEAD + 3 * DRIP)
    client.close()


def test_an_http2_connection_at_rest_goes_on(front: Front, h2_upstream: Http2Upstream) -> None:
    front.target = Target(HOST, h2_upstream.port)
    sock = front.tls(alpn=("h2",))
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    for stream in (1, 3):
        head = {":method": "GET", ":path": "/simple/x", ":scheme": "https", ":authority": f"{HOST}:{h2_upstream.port}"}
        client.send_headers(stream, list(head.items()), end_stream=True)
        sock.sendall(client.data_to_send())
        answered = False
        while not answered:
            found = client.receive_data(sock.recv(65536))
            answered = any(type(event).__name__ == "ResponseReceived" for event in found)
        for _ in range(3):
            time.sleep(HEAD / 2)
            client.ping(b"12345678")
            sock.sendall(client.data_to_send())
    sock.close()


@pytest.mark.parametrize("rest", [{"idle": 1}, {}], ids=["of the session", "of the rule"])
def test_a_connection_at_rest_ends_after_the_idle_time(
    authority: Authority, upstream: Http1Upstream, rest: dict[str, int]
) -> None:
    front = Front(limited(policy_of(tls_rule(HOST, upstream.port, paths=("/simple/**",))), **rest), authority.file)
    front.target = Target(HOST, upstream.port, idle=None if rest else 1)
    try:
        with front.tls() as sock:
            sock.sendall(front.head("GET /simple/x HTTP/1.1"))
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while sock.recv(65536):
                    pass
    finally:
        front.close()


def test_time_in_which_the_engine_does_not_read_is_not_the_clients() -> None:
    async def body() -> tuple[int, int]:
        rang: list[str] = []
        clock = HeadClock(0.05, lambda: rang.append("late"))
        with clock.paused():
            await asyncio.sleep(0.3)
        during = len(rang)
        clock.heard(incomplete=False)
        await asyncio.sleep(0.3)
        after = len(rang)
        clock.heard(incomplete=True)
        while not rang:
            await asyncio.sleep(0.01)
        clock.stop()
        return during, after

    assert asyncio.run(body()) == (0, 0)


def test_a_rest_that_becomes_shorter_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_patience, "LOOK_SECONDS", 0.02)

    async def body() -> None:
        over = asyncio.Event()

        async def callback() -> None:
            over.set()

        rest = Rest(3600, callback)
        watch = asyncio.create_task(rest.watch())
        await asyncio.sleep(0.05)
        assert not over.is_set()
        rest.timeout = 0
        await asyncio.wait_for(over.wait(), PATIENCE)
        await watch

    asyncio.run(body())
