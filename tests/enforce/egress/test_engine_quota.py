"""The limits of intercepted hosts, on the real egress process and its engine worker."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage

from agent.enforce.egress.engine_quota import Accounts
from agent.policy.model import HostLimits, HostRule
from agent.policy.request import Protocol
from tests.enforce.egress.engine_front import HOST, NOBODY, exchange
from tests.enforce.egress.engine_upstream import Authority, Http1Upstream, Http2Upstream
from tests.enforce.egress.proxy import Proxy, eventually, policy, rule, running

PATHS = ("/simple/**", "/big/**", "/ws/**")


@contextlib.contextmanager
def served(authority: Authority, tmp_path: Path, *rules: HostRule) -> Iterator[Proxy]:
    user = (NOBODY, NOBODY) if os.geteuid() == 0 else None
    tmp_path.chmod(0o755)
    with running(policy(*rules), {HOST: [["127.0.0.1"]]}, tmp_path, user=user, ca_file=str(authority.file)) as proxy:
        yield proxy


def inspected(port: int, limits: HostLimits) -> HostRule:
    return rule(HOST, port, paths=PATHS, limits=limits)


def tls(proxy: Proxy, port: int, alpn: str = "http/1.1") -> ssl.SSLSocket:
    assert proxy.ca is not None
    context = ssl.create_default_context(cadata=proxy.ca)
    context.set_alpn_protocols([alpn])
    return context.wrap_socket(proxy.tunnel(HOST, port), server_hostname=HOST)


def ask(proxy: Proxy, port: int, request: str, *fields: str, body: bytes = b"") -> bytes:
    head = "\r\n".join([f"{request} HTTP/1.1", f"Host: {HOST}:{port}", *fields, "Connection: close", "", ""])
    with tls(proxy, port) as sock:
        return exchange(sock, head.encode() + body)


CHUNKED = "Transfer-Encoding: chunked"
CHUNKS = b"a\r\n0123456789\r\n" * 5 + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("limits", "request_line", "fields", "body", "rule_id"),
    [
        (HostLimits(body=0), "GET /simple/x", ["Content-Length: 5"], b"hello", "limit-body"),
        (HostLimits(body=0), "GET /simple/x", [CHUNKED], CHUNKS, "limit-body"),
        (HostLimits(body=0), "GET /simple/x", [], b"", None),
        (HostLimits(body=4), "POST /simple/x", ["Content-Length: 5"], b"hello", "limit-body"),
        (HostLimits(body=50), "POST /simple/x", [CHUNKED], CHUNKS, None),
        (HostLimits(body=49), "POST /simple/x", [CHUNKED], CHUNKS, "limit-body"),
        (HostLimits(upload=1000), "POST /simple/x", ["Content-Length: 2000"], b"x" * 2000, "limit-upload"),
        (HostLimits(upload=5), "GET /simple/x", [], b"", "limit-upload"),
        (HostLimits(upload=5000, download=5000), "GET /simple/x", [], b"", None),
    ],
)
@pytest.mark.row(34)
def test_an_inspected_request_against_its_limits(
    authority: Authority,
    upstream: Http1Upstream,
    tmp_path: Path,
    limits: HostLimits,
    request_line: str,
    fields: list[str],
    body: bytes,
    rule_id: str | None,
) -> None:
    with served(authority, tmp_path, inspected(upstream.port, limits)) as proxy:
        answer = ask(proxy, upstream.port, request_line, *fields, body=body)
        if rule_id is None:
            assert answer.startswith(b"HTTP/1.1 200 ")
            return
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert f"X-Parhelia-Rule: {rule_id}\r\n".encode() in answer
        event = proxy.event(type="network.egress_blocked", rule=rule_id, result="denied")
        assert event["details"]["mechanism"] == "engine"


def test_a_download_over_the_limit_is_cut_and_does_not_look_complete(
    authority: Authority, upstream: Http1Upstream, tmp_path: Path
) -> None:
    with served(authority, tmp_path, inspected(upstream.port, HostLimits(download=300_000))) as proxy:
        answer = ask(proxy, upstream.port, "GET /big/64")
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        assert len(body) <= 300_000 < length
        proxy.event(rule="limit-download", result="denied", mechanism="engine")
        again = ask(proxy, upstream.port, "GET /simple/x")
        assert b"X-Parhelia-Rule: limit-download\r\n" in again


def test_connections_at_once_count_those_in_the_engine_until_they_end(
    authority: Authority, upstream: Http1Upstream, tmp_path: Path
) -> None:
    with served(authority, tmp_path, inspected(upstream.port, HostLimits(connections=1))) as proxy:
        connect = f"CONNECT {HOST}:{upstream.port} HTTP/1.1\r\n\r\n".encode()
        with tls(proxy, upstream.port):
            assert b"X-Parhelia-Rule: limit-connections\r\n" in proxy.ask(connect)

        def free() -> bool:
            with proxy.connect() as sock:
                sock.sendall(connect)
                return sock.recv(100).startswith(b"HTTP/1.1 200 ")

        eventually(free)


def test_bytes_of_tunnels_and_plain_http_count_in_the_engine_and_back(
    authority: Authority, upstream: Http1Upstream, plain_upstream: Http1Upstream, tmp_path: Path
) -> None:
    limits = HostLimits(upload=3000)
    rules = (
        inspected(upstream.port, limits),
        rule(HOST, plain_upstream.port, protocol=Protocol.HTTP, limits=limits),
    )
    where = f"{HOST}:{plain_upstream.port}"
    plain = f"POST http://{where}/simple/x HTTP/1.1\r\nHost: {where}\r\nConnection: close\r\n".encode()
    with served(authority, tmp_path, *rules) as proxy:
        body = b"x" * 1300
        first = proxy.ask(plain + b"Content-Length: 1300\r\n\r\n" + body)
        assert first.startswith(b"HTTP/1.1 200 ")
        second = ask(proxy, upstream.port, "POST /simple/x", "Content-Length: 1300", body=body)
        assert second.startswith(b"HTTP/1.1 200 ")
        third = ask(proxy, upstream.port, "POST /simple/x", "Content-Length: 1300", body=body)
        assert b"X-Parhelia-Rule: limit-upload\r\n" in third
        eventually(lambda: b"limit-upload" in proxy.ask(plain + b"Content-Length: 500\r\n\r\n" + b"x" * 500))


def test_a_stream_over_its_body_is_reset_and_the_others_go_on(
    authority: Authority, h2_upstream: Http2Upstream, tmp_path: Path
) -> None:
    with (
        served(authority, tmp_path, inspected(h2_upstream.port, HostLimits(body=100))) as proxy,
        tls(proxy, h2_upstream.port, "h2") as sock,
    ):
        client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        client.initiate_connection()
        for stream, method in ((1, "POST"), (3, "GET")):
            head = {":method": method, ":path": f"/simple/{stream}", ":scheme": "https"}
            head[":authority"] = f"{HOST}:{h2_upstream.port}"
            client.send_headers(stream, list(head.items()), end_stream=method == "GET")
        client.send_data(1, b"x" * 80)
        client.send_data(1, b"y" * 80, end_stream=True)
        sock.sendall(client.data_to_send())
        reset, answered = set(), set()
        while not (reset and answered):
            for event in client.receive_data(sock.recv(65536)):
                if isinstance(event, h2.events.StreamReset):
                    reset.add(event.stream_id)
                if isinstance(event, h2.events.ResponseReceived):
                    answered.add((event.stream_id, dict(event.headers)[":status"]))
        assert (reset, answered) == ({1}, {(3, "200")})
        proxy.event(rule="limit-body", result="denied", mechanism="engine", path="/simple/1")


@pytest.mark.row(34)
@pytest.mark.parametrize(
    ("limits", "rule_id"),
    [
        (HostLimits(upload=3000), "limit-upload"),
        (HostLimits(download=3000), "limit-download"),
        (HostLimits(body=3000), "limit-body"),
    ],
)
def test_a_websocket_over_its_limit_ends_without_a_close_frame(
    authority: Authority, upstream: Http1Upstream, tmp_path: Path, limits: HostLimits, rule_id: str
) -> None:
    """Messages of 500 bytes, each answered with itself: the one that is too much goes nowhere."""
    with (
        served(authority, tmp_path, inspected(upstream.port, limits)) as proxy,
        tls(proxy, upstream.port) as sock,
    ):
        peer, echoed, seen = WSConnection(ConnectionType.CLIENT), 0, []
        sock.sendall(peer.send(Request(host=f"{HOST}:{upstream.port}", target="/ws/x")))
        with contextlib.suppress(OSError):
            while data := sock.recv(65536):
                peer.receive_data(data)
                for event in peer.events():
                    seen.append(type(event))
                    if isinstance(event, TextMessage):
                        echoed += len(event.data)
                    if isinstance(event, AcceptConnection) or (
                        isinstance(event, TextMessage) and event.message_finished
                    ):
                        sock.sendall(peer.send(TextMessage(data="x" * 500)))
        assert 500 <= echoed < 3000
        assert CloseConnection not in seen
        event = proxy.event(rule=rule_id, result="denied", mechanism="engine")
        assert event["details"]["path"] == "/ws/x"
        assert proxy.recorded("agent-fault") == 0  # a limit that cuts is none


def test_what_went_by_other_ways_is_not_reported_back() -> None:
    accounts = Accounts()
    account = accounts.get("a")
    accounts.take("a", 100, 10)
    assert (account.up.total, account.down.total, accounts.report()) == (100, 10, {})
    account.up.total += 5
    accounts.take("a", 130, 10)
    assert (account.up.total, accounts.report(), accounts.report()) == (135, {"a": [5, 0]}, {})
