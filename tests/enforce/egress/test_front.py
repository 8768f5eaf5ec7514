"""Attacks on the real egress process through CONNECT, with the verdict and the rule that each must get."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.policy.request import Protocol
from tests.enforce.egress.proxy import (
    SECONDS,
    Proxy,
    Upstream,
    client_hello,
    eventually,
    policy,
    read_all,
    read_exactly,
    read_head,
    rule,
    running,
    upstream,
)
from tests.enforce.egress.test_hello import message, records, server_name, versions

HERE = [["127.0.0.1"]]
NAMES = {
    "api.good.test": HERE,
    "x.good.test": HERE,
    "_dmarc.good.test": HERE,
    "xn--bcher-kva.good.test": HERE,
    "raw.good.test": HERE,
    "web.good.test": HERE,
    "mixed.good.test": [["127.0.0.1", "10.0.0.1"]],
    "meta.good.test": [["169.254.169.254"]],
    "rebind.good.test": [["127.0.0.1"], ["127.0.0.2"]],
    "evil.test": HERE,
}


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with upstream() as made:
        yield made


@pytest.fixture(scope="module")
def proxy(server: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    given = policy(
        rule("api.good.test", server.port),
        rule("*.good.test", server.port),
        rule("raw.good.test", 22, server.port + 1 if server.port < 65535 else 1, protocol=Protocol.TCP),
    )
    with running(given, NAMES, tmp_path_factory.mktemp("proxy"), head=3, dial=3) as made:
        yield made


def connect(target: str, *fields: str) -> bytes:
    return "\r\n".join([f"CONNECT {target} HTTP/1.1", *fields, "", ""]).encode("latin-1")


def test_an_allowed_host_is_reached_and_bytes_flow_both_ways(proxy: Proxy, server: Upstream) -> None:
    hello = client_hello("api.good.test")
    with proxy.tunnel("api.good.test", server.port) as sock:
        sock.sendall(hello)
        assert read_exactly(sock, len(hello)) == hello
        sock.sendall(b"x" * 500_000)
        assert read_exactly(sock, 500_000) == b"x" * 500_000
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
    event = proxy.event(type="network.egress", resource=f"api.good.test:{server.port}")
    assert event["details"]["addresses"] == ["127.0.0.1"]
    assert event["source_ip"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("target", "sni"),
    [
        ("API.GOOD.TEST", "api.good.test"),
        ("api.good.test.", "api.good.test"),
        ("api.good.test", "API.Good.Test"),
        ("_dmarc.good.test", "_dmarc.good.test"),
        ("xn--bcher-kva.good.test", "xn--bcher-kva.good.test"),
        ("XN--BCHER-KVA.good.test", "xn--bcher-kva.good.test"),
    ],
)
def test_every_spelling_of_an_allowed_host_is_that_host(proxy: Proxy, server: Upstream, target: str, sni: str) -> None:
    hello = records(message([server_name(sni.encode()), versions(0x0304)]))
    with proxy.tunnel(target, server.port) as sock:
        sock.sendall(hello)
        assert read_exactly(sock, len(hello)) == hello


DENIED = [
    ("evil.test:PORT", "egress-default"),
    ("evil.test.:PORT", "egress-default"),
    ("evilgood.test:PORT", "egress-default"),
    ("good.test.evil.test:PORT", "egress-default"),
    ("good.test:PORT", "egress-default"),
    ("api.good.test:9999", "egress-default"),
    ("host.docker.internal:PORT", "egress-default"),
    ("localhost:PORT", "egress-default"),
    ("mitm.it:PORT", "egress-default"),
    ("93.184.215.14:PORT", "egress-default"),
    ("2130706433:PORT", "egress-default"),
    ("0177.0.0.1:PORT", "egress-default"),
    ("0x7f000001:PORT", "egress-default"),
    ("127.1:PORT", "egress-default"),
    ("0.0.0.0:PORT", "egress-default"),
    ("[::]:PORT", "egress-default"),
    ("[::1]:PORT", "egress-default"),
    ("[::ffff:127.0.0.1]:PORT", "egress-default"),
    ("169.254.169.254:80", "egress-default"),
]


@pytest.mark.parametrize(("target", "rule_id"), DENIED)
def test_what_no_rule_allows_is_403_recorded_and_never_looked_up(
    proxy: Proxy, server: Upstream, target: str, rule_id: str
) -> None:
    before, reached = proxy.lookups(), len(server.conversations)
    answer = proxy.ask(connect(target.replace("PORT", str(server.port))))
    assert answer.startswith(f"HTTP/1.1 403 Forbidden by parhelia: {rule_id}: ".encode()), answer
    assert f"X-Parhelia-Rule: {rule_id}\r\n".encode() in answer
    assert proxy.lookups() == before
    assert len(server.conversations) == reached
    port = target.rpartition(":")[2].replace("PORT", str(server.port))
    proxy.wait(
        lambda p: any(
            m["event"]["result"] == "denied" and m["event"]["resource"].endswith(f":{port}") for m in p.events
        )
    )


MALFORMED = [
    connect("[evil.test]:443"),
    connect("[[evil.test]]:443"),
    connect("evil.com:443.good.test"),
    connect("evil.com:443.good.test:443"),
    connect("api.good.test"),
    connect("api.good.test:0"),
    connect("api.good.test:99999"),
    connect("user@api.good.test:443"),
    connect("evil.test\0.good.test:443"),
    connect("evil.test\r\n.good.test:443"),
    connect("::ffff:1.2.3.4%x.good.test:443"),
    connect("[::1%25eth0]:443"),
    connect("a..good.test:443"),
    connect("a" * 64 + ".good.test:443"),
    connect("a." * 126 + "good.test:443"),
    connect("*.good.test:443"),
    connect("xn--zz.good.test:443"),
    connect("api.good.test:443", "Host: api.good.test:443", "Host: api.good.test:443"),
    connect("api.good.test:443", "Host: [evil.test]:443"),
    connect("api.good.test:443", "Content-Length: 3") + b"abc",
    connect("api.good.test:443", "Transfer-Encoding: chunked"),
    connect("api.good.test:443", "Content-Length: 3", "Transfer-Encoding: chunked"),
    connect("api.good.test:443", "A: b", " folded"),
    connect("api.good.test:443").replace(b"\r\n", b"\n"),
    connect("http://api.good.test:443"),
    b"connect api.good.test:443 HTTP/1.1\r\n\r\n",
    b"CONNECT api.good.test:443 HTTP/2.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: api.good.test\r\n\r\n",
    b"GET https://api.good.test/ HTTP/1.1\r\nHost: api.good.test\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: api.good.test\r\n\r\n",
    client_hello("api.good.test"),
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    connect("api.good.test:443", "A: " + "x" * 70_000),
]


@pytest.mark.parametrize("data", MALFORMED, ids=[repr(data[:50]) for data in MALFORMED])
def test_what_is_malformed_is_400_before_any_lookup(proxy: Proxy, server: Upstream, data: bytes) -> None:
    before, reached, recorded = proxy.lookups(), len(server.conversations), proxy.recorded("malformed-request")
    answer = proxy.ask(data)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request by parhelia: malformed-request: "), answer
    assert b"X-Parhelia-Rule: malformed-request\r\n" in answer
    proxy.wait(lambda _: proxy.recorded("malformed-request") == recorded + 1)
    assert proxy.lookups() == before
    assert len(server.conversations) == reached


def test_a_host_header_that_disagrees_is_421_and_recorded(proxy: Proxy, server: Upstream) -> None:
    answer = proxy.ask(connect(f"api.good.test:{server.port}", "Host: evil.test"))
    assert answer.startswith(b"HTTP/1.1 421 Misdirected Request by parhelia: host-mismatch: ")
    assert proxy.event(rule="host-mismatch")["result"] == "denied"


def test_a_client_that_reads_json_gets_json(proxy: Proxy) -> None:
    answer = proxy.ask(connect("evil.test:443", "Accept: application/json"))
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert set(body) == {"verdict", "rule", "reason", "instead", "request_id"}
    assert (body["verdict"], body["rule"]) == ("deny", "egress-default")
    assert proxy.event(request_id=body["request_id"])["resource"] == "evil.test:443"


@pytest.mark.parametrize(("host", "kind"), [("mixed.good.test", "private"), ("meta.good.test", "metadata")])
def test_a_name_that_resolves_to_a_forbidden_address_is_refused_whole(
    proxy: Proxy, server: Upstream, host: str, kind: str
) -> None:
    reached = len(server.conversations)
    answer = proxy.ask(connect(f"{host}:{server.port}"))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert kind.encode() in answer
    assert len(server.conversations) == reached


def test_a_rebinding_name_is_looked_up_once_and_pinned(proxy: Proxy, server: Upstream) -> None:
    hello = client_hello("rebind.good.test")
    for _ in range(3):
        with proxy.tunnel("rebind.good.test", server.port) as sock:
            sock.sendall(hello)
            assert read_exactly(sock, len(hello)) == hello
    assert proxy.lookups().count("rebind.good.test") == 1


HELLOS = [
    (client_hello("evil.test"), "sni-mismatch"),
    (client_hello("x.good.test"), "sni-mismatch"),
    (client_hello(None), "sni-missing"),
    (records(message([server_name(b"api.good.test"), server_name(b"evil.test")])), "tls-malformed"),
    (records(message([server_name(b"api.good.test"), versions(0x0304), (0xFE0D, b"\0" * 30)])), "ech-refused"),
    (records(message([server_name(b"api.good.test"), versions(0x0301)])), "tls-too-old"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "tls-required"),
    (b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", "tls-required"),
    (b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", "tls-required"),
    (b"\0" * 10, "tls-required"),
]


@pytest.mark.parametrize(("data", "rule_id"), HELLOS)
def test_a_tunnel_that_is_not_the_decided_tls_is_closed_before_its_first_byte(
    proxy: Proxy, server: Upstream, data: bytes, rule_id: str
) -> None:
    reached = len(server.conversations)
    with proxy.tunnel("api.good.test", server.port) as sock:
        sock.sendall(data)
        assert read_all(sock) in (b"", b"\x15\x03\x01\x00\x02\x02\x31")
    eventually(lambda: len(server.conversations) > reached)
    assert server.conversations[reached:] == [b""]
    assert proxy.event(rule=rule_id, type="network.egress_blocked")["result"] == "denied"


@pytest.mark.row(27)
def test_a_hello_in_many_segments_works_and_is_held_until_it_is_whole(proxy: Proxy, server: Upstream) -> None:
    padded = [(21, bytes(2000)), server_name(b"api.good.test"), versions(0x0304)]
    hello = records(message(padded), 700)
    reached = len(server.conversations)
    with proxy.tunnel("api.good.test", server.port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        eventually(lambda: len(server.conversations) > reached)
        for at in range(0, len(hello) - 1, 97):
            sock.sendall(hello[at : min(at + 97, len(hello) - 1)])
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        assert not any(server.conversations[reached:])
        sock.settimeout(SECONDS)
        sock.sendall(hello[-1:])
        assert read_exactly(sock, len(hello)) == hello


def test_bytes_sent_along_with_connect_are_judged_like_the_others(proxy: Proxy, server: Upstream) -> None:
    good, evil = client_hello("api.good.test"), client_hello("evil.test")
    with proxy.connect() as sock:
        sock.sendall(connect(f"api.good.test:{server.port}") + good)
        assert read_head(sock).startswith(b"HTTP/1.1 200 ")
        assert read_exactly(sock, len(good)) == good
    reached = len(server.conversations)
    answer = proxy.ask(connect(f"api.good.test:{server.port}") + evil)
    assert answer.startswith(b"HTTP/1.1 200 ")
    eventually(lambda: len(server.conversations) > reached)
    assert server.conversations[reached] == b""


@pytest.mark.row(42)
def test_a_head_that_never_ends_is_given_up_while_others_are_served(proxy: Proxy) -> None:
    with proxy.connect() as slow:
        slow.sendall(b"CONNECT api.good.")
        assert proxy.ask(connect("evil.test:443")).startswith(b"HTTP/1.1 403 ")
        assert read_all(slow).startswith(b"HTTP/1.1 408 ")


def test_a_client_that_vanishes_at_any_point_leaves_nothing_behind(proxy: Proxy, server: Upstream) -> None:
    whole = connect(f"api.good.test:{server.port}") + client_hello("api.good.test") + b"x" * 100_000
    fds = Path(f"/proc/{proxy.process.pid}/fd")
    proxy.ask(connect("evil.test:443"))
    before = len(list(fds.iterdir()))
    for end in range(1, len(whole), 1499):
        sock = proxy.connect()
        sock.sendall(whole[:end])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", end % 2, 0))
        sock.close()
    eventually(lambda: len(list(fds.iterdir())) <= before + 2 * 8)
