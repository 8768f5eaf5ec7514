"""Attacks on the real egress process by connections that were meant for somewhere else.

The whole of 127.0.0.0/8 is local, so a listener on another address of it is a jail in small: what it accepts was meant
for that address. Forwarded connections say where they were meant to go, and can say anything.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.policy.model import Mode
from agent.policy.request import Protocol
from agent.session.doors import Door
from agent.session.preamble import Preamble, render
from tests.enforce.egress.proxy import (
    TOKEN,
    Proxy,
    Upstream,
    client_hello,
    echo,
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
    **dict.fromkeys(("api.good.test", "web.good.test", "two.good.test", "raw.good.test", "evil.test"), HERE),
    "meta.good.test": [["169.254.169.254"]],
}
ELSEWHERE = "127.0.0.9"
ALERT = b"\x15\x03\x01\x00\x02\x02\x31"
DOORS = [Door.CAPTURE, Door.FORWARDED]
RAW = [b"SSH-2.0-OpenSSH_9.2\r\n", b"\0" * 10, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"get / "]


def web(sock: socket.socket, received: bytearray) -> None:
    """HTTP to what looks like it, an echo to the rest."""
    while data := sock.recv(65536):
        received += data
        is_http = data.startswith((b"GET ", b"POST "))
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" if is_http else data)
    sock.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with upstream(web) as made:
        yield made


@pytest.fixture(scope="module")
def web_server() -> Iterator[Upstream]:
    with upstream(web) as made:
        yield made


@pytest.fixture(scope="module")
def proxy(server: Upstream, web_server: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    given = policy(
        rule("api.good.test", server.port),
        rule("meta.good.test", server.port),
        rule("two.good.test", server.port),
        rule("web.good.test", web_server.port, protocol=Protocol.HTTP, paths=("/pub/**",)),
        rule("two.good.test", web_server.port, protocol=Protocol.HTTP),
    )
    doors = {Door.CAPTURE: (ELSEWHERE, server.port), Door.FORWARDED: ("127.0.0.1", 0)}
    with running(given, NAMES, tmp_path_factory.mktemp("proxy"), doors=doors, head=3, dial=3) as made:
        yield made


def meant_for(proxy: Proxy, door: Door, port: int, address: str = ELSEWHERE) -> socket.socket:
    """A connection of the session to `address`:`port`."""
    sock = proxy.connect(door)
    if door is Door.FORWARDED:
        sock.sendall(render(Preamble(("127.0.0.1", 40000), (address, port), 77, TOKEN)))
    return sock


def was_reset(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1)) and False
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("door", DOORS)
def test_the_server_name_is_the_destination_and_the_captured_address_is_never_dialled(
    proxy: Proxy, server: Upstream, door: Door
) -> None:
    hello = client_hello("api.good.test")
    mechanism = "capture" if door is Door.CAPTURE else "connect"
    with meant_for(proxy, door, server.port) as sock:
        sock.sendall(hello)
        assert read_exactly(sock, len(hello)) == hello
    event = proxy.event(type="network.egress", mechanism=mechanism, captured=f"{ELSEWHERE}:{server.port}")
    assert event["resource"] == f"api.good.test:{server.port}"
    assert event["details"]["addresses"] == ["127.0.0.1"]


def test_a_forwarded_connection_is_recorded_as_its_own_process(proxy: Proxy, server: Upstream) -> None:
    with meant_for(proxy, Door.FORWARDED, 7) as sock:
        sock.sendall(client_hello("nobody.test"))
        assert read_all(sock) == ALERT
    event = proxy.event(resource="nobody.test:7")
    assert (event["source_ip"], event["details"]["source_port"], event["details"]["pid"]) == ("127.0.0.1", 40000, 77)


def test_a_header_with_another_token_is_nobodys(proxy: Proxy, server: Upstream) -> None:
    """The session holds the socket while the guard connects it, and can write first: that is no word of the guard's."""
    before = len(proxy.events)
    with proxy.connect(Door.FORWARDED) as sock:
        sock.sendall(render(Preamble(("127.0.0.9", 40009), (ELSEWHERE, server.port), 99, b"x" * 16)))
        with contextlib.suppress(ConnectionError):
            sock.sendall(client_hello("api.good.test"))
        assert read_all(sock) == b""

    def told() -> list[dict[str, Any]]:
        events = [message["event"] for message in proxy.events[before:]]
        return [event for event in events if event["details"].get("rule") == "malformed-request"]

    proxy.wait(lambda _: told())
    (event,) = told()
    assert event["details"]["mechanism"] == "connect"
    assert "token" in event["details"]["reason"]
    assert (event["source_ip"], event["details"].get("pid")) == ("127.0.0.1", None)


TLS_DENIED = [
    (client_hello("evil.test"), "egress-default"),
    (client_hello("meta.good.test"), "egress-address"),
    (client_hello(None), "sni-missing"),
    (records(message([server_name(b"api.good.test"), server_name(b"evil.test")])), "tls-malformed"),
    (records(message([server_name(b"evil.test\0.good.test"), versions(0x0304)])), "tls-malformed"),
    (records(message([server_name(b"api.good.test"), versions(0x0304), (0xFE0D, b"\0" * 30)])), "ech-refused"),
    (records(message([server_name(b"api.good.test"), versions(0x0301)])), "tls-too-old"),
    (records(message([server_name(b"127.0.0.1"), versions(0x0304)])), "egress-default"),
    (records(message([server_name(b"2130706433"), versions(0x0304)])), "egress-default"),
    (b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", "tls-required"),
]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("data", "rule_id"), TLS_DENIED)
def test_tls_for_nobody_or_somebody_else_hears_an_alert_and_nothing_is_dialled(
    proxy: Proxy, server: Upstream, door: Door, data: bytes, rule_id: str
) -> None:
    reached, recorded, before = len(server.conversations), proxy.recorded(rule_id), len(proxy.events)
    with meant_for(proxy, door, server.port) as sock:
        sock.sendall(data)
        assert read_all(sock) == ALERT
    proxy.wait(lambda p: p.recorded(rule_id) == recorded + 1)
    assert len(proxy.events) == before + 1, "a refusal leaves no line that says it was allowed"
    details = proxy.events[-1]["event"]["details"]
    assert details["captured"] == f"{ELSEWHERE}:{server.port}"
    assert len(server.conversations) == reached


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("data", RAW)
def test_other_bytes_without_a_rule_for_raw_tcp_are_reset(
    proxy: Proxy, server: Upstream, door: Door, data: bytes
) -> None:
    reached, recorded = len(server.conversations), proxy.recorded("egress-default")
    with meant_for(proxy, door, server.port) as sock:
        sock.sendall(data)
        assert was_reset(sock)
    proxy.wait(lambda p: p.recorded("egress-default") == recorded + 1)
    assert proxy.events[-1]["event"]["resource"] == f"{ELSEWHERE}:{server.port}"
    assert len(server.conversations) == reached


def test_a_server_that_speaks_first_is_reached_by_a_rule_for_its_address(tmp_path: Path) -> None:
    def greet(sock: socket.socket, received: bytearray) -> None:
        sock.sendall(b"SSH-2.0-server\r\n")
        echo(sock, received)

    with upstream(greet) as ssh:
        given = policy(rule("127.0.0.1", ssh.port, protocol=Protocol.TCP))
        with (
            running(given, {}, tmp_path, doors={Door.FORWARDED: ("127.0.0.1", 0)}) as proxy,
            meant_for(proxy, Door.FORWARDED, ssh.port, "127.0.0.1") as sock,
        ):
            assert read_exactly(sock, 16) == b"SSH-2.0-server\r\n"
            assert proxy.event(type="network.egress")["resource"] == f"127.0.0.1:{ssh.port}"


@pytest.mark.parametrize("address", ["93.184.215.14", "169.254.169.254", "::1", "2001:db8::1", "::ffff:10.0.0.1"])
def test_silence_on_a_port_that_no_rule_has_is_not_waited_for(proxy: Proxy, address: str) -> None:
    with meant_for(proxy, Door.FORWARDED, 2222, address) as sock:
        assert was_reset(sock)
    shown = address.removeprefix("::ffff:")
    resource = f"[{shown}]:2222" if ":" in shown else f"{shown}:2222"
    assert proxy.event(captured=resource)["details"]["rule"] == "egress-default"


@pytest.mark.parametrize("door", DOORS)
def test_a_client_that_says_nothing_on_a_served_port_ends_with_the_head_time_out(
    proxy: Proxy, server: Upstream, door: Door
) -> None:
    recorded = proxy.recorded("egress-default")
    with meant_for(proxy, door, server.port) as sock:
        assert was_reset(sock)
    proxy.wait(lambda p: p.recorded("egress-default") == recorded + 1)


def http(host: str, path: str = "/pub/x", *fields: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode()


def test_plain_http_is_decided_by_each_request_s_host_and_dialled_anew(proxy: Proxy, web_server: Upstream) -> None:
    port, before = web_server.port, len(web_server.conversations)
    with meant_for(proxy, Door.FORWARDED, port) as sock:
        for host, path in (("web.good.test", "/pub/x"), ("two.good.test", "/any"), ("WEB.good.test.", "/pub/y")):
            sock.sendall(http(f"{host}:{port}", path))
            assert read_head(sock).startswith(b"HTTP/1.1 200 ")
            assert read_exactly(sock, 2) == b"ok"
        sock.sendall(http(f"web.good.test:{port}", "/admin"))
        assert b"X-Parhelia-Rule: egress-default\r\n" in read_all(sock)
    assert proxy.event(path="/admin", mechanism="connect")["result"] == "denied"
    received = b"".join(bytes(c) for c in web_server.conversations[before:])
    assert received.count(f"Host: web.good.test:{port}".lower().encode()) + received.count(
        f"host: two.good.test:{port}".encode()
    ) == received.count(b"GET ")
    assert received.count(b"GET ") == 3


HTTP_DENIED = [
    (http("evil.test:PORT"), 403, "egress-default"),
    (http("evil.test"), 403, "egress-default"),
    (http("127.0.0.1:PORT"), 403, "egress-default"),
    (http("web.good.test:1"), 421, "host-mismatch"),
    (http("web.good.test:PORT", "http://evil.test:PORT/pub/x"), 421, "host-mismatch"),
    (http("web.good.test:1", "http://web.good.test:1/pub/x"), 421, "host-mismatch"),
    (http("web.good.test:PORT", "/pub/../admin"), 403, "egress-default"),
    (http("web.good.test:PORT", "*"), 400, "malformed-request"),
    (http("web.good.test:PORT", "/pub/x", "Host: web.good.test:PORT"), 400, "malformed-request"),
    (http("evil.test@web.good.test:PORT"), 400, "malformed-request"),
    (b"GET /pub/x HTTP/1.1\r\n\r\n", 400, "malformed-request"),
    (b"GET /pub/x HTTP/1.0\r\n\r\n", 400, "malformed-request"),
    (b"CONNECT web.good.test:PORT HTTP/1.1\r\nHost: web.good.test:PORT\r\n\r\n", 400, "malformed-request"),
]


@pytest.mark.parametrize(("data", "status", "rule_id"), HTTP_DENIED)
def test_plain_http_that_is_not_allowed_is_answered_and_nothing_is_dialled(
    proxy: Proxy, web_server: Upstream, data: bytes, status: int, rule_id: str
) -> None:
    reached, recorded = len(web_server.conversations), proxy.recorded(rule_id)
    with meant_for(proxy, Door.FORWARDED, web_server.port) as sock:
        sock.sendall(data.replace(b"PORT", str(web_server.port).encode()))
        answer = read_all(sock)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert f"X-Parhelia-Rule: {rule_id}\r\n".encode() in answer
    proxy.wait(lambda p: p.recorded(rule_id) == recorded + 1)
    assert len(web_server.conversations) == reached


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: api.good.test\r\n\r\n",
        b"\x05\x01\x00",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
        render(Preamble(("127.0.0.1", 1), ("127.0.0.1", 2), None, TOKEN))[:13] + b"\x12\0\0",
    ],
)
def test_a_forwarded_connection_without_its_preamble_is_reset_and_recorded(proxy: Proxy, data: bytes) -> None:
    recorded = proxy.recorded("malformed-request")
    with proxy.connect(Door.FORWARDED) as sock:
        sock.sendall(data)
        assert was_reset(sock)
    proxy.wait(lambda p: p.recorded("malformed-request") == recorded + 1)


def test_the_agent_s_own_doors_are_no_destination(tmp_path: Path) -> None:
    anywhere = policy(rule("127.0.0.1", *range(1024, 65536), protocol=Protocol.TCP))
    with running(anywhere, {}, tmp_path, doors={Door.FORWARDED: ("127.0.0.1", 0)}) as proxy:
        for door in (Door.PROXY, Door.FORWARDED):
            address, port = proxy.places[door]
            with meant_for(proxy, Door.FORWARDED, port, address) as sock:
                assert was_reset(sock)
        proxy.wait(lambda p: p.recorded("own-address") == 2)


def test_observe_mode_lets_captured_bytes_through_and_records_them(server: Upstream, tmp_path: Path) -> None:
    given = policy(rule("api.good.test"), mode=Mode.OBSERVE)
    doors = {Door.FORWARDED: ("127.0.0.1", 0)}
    with running(given, NAMES, tmp_path, doors=doors) as proxy:
        for data in (b"\0anything", client_hello("evil.test"), client_hello(None)):
            with meant_for(proxy, Door.FORWARDED, server.port, "127.0.0.1") as sock:
                sock.sendall(data)
                assert read_exactly(sock, len(data)) == data
        event = proxy.event(type="network.egress_blocked", resource=f"evil.test:{server.port}")
        assert (event["result"], event["details"]["enforced"]) == ("success", False)


@pytest.mark.parametrize(
    ("data", "rule_id"), [case for case in TLS_DENIED if case[1] in ("ech-refused", "tls-too-old")]
)
def test_observe_mode_records_a_captured_hello_once(
    server: Upstream, tmp_path: Path, data: bytes, rule_id: str
) -> None:
    given = policy(rule("api.good.test", server.port), mode=Mode.OBSERVE)
    with running(given, NAMES, tmp_path, doors={Door.FORWARDED: ("127.0.0.1", 0)}) as proxy:
        with meant_for(proxy, Door.FORWARDED, server.port, "127.0.0.1") as sock:
            sock.sendall(data)
            assert read_exactly(sock, len(data)) == data
        observed, allowed = proxy.event(rule=rule_id), proxy.event(type="network.egress")
        assert (observed["details"]["enforced"], allowed["resource"]) == (False, f"api.good.test:{server.port}")
        assert len(proxy.events) == 2
