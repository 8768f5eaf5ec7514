"""The policy changes while connections are open: what no longer holds is cut, recorded, and nothing else is."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request, TextMessage

from agent.enforce.egress.follow import Follower
from agent.policy.model import EgressLimits, HostLimits, HostRule, Policy, Tls
from agent.policy.request import Protocol
from tests.enforce.egress.engine_front import HOST as INSPECTED
from tests.enforce.egress.engine_front import NOBODY
from tests.enforce.egress.engine_upstream import RELEASE, Authority, Http1Upstream
from tests.enforce.egress.proxy import (
    Proxy,
    client_hello,
    policy,
    read_exactly,
    read_head,
    rule,
    running,
    upstream,
)
from tests.enforce.egress.test_engine_layers import websocket_events
from tests.enforce.egress.test_http1 import answers
from tests.enforce.egress.tickets import Desk

HOST = "api.good.test"
OTHER = "other.good.test"
NAMES = {HOST: [["127.0.0.1"]], OTHER: [["127.0.0.1"]]}


def next_policy(*rules: HostRule, **more: Any) -> Policy:
    return replace(policy(*rules, **more), digest="e" * 64)


def begun(proxy: Proxy, port: int, host: str = HOST) -> socket.socket:
    hello = client_hello(host)
    sock = proxy.tunnel(host, port)
    sock.sendall(hello)
    assert read_exactly(sock, len(hello)) == hello
    return sock


def echoes(sock: socket.socket) -> None:
    sock.sendall(b"still here")
    assert read_exactly(sock, 10) == b"still here"


def denied(proxy: Proxy, host: str, port: int) -> bool:
    return b"HTTP/1.1 403 " in proxy.ask(f"CONNECT {host}:{port} HTTP/1.1\r\n\r\n".encode())


def test_a_tunnel_that_no_longer_holds_is_reset_and_others_go_on(tmp_path: Path) -> None:
    with upstream() as server:
        rules = rule(HOST, server.port), rule(OTHER, server.port)
        with running(policy(*rules), NAMES, tmp_path) as proxy:
            with begun(proxy, server.port) as lost, begun(proxy, server.port, OTHER) as kept:
                assert proxy.follow(next_policy(rules[1])) == 1
                with pytest.raises(ConnectionResetError):
                    lost.recv(1)
                echoes(kept)
                event = proxy.event(type="network.egress_blocked", result="denied", resource=f"{HOST}:{server.port}")
                details = event["details"]
                assert (details["rule"], details["mechanism"], details["policy_digest"]) == (
                    "egress-default",
                    "proxy",
                    "e" * 64,
                )
                assert details["reason"].startswith("the policy changed: ")
                assert denied(proxy, HOST, server.port)
            assert proxy.recorded("egress-default") == 2  # the cut, and the one that asked again


@pytest.mark.parametrize(
    ("change", "rule_id"),
    [
        (lambda port: {"deny": [rule(HOST, port, id="no-more")]}, "no-more"),
        (lambda port: {"allow": [rule(HOST, port, addresses=())]}, "egress-address"),
        (lambda port: {"allow": [rule(HOST, port, protocol=Protocol.TCP)]}, "egress-default"),
    ],
)
def test_a_tunnel_is_judged_by_all_that_a_new_one_would_be(
    change: Callable[[int], dict[str, list[HostRule]]], rule_id: str, tmp_path: Path
) -> None:
    with upstream() as server:
        given = policy(rule(HOST, server.port))
        with running(given, NAMES, tmp_path) as proxy, begun(proxy, server.port) as sock:
            changed = change(server.port)
            allow = changed.get("allow", [rule(HOST, server.port)])
            assert proxy.follow(next_policy(*allow, deny=changed.get("deny", []))) == 1
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
            proxy.event(rule=rule_id, result="denied")


def test_limits_of_the_new_policy_bind_open_tunnels(tmp_path: Path) -> None:
    with (
        upstream() as server,
        running(policy(rule(HOST, server.port)), NAMES, tmp_path) as proxy,
        begun(proxy, server.port) as sock,
    ):
        limited = next_policy(rule(HOST, server.port, limits=HostLimits(upload=50_000)))
        assert proxy.follow(limited) == 0
        echoes(sock)
        with pytest.raises(OSError, match=r"reset|pipe"):
            for _ in range(100):
                sock.sendall(b"x" * 10_000)
                assert read_exactly(sock, 10_000)
            sock.recv(1)
        proxy.event(rule="limit-upload", result="denied")


def test_the_sessions_new_bounds_hold_at_once(tmp_path: Path) -> None:
    with upstream() as server:
        given = policy(rule(HOST, server.port))
        (layer,) = given.layers
        assert layer.egress is not None
        section = replace(layer.egress, limits=EgressLimits(idle=3, connections=1))
        changed = replace(given, layers=(replace(layer, egress=section),), digest="e" * 64)
        with running(given, NAMES, tmp_path) as proxy, begun(proxy, server.port) as sock:
            proxy.follow(changed)
            assert b"limit-connections" in proxy.ask(b"")
            with pytest.raises(ConnectionResetError):
                sock.recv(1)


def test_a_tunnel_that_is_being_judged_is_not_begun_by_the_old_policy(tmp_path: Path) -> None:
    with upstream() as server, running(policy(rule(HOST, server.port)), NAMES, tmp_path) as proxy:
        with proxy.tunnel(HOST, server.port) as sock:  # established, and its ClientHello is waited for
            assert proxy.follow(next_policy()) == 1
            sock.sendall(client_hello(HOST))
            assert sock.recv(100) in (b"", b"\x15\x03\x01\x00\x02\x02\x31")
        assert [bytes(got) for got in server.conversations] in ([], [b""])


def test_a_record_on_its_way_while_the_policy_changes_opens_nothing(tmp_path: Path) -> None:
    with upstream() as server, running(policy(rule(HOST, server.port)), NAMES, tmp_path) as proxy:
        asked, go = threading.Event(), threading.Event()

        def slowly(_: dict[str, Any]) -> None:
            asked.set()
            go.wait(60)

        proxy.accepting = slowly
        with proxy.connect() as sock:
            sock.sendall(f"CONNECT {HOST}:{server.port} HTTP/1.1\r\n\r\n".encode())
            assert asked.wait(60)
            changed = next_policy()
            blob = {"type": "policy", "policy": _packed(changed)}
            proxy.channel.send(blob)  # arrives before the record's acceptance
            go.set()
            assert read_head(sock).startswith(b"HTTP/1.1 403 ")
        proxy.event(type="network.egress_blocked", result="denied", policy_digest="e" * 64)
        assert server.conversations == []


def _packed(given: Policy) -> str:
    import base64
    import pickle

    return base64.b64encode(pickle.dumps(given)).decode()


def test_a_kept_connections_next_request_is_decided_by_the_new_policy(tmp_path: Path) -> None:
    with upstream(answers) as server:
        plain = rule(HOST, server.port, protocol=Protocol.HTTP)
        with running(policy(plain), NAMES, tmp_path) as proxy, proxy.connect() as sock:
            where = f"{HOST}:{server.port}"
            ask = f"GET http://{where}/%s HTTP/1.1\r\nHost: {where}\r\n\r\n"
            sock.sendall((ask % "a").encode())
            assert read_head(sock).startswith(b"HTTP/1.1 200 ")
            read_exactly(sock, 2)
            assert proxy.follow(next_policy(replace(plain, paths=("/a",), methods=("GET",)))) == 0
            sock.sendall((ask % "b").encode())
            assert read_head(sock).startswith(b"HTTP/1.1 403 ")


def test_a_response_on_its_way_is_reset_where_its_request_no_longer_holds(tmp_path: Path) -> None:
    def forever(sock: socket.socket, _: bytearray) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nbegun")
        sock.recv(1)

    with upstream(forever) as server:
        plain = rule(HOST, server.port, protocol=Protocol.HTTP)
        with running(policy(plain), NAMES, tmp_path) as proxy, proxy.connect() as sock:
            sock.sendall(f"GET http://{HOST}:{server.port}/x HTTP/1.0\r\n\r\n".encode())
            got = read_head(sock) + read_exactly(sock, 5)
            assert got.endswith(b"begun")
            assert proxy.follow(next_policy(replace(plain, paths=("/other",)))) == 1
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
            proxy.event(rule="egress-default", result="denied", path="/x", method="GET")


def test_a_policy_that_cannot_be_decided_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("agent.enforce.egress.follow.decide", broken)
    desk, events, cuts = Desk(), [], []
    ticket = desk.open()
    ticket.on_cut(lambda: cuts.append(1))

    class Recorder:
        def post(self, event: Any) -> None:
            events.append(event.details["rule"])

        def accept(self, _: Any) -> None:
            raise AssertionError

    follower = Follower(lambda: next_policy(rule(HOST)), desk.quota, Recorder(), "session:t")
    assert (follower.redecide(), cuts, events) == (1, [1], ["agent-fault"])


@pytest.fixture
def engine_proxy(authority: Authority, upstream: Http1Upstream, tmp_path: Path) -> Any:
    user = (NOBODY, NOBODY) if os.geteuid() == 0 else None
    tmp_path.chmod(0o755)
    names = {INSPECTED: [["127.0.0.1"]]}
    with running(policy(looked_into(upstream)), names, tmp_path, user=user, ca_file=str(authority.file)) as served:
        yield served


def looked_into(upstream: Http1Upstream, *paths: str) -> HostRule:
    return rule(INSPECTED, upstream.port, methods=("GET", "POST"), paths=paths or ("/simple/**", "/events"))


def tls(proxy: Proxy, port: int) -> ssl.SSLSocket:
    assert proxy.ca is not None
    context = ssl.create_default_context(cadata=proxy.ca)
    return context.wrap_socket(proxy.tunnel(INSPECTED, port), server_hostname=INSPECTED)


def get(sock: ssl.SSLSocket, port: int, path: str) -> bytes:
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {INSPECTED}:{port}\r\n\r\n".encode())
    head = read_head(sock)
    length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
    read_exactly(sock, int(length or 0))
    return head


def test_the_engines_next_request_is_decided_by_the_new_policy(engine_proxy: Proxy, upstream: Http1Upstream) -> None:
    with tls(engine_proxy, upstream.port) as sock:
        assert get(sock, upstream.port, "/simple/a").startswith(b"HTTP/1.1 200 ")
        assert engine_proxy.follow(next_policy(looked_into(upstream, "/simple/b"))) == 0
        assert get(sock, upstream.port, "/simple/b").startswith(b"HTTP/1.1 200 ")
        assert get(sock, upstream.port, "/simple/a").startswith(b"HTTP/1.1 403 ")
        engine_proxy.event(rule="egress-default", policy_digest="e" * 64, mechanism="engine")


def test_the_engines_connection_is_cut_where_its_host_no_longer_holds(
    engine_proxy: Proxy, upstream: Http1Upstream
) -> None:
    with tls(engine_proxy, upstream.port) as sock:
        assert get(sock, upstream.port, "/simple/a").startswith(b"HTTP/1.1 200 ")
        assert engine_proxy.follow(next_policy()) == 1
        assert ended(sock)
        engine_proxy.event(rule="egress-default", result="denied", stage="connect", policy_digest="e" * 64)


def test_a_stream_through_the_engine_is_cut_where_its_request_no_longer_holds(
    engine_proxy: Proxy, upstream: Http1Upstream
) -> None:
    RELEASE.clear()
    try:
        with tls(engine_proxy, upstream.port) as sock:
            get(sock, upstream.port, "/events")  # the first event is here, the last one is not released
            assert engine_proxy.follow(next_policy(looked_into(upstream, "/simple/**"))) == 0
            assert ended(sock)
            engine_proxy.event(rule="egress-default", result="denied", stage="request", path="/events")
    finally:
        RELEASE.set()


def test_a_host_that_must_not_be_looked_into_any_more_is_cut(engine_proxy: Proxy, upstream: Http1Upstream) -> None:
    with tls(engine_proxy, upstream.port) as sock:
        assert get(sock, upstream.port, "/simple/a").startswith(b"HTTP/1.1 200 ")
        assert engine_proxy.follow(next_policy(rule(INSPECTED, upstream.port, tls=Tls.PASSTHROUGH))) == 1
        assert ended(sock)


def test_a_tunnel_that_must_be_looked_into_now_is_cut(
    authority: Authority, upstream: Http1Upstream, tmp_path: Path
) -> None:
    user = (NOBODY, NOBODY) if os.geteuid() == 0 else None
    tmp_path.chmod(0o755)
    rules = rule(INSPECTED, upstream.port), rule(OTHER, upstream.port, paths=("/x",))
    names = {INSPECTED: [["127.0.0.1"]]}
    with running(policy(*rules), names, tmp_path, user=user, ca_file=str(authority.file)) as proxy:
        with proxy.tunnel(INSPECTED, upstream.port) as sock:
            sock.sendall(client_hello(INSPECTED))
            assert sock.recv(1) == b"\x16"
            assert proxy.follow(next_policy(looked_into(upstream))) == 1
            assert ended(sock)
        event = proxy.event(result="denied", stage="connect")
        assert event["details"]["reason"] == "the policy changed: its requests must be looked into now"


def ended(sock: socket.socket) -> bool:
    """Nothing but what was on its way already, and then a cut."""
    try:
        while sock.recv(65536):
            pass
    except (ConnectionResetError, ssl.SSLError):
        return True
    return isinstance(sock, ssl.SSLSocket)


def test_a_websocket_is_cut_where_its_request_no_longer_holds(engine_proxy: Proxy, upstream: Http1Upstream) -> None:
    engine_proxy.follow(next_policy(looked_into(upstream, "/ws/**", "/simple/**")))
    with tls(engine_proxy, upstream.port) as sock:
        peer = WSConnection(ConnectionType.CLIENT)
        sock.sendall(peer.send(Request(host=f"{INSPECTED}:{upstream.port}", target="/ws/x")))
        assert isinstance(websocket_events(sock, peer, AcceptConnection)[-1], AcceptConnection)
        sock.sendall(peer.send(TextMessage(data="one")))
        assert isinstance(websocket_events(sock, peer, TextMessage)[-1], TextMessage)
        assert engine_proxy.follow(next_policy(looked_into(upstream, "/simple/**"))) == 0
        assert ended(sock)
        engine_proxy.event(rule="egress-default", result="denied", stage="request", path="/ws/x")
