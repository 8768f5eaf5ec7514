"""SOCKS5: the parser on its own, and attacks on the real egress process through it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.enforce.egress.socks import Greeting, SocksError, SocksRequest, read_greeting, read_request
from agent.policy.hosts import HostError, normalise_host
from agent.policy.model import Mode
from agent.policy.request import Protocol
from tests.enforce.egress.proxy import (
    Proxy,
    Upstream,
    client_hello,
    echo,
    eventually,
    policy,
    read_all,
    read_exactly,
    read_head,
    rule,
    running,
    upstream,
)

HERE = [["127.0.0.1"]]
NAMES = dict.fromkeys(("api.good.test", "raw.good.test", "web.good.test", "x.good.test", "evil.test"), HERE)
HELLO = b"\x05\x01\x00"
THROUGH = b"\x05\x00\x00\x01" + bytes(6)


def refused(code: int) -> bytes:
    return bytes((5, code, 0, 1)) + bytes(6)


def domain(name: bytes, port: int, command: int = 1) -> bytes:
    return bytes((5, command, 0, 3, len(name))) + name + port.to_bytes(2)


def address(text: str, port: int) -> bytes:
    packed = ip_address(text).packed
    return bytes((5, 1, 0, 1 if len(packed) == 4 else 4)) + packed + port.to_bytes(2)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (domain(b"good.test", 443), SocksRequest(1, "good.test", 443, 16)),
        (domain(b"good.test", 443, 3) + b"more", SocksRequest(3, "good.test", 443, 16)),
        (address("192.0.2.1", 22), SocksRequest(1, "192.0.2.1", 22, 10)),
        (address("2001:db8::1", 22), SocksRequest(1, "2001:db8::1", 22, 22)),
        (domain(b"\0" * 9, 443)[:13], None),
    ],
)
def test_a_request_is_read_and_leaves_the_rest(data: bytes, expected: SocksRequest | None) -> None:
    assert read_request(data) == expected


def test_a_greeting_is_read_and_leaves_the_rest() -> None:
    assert read_greeting(b"\x05\x02\x00\x02rest") == Greeting(b"\x00\x02", 4)
    assert read_greeting(b"\x05\x02\x00") is None


MALFORMED = [
    b"\x04\x01\x00\x01\x7f\0\0\x01\x01\xbb",
    b"\x05\x00\x00\x01\x7f\0\0\x01\x01\xbb",
    b"\x05\x04\x00\x01\x7f\0\0\x01\x01\xbb",
    b"\x05\x01\x01\x01\x7f\0\0\x01\x01\xbb",
    b"\x05\x01\x00\x02\x7f\0\0\x01\x01\xbb",
    b"\x05\x01\x00\x05\x7f\0\0\x01\x01\xbb",
    address("192.0.2.1", 0),
    domain(b"", 443),
    domain(b"evil.test\0.good.test", 443),
    domain(b"evil.test\r\n.good.test", 443),
    domain(b"evil.test .good.test", 443),
    domain(b"evil.test\x7f.good.test", 443),
    domain("bücher.good.test".encode(), 443),
]
ODD = [
    domain(b"evil.com:443.good.test", 443),
    domain(b"user@api.good.test", 443),
    domain(b"[evil.test]", 443),
    domain(b"[[evil.test]]", 443),
    domain(b"::ffff:1.2.3.4%x.good.test", 443),
    domain(b"[::1%25eth0]", 443),
    domain(b"a..good.test", 443),
    domain(b"a" * 64 + b".good.test", 443),
    domain(b"a." * 125 + b"test", 443),
    domain(b"*.good.test", 443),
    domain(b"xn--zz.good.test", 443),
    domain(b"http://api.good.test", 443),
]


@pytest.mark.parametrize("data", MALFORMED)
def test_what_is_malformed_is_an_error_and_never_repaired(data: bytes) -> None:
    with pytest.raises(SocksError):
        read_request(data)


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x05", b"\x05\x01\x00\x03", b"\x05\x01\x00\x01"]))
def test_no_bytes_crash_the_parsers_or_yield_a_host_that_is_not_plain(data: bytes, start: bytes) -> None:
    try:
        greeting, request = read_greeting(start + data), read_request(start + data)
    except SocksError:
        return
    assert greeting is None or greeting.size <= len(start + data)
    if request is not None:
        assert request.size <= len(start + data)
        assert request.command in (1, 2, 3)
        assert 0 < request.port < 65536
        assert all("!" <= character <= "~" for character in request.host)


@given(st.binary(min_size=1, max_size=255), st.integers(1, 65535), st.integers(0, 300))
def test_every_cut_of_a_request_needs_more_and_the_whole_is_one_reading(raw: bytes, port: int, cut: int) -> None:
    data = domain(raw, port)
    try:
        found = read_request(data)
    except SocksError:
        assert any(not 0x21 <= byte <= 0x7E for byte in raw)
        return
    assert found == SocksRequest(1, raw.decode("ascii"), port, len(data))
    assert read_request(data[: min(cut, len(data) - 1)]) is None
    with contextlib.suppress(HostError):
        assert normalise_host(found.host).isascii()


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with upstream() as made:
        yield made


@pytest.fixture(scope="module")
def proxy(server: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    given = policy(rule("api.good.test", server.port), rule("*.good.test", server.port))
    with running(given, NAMES, tmp_path_factory.mktemp("proxy"), head=3, dial=3) as made:
        yield made


def socks(proxy: Proxy, request: bytes) -> socket.socket:
    """Greeted, and the request sent; its reply is still to be read."""
    sock = proxy.connect()
    sock.sendall(HELLO)
    assert read_exactly(sock, 2) == b"\x05\x00"
    sock.sendall(request)
    return sock


def test_an_allowed_host_is_reached_and_recorded_as_socks(proxy: Proxy, server: Upstream) -> None:
    hello = client_hello("api.good.test")
    with socks(proxy, domain(b"API.Good.Test.", server.port)) as sock:
        port = sock.getsockname()[1]
        assert read_exactly(sock, 10) == THROUGH
        sock.sendall(hello)
        assert read_exactly(sock, len(hello)) == hello
    event = proxy.event(type="network.egress", mechanism="socks", source_port=port)
    assert (event["resource"], event["source_ip"]) == (f"api.good.test:{server.port}", "127.0.0.1")


def test_all_of_it_may_come_in_one_piece(proxy: Proxy, server: Upstream) -> None:
    hello = client_hello("api.good.test")
    with proxy.connect() as sock:
        sock.sendall(HELLO + domain(b"api.good.test", server.port) + hello)
        assert read_exactly(sock, 12 + len(hello)) == b"\x05\x00" + THROUGH + hello


DENIED = [
    domain(b"evil.test", 443),
    domain(b"evilgood.test", 443),
    domain(b"good.test.evil.test", 443),
    domain(b"api.good.test", 9999),
    domain(b"93.184.215.14", 443),
    domain(b"2130706433", 443),
    domain(b"0177.0.0.1", 443),
    domain(b"0x7f.1", 443),
    domain(b"127.1", 443),
    domain(b"[::ffff:127.0.0.1]", 443),
    domain(b"::1", 443),
    address("93.184.215.14", 443),
    address("127.0.0.1", 443),
    address("169.254.169.254", 80),
    address("::1", 443),
    address("::ffff:127.0.0.1", 443),
    address("64:ff9b::a9fe:a9fe", 80),
]


@pytest.mark.parametrize("request_bytes", DENIED)
def test_what_no_rule_allows_is_refused_recorded_and_never_looked_up(
    proxy: Proxy, server: Upstream, request_bytes: bytes
) -> None:
    before, reached, recorded = proxy.lookups(), len(server.conversations), proxy.recorded("egress-default")
    with socks(proxy, request_bytes) as sock:
        assert read_all(sock) == refused(2)
    proxy.wait(lambda p: p.recorded("egress-default") == recorded + 1)
    assert proxy.events[-1]["event"]["details"]["mechanism"] == "socks"
    assert proxy.lookups() == before
    assert len(server.conversations) == reached


@pytest.mark.parametrize("request_bytes", MALFORMED[1:] + ODD)
def test_what_is_malformed_is_refused_before_any_lookup(proxy: Proxy, request_bytes: bytes) -> None:
    before, recorded = proxy.lookups(), proxy.recorded("malformed-request")
    with socks(proxy, request_bytes) as sock:
        assert read_all(sock) == refused(1)
    proxy.wait(lambda p: p.recorded("malformed-request") == recorded + 1)
    assert proxy.lookups() == before


@pytest.mark.parametrize("command", [2, 3])
def test_bind_and_udp_are_refused_even_for_an_allowed_host_and_recorded(
    proxy: Proxy, server: Upstream, command: int
) -> None:
    recorded, reached = proxy.recorded("socks-command"), len(server.conversations)
    with socks(proxy, domain(b"api.good.test", server.port, command)) as sock:
        assert read_all(sock) == refused(7)
    proxy.wait(lambda p: p.recorded("socks-command") == recorded + 1)
    assert len(server.conversations) == reached


@pytest.mark.parametrize(
    ("greeting", "answer"),
    [
        (b"\x05\x01\x02", b"\x05\xff"),
        (b"\x05\x00", b"\x05\xff"),
        (b"\x04\x01\x01\xbb\x08\x08\x08\x08\0", b"\0\x5b\0\0\0\0\0\0"),
        (b"\x04\x01\x01\xbb\0\0\0\x01\0api.good.test\0", b"\0\x5b\0\0\0\0\0\0"),
    ],
)
def test_what_asks_for_another_socks_is_refused_in_its_words(proxy: Proxy, greeting: bytes, answer: bytes) -> None:
    recorded = proxy.recorded("malformed-request")
    assert proxy.ask(greeting) == answer
    proxy.wait(lambda p: p.recorded("malformed-request") == recorded + 1)


@pytest.mark.parametrize(
    ("data", "rule_id"),
    [
        (client_hello("evil.test"), "sni-mismatch"),
        (client_hello("x.good.test"), "sni-mismatch"),
        (client_hello(None), "sni-missing"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "tls-required"),
        (b"GET / HTTP/1.1\r\nHost: api.good.test\r\n\r\n", "tls-required"),
    ],
)
def test_what_follows_must_be_the_decided_tls(proxy: Proxy, server: Upstream, data: bytes, rule_id: str) -> None:
    recorded, reached = proxy.recorded(rule_id), len(server.conversations)
    with socks(proxy, domain(b"api.good.test", server.port)) as sock:
        assert read_exactly(sock, 10) == THROUGH
        sock.sendall(data)
        assert read_all(sock) in (b"", b"\x15\x03\x01\x00\x02\x02\x31")
    proxy.wait(lambda p: p.recorded(rule_id) == recorded + 1)
    eventually(lambda: len(server.conversations) > reached)
    assert server.conversations[reached:] == [b""]


def test_an_upstream_that_is_not_there_has_its_own_reply(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    with running(policy(rule("*.good.test", closed)), NAMES, tmp_path) as proxy:
        with socks(proxy, domain(b"api.good.test", closed)) as sock:
            assert read_all(sock) == refused(5)
        with socks(proxy, domain(b"nowhere.good.test", closed)) as sock:
            assert read_all(sock) == refused(4)


def test_the_proxy_s_own_listener_is_no_destination_even_where_loopback_is_granted(tmp_path: Path) -> None:
    anywhere = (replace(rule(host, protocol=Protocol.TCP), ports=None) for host in ("api.good.test", "127.0.0.1"))
    with running(policy(*anywhere), NAMES, tmp_path) as proxy:
        for request in (domain(b"api.good.test", proxy.port), address("127.0.0.1", proxy.port)):
            with socks(proxy, request) as sock:
                assert read_all(sock) == refused(2)
        proxy.wait(lambda p: p.recorded("own-address") == 2)


def test_a_rule_for_raw_tcp_tunnels_a_server_that_speaks_first(tmp_path: Path) -> None:
    def greet(sock: socket.socket, received: bytearray) -> None:
        sock.sendall(b"SSH-2.0-server\r\n")
        echo(sock, received)

    with (
        upstream(greet) as server,
        running(policy(rule("raw.good.test", server.port, protocol=Protocol.TCP)), NAMES, tmp_path) as proxy,
        socks(proxy, domain(b"raw.good.test", server.port)) as sock,
    ):
        assert read_exactly(sock, 26) == THROUGH + b"SSH-2.0-server\r\n"


def test_plain_http_inside_is_decided_by_request_and_only_for_the_host_asked_for(tmp_path: Path) -> None:
    def serve(sock: socket.socket, received: bytearray) -> None:
        while head := read_head(sock):
            received += head
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with upstream(serve) as server:
        web = [
            rule(f"{name}.good.test", server.port, protocol=Protocol.HTTP, paths=("/pub/**",)) for name in ("web", "x")
        ]
        with running(policy(*web), NAMES, tmp_path) as proxy:
            with socks(proxy, domain(b"web.good.test", server.port)) as sock:
                assert read_exactly(sock, 10) == THROUGH
                for _ in range(2):
                    sock.sendall(f"GET /pub/x HTTP/1.1\r\nHost: web.good.test:{server.port}\r\n\r\n".encode())
                    assert read_head(sock).startswith(b"HTTP/1.1 200 ")
                    assert read_exactly(sock, 2) == b"ok"
                sock.sendall(f"GET /admin HTTP/1.1\r\nHost: web.good.test:{server.port}\r\n\r\n".encode())
                assert read_all(sock).startswith(b"HTTP/1.1 403 Forbidden by parhelia: egress-default: ")
            with socks(proxy, domain(b"web.good.test", server.port)) as sock:
                assert read_exactly(sock, 10) == THROUGH
                sock.sendall(f"GET /pub/x HTTP/1.1\r\nHost: x.good.test:{server.port}\r\n\r\n".encode())
                assert read_all(sock).startswith(b"HTTP/1.1 421 Misdirected Request by parhelia: host-mismatch: ")
            assert proxy.event(rule="host-mismatch")["details"]["mechanism"] == "socks"
            assert [bytes(c).count(b"GET /pub/x") for c in server.conversations] == [2]


def test_observe_mode_lets_through_and_records(tmp_path: Path) -> None:
    with (
        upstream() as server,
        running(policy(rule("api.good.test"), mode=Mode.OBSERVE), NAMES, tmp_path) as proxy,
        socks(proxy, domain(b"evil.test", server.port)) as sock,
    ):
        sock.sendall(b"not even TLS")
        assert read_exactly(sock, 22) == THROUGH + b"not even TLS"
        event = proxy.event(type="network.egress_blocked", resource=f"evil.test:{server.port}")
        assert (event["result"], event["details"]["enforced"]) == ("success", False)
