"""The limits of hosts and of the session: as values, and on the real egress process."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from agent.enforce.egress import quota
from agent.enforce.egress.quota import LimitExceeded
from agent.policy.model import EgressLimits, EgressSection, HostLimits, HostRule, Layer, Mode, Policy
from agent.policy.request import Protocol
from tests.enforce.egress.proxy import (
    Proxy,
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
from tests.enforce.egress.test_http1 import answers
from tests.enforce.egress.tickets import Desk, allowed

HOST = "api.good.test"
NAMES = {HOST: [["127.0.0.1"]], "other.good.test": [["127.0.0.1"]]}


def test_connections_over_the_rate_are_refused_until_the_minute_is_over() -> None:
    desk = Desk()
    for _ in range(3):
        desk.open(HostLimits(connections_per_minute=3)).close()
    with pytest.raises(LimitExceeded, match=r"3 connections to api.good.test in the last minute; 3 are allowed"):
        desk.open(HostLimits(connections_per_minute=3))
    desk.open(HostLimits(connections_per_minute=3), host="other.good.test")
    desk.now += 61
    desk.open(HostLimits(connections_per_minute=3))
    assert desk.rules() == [("limit-rate", True)]


def test_the_session_has_a_rate_for_all_its_hosts() -> None:
    desk, session = Desk(), EgressLimits(connections_per_minute=2)
    desk.open(host="a.good.test", session=session)
    desk.open(host="b.good.test", session=session)
    with pytest.raises(LimitExceeded, match="2 connections in a minute"):
        desk.open(host="c.good.test", session=session)
    assert desk.rules() == [("limit-rate", True)]


def test_of_several_rules_the_strictest_holds() -> None:
    desk = Desk()
    desk.open(HostLimits(connections=5), HostLimits(connections=1))
    with pytest.raises(LimitExceeded, match=r"1 connections to api.good.test are open; 1 at once are allowed"):
        desk.open(HostLimits(connections=5), HostLimits(connections=1))


def test_a_connection_that_has_ended_makes_room_once() -> None:
    desk = Desk()
    first = desk.open(HostLimits(connections=2))
    desk.open(HostLimits(connections=2))
    first.close()
    first.close()
    desk.open(HostLimits(connections=2))
    with pytest.raises(LimitExceeded):
        desk.open(HostLimits(connections=2))
    assert len(desk.quota) == 2


def test_bytes_are_the_hosts_and_outlive_its_connections() -> None:
    desk = Desk()
    one, two = desk.open(HostLimits(upload=10)), desk.open(HostLimits(upload=10))
    one.up.take(6)
    two.up.take(4)
    with pytest.raises(LimitExceeded, match=r"11 bytes sent to api.good.test are more than the session's 10"):
        one.up.take(1)
    one.close()
    two.close()
    with pytest.raises(LimitExceeded):
        desk.open(HostLimits(upload=10))
    with pytest.raises(LimitExceeded):
        two.up.take(1)
    assert desk.rules() == [("limit-upload", True)] * 3


def test_a_rule_that_observes_is_told_once_and_binds_nothing() -> None:
    desk = Desk()
    limits = HostLimits(connections=0, upload=10, download=10, body=5)
    ticket = desk.open(limits, mode=Mode.OBSERVE)
    for _ in range(3):
        ticket.up.take(50)
        ticket.down.take(50)
        ticket.check_body(50)
    expected = ["limit-connections", "limit-upload", "limit-download", "limit-body"]
    assert desk.rules() == [(name, False) for name in expected]


def test_an_observed_limit_below_an_enforced_one_leaves_it_in_force() -> None:
    desk = Desk()
    ticket = desk.open(HostLimits(upload=100), observing=False)
    soft = allowed(HostLimits(upload=10), mode=Mode.OBSERVE).grants
    hard = allowed(HostLimits(upload=100))
    ticket.bind(ticket.request, replace(hard, grants=(*hard.grants, *soft)), observing=False)
    ticket.up.take(50)
    with pytest.raises(LimitExceeded):
        ticket.up.take(51)
    assert desk.rules() == [("limit-upload", False), ("limit-upload", True)]


def test_past_the_most_hosts_the_others_share_one_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "MAX_HOSTS", 2)
    desk = Desk()
    for name in "abcd":
        desk.open(HostLimits(upload=10), host=f"{name}.good.test").up.take(5)
    with pytest.raises(LimitExceeded):
        desk.open(HostLimits(upload=10), host="e.good.test").up.take(1)
    desk.open(HostLimits(upload=10), host="a.good.test").up.take(5)


def tunnel_to(proxy: Proxy, port: int) -> socket.socket:
    """A tunnel that has begun."""
    hello = client_hello(HOST)
    sock = proxy.tunnel(HOST, port)
    sock.sendall(hello)
    assert read_exactly(sock, len(hello)) == hello
    return sock


def refused(proxy: Proxy, port: int) -> bytes:
    return proxy.ask(f"CONNECT {HOST}:{port} HTTP/1.1\r\n\r\n".encode())


def test_a_tunnel_over_its_upload_is_reset_and_nothing_over_the_limit_passes(tmp_path: Path) -> None:
    with upstream() as server:
        given_policy = policy(rule(HOST, server.port, limits=HostLimits(upload=400_000)))
        with running(given_policy, NAMES, tmp_path) as proxy:
            with tunnel_to(proxy, server.port) as sock, contextlib.suppress(OSError):
                for _ in range(200):
                    sock.sendall(b"x" * 100_000)
                    read_exactly(sock, 100_000)
            event = proxy.event(rule="limit-upload", result="denied")
            assert event["details"]["reason"].endswith("bytes sent to api.good.test are more than the session's 400000")
            assert sum(len(got) for got in server.conversations) <= 400_000
            assert b"X-Parhelia-Rule: limit-upload\r\n" in refused(proxy, server.port)


def test_a_tunnel_over_its_download_sees_a_reset_and_no_end(tmp_path: Path) -> None:
    def pour(sock: socket.socket, _: bytearray) -> None:
        sock.recv(65536)
        while True:
            sock.sendall(b"y" * 65536)

    with upstream(pour) as server:
        given_policy = policy(rule(HOST, server.port, limits=HostLimits(download=3_000_000)))
        with running(given_policy, NAMES, tmp_path) as proxy, proxy.tunnel(HOST, server.port) as sock:
            sock.sendall(client_hello(HOST))
            got = 0
            with pytest.raises(ConnectionResetError):
                while piece := sock.recv(65536):
                    got += len(piece)
            assert got <= 3_000_000
            proxy.event(rule="limit-download", result="denied")


def test_a_byte_limit_holds_for_all_connections_of_the_host_together(tmp_path: Path) -> None:
    with upstream() as server:
        given_policy = policy(rule(HOST, server.port, limits=HostLimits(upload=10_000)))
        with running(given_policy, NAMES, tmp_path) as proxy:
            socks = [tunnel_to(proxy, server.port) for _ in range(4)]
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.sendall(b"x" * 4000)
            proxy.wait(lambda p: p.recorded("limit-upload"))
            assert sum(len(got) for got in server.conversations) <= 10_000
            for sock in socks:
                sock.close()


@pytest.mark.row(42)
def test_tunnels_at_once_and_their_room_when_they_have_ended(tmp_path: Path) -> None:
    with upstream() as server:
        given_policy = policy(rule(HOST, server.port, limits=HostLimits(connections=2)))
        with running(given_policy, NAMES, tmp_path) as proxy:
            one, two = tunnel_to(proxy, server.port), tunnel_to(proxy, server.port)
            assert b"X-Parhelia-Rule: limit-connections\r\n" in refused(proxy, server.port)
            event = proxy.event(rule="limit-connections", result="denied")
            assert event["details"]["reason"] == f"2 connections to {HOST} are open; 2 at once are allowed"
            one.close()
            eventually(lambda: b"X-Parhelia-Rule" not in _first_line(proxy, server.port))
            two.close()


def _first_line(proxy: Proxy, port: int) -> bytes:
    with proxy.connect() as sock:
        sock.sendall(f"CONNECT {HOST}:{port} HTTP/1.1\r\n\r\n".encode())
        return sock.recv(4096)


def test_a_connection_that_fails_on_the_way_gives_its_room_back(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        closed = unused.getsockname()[1]
    given_policy = policy(rule(HOST, closed, limits=HostLimits(connections=1)))
    with running(given_policy, NAMES, tmp_path) as proxy:
        for _ in range(3):
            assert refused(proxy, closed).startswith(b"HTTP/1.1 502 ")


def test_connections_per_minute(tmp_path: Path) -> None:
    with upstream() as server:
        given_policy = policy(rule(HOST, server.port, limits=HostLimits(connections_per_minute=2)))
        with running(given_policy, NAMES, tmp_path) as proxy:
            for _ in range(2):
                tunnel_to(proxy, server.port).close()
            assert b"X-Parhelia-Rule: limit-rate\r\n" in refused(proxy, server.port)
            proxy.event(rule="limit-rate", result="denied")


def test_an_idle_tunnel_of_a_host_is_reset_and_another_is_not(tmp_path: Path) -> None:
    with upstream() as server:
        rules = (rule(HOST, server.port, limits=HostLimits(idle=1)), rule("other.good.test", server.port))
        with (
            running(policy(*rules), NAMES, tmp_path) as proxy,
            tunnel_to(proxy, server.port) as idle,
            proxy.tunnel("other.good.test", server.port) as other,
        ):
            with pytest.raises(ConnectionResetError):
                idle.recv(1)
            hello = client_hello("other.good.test")
            other.sendall(hello)
            assert read_exactly(other, len(hello)) == hello


def bounded(limits: EgressLimits, *rules: HostRule, mode: Mode = Mode.ENFORCE) -> Policy:
    section = EgressSection(mode=mode, limits=limits, allow=rules)
    return Policy(layers=(Layer(source="test", egress=section),), digest="d" * 64)


def test_the_sessions_bounds_come_from_the_policy(tmp_path: Path) -> None:
    with upstream() as server:
        limits = EgressLimits(connections=2, head=1, idle=1)
        with running(bounded(limits, rule(HOST, server.port)), NAMES, tmp_path) as proxy:
            with proxy.connect() as slow:
                slow.sendall(b"CONNECT api.goo")
                assert read_all(slow).startswith(b"HTTP/1.1 408 ")
            with tunnel_to(proxy, server.port) as sock, pytest.raises(ConnectionResetError):
                sock.recv(1)

            def full() -> bool:
                with proxy.connect(), proxy.connect():  # until their heads are given up
                    return b"X-Parhelia-Rule: limit-connections" in proxy.ask(b"")

            eventually(full)


def test_the_session_may_observe_its_limits(tmp_path: Path) -> None:
    with upstream() as server:
        given_policy = bounded(EgressLimits(), rule(HOST, server.port, limits=HostLimits(upload=10)), mode=Mode.OBSERVE)
        with running(given_policy, NAMES, tmp_path) as proxy:
            with tunnel_to(proxy, server.port) as sock:
                sock.sendall(b"x" * 1000)
                assert read_exactly(sock, 1000) == b"x" * 1000
            event = proxy.event(rule="limit-upload")
            assert (event["result"], event["details"]["enforced"]) == ("success", False)


def ask_plain(proxy: Proxy, port: int, method: str, *fields: str, body: bytes = b"", path: str = "/x") -> bytes:
    head = "\r\n".join([f"{method} http://{HOST}:{port}{path} HTTP/1.1", f"Host: {HOST}:{port}", *fields])
    return proxy.ask(head.encode() + b"\r\nConnection: close\r\n\r\n" + body)


CHUNKS = b"a\r\n0123456789\r\n" * 5 + b"0\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("limits", "method", "fields", "body", "rule_id"),
    [
        (HostLimits(body=0), "GET", ["Content-Length: 5"], b"hello", "limit-body"),
        (HostLimits(body=0), "GET", [CHUNKED], CHUNKS, "limit-body"),
        (HostLimits(body=0), "GET", [], b"", None),
        (HostLimits(body=0), "POST", ["Content-Length: 0"], b"", None),
        (HostLimits(body=10), "POST", ["Content-Length: 11"], b"hello world", "limit-body"),
        (HostLimits(body=11), "POST", ["Content-Length: 11"], b"hello world", None),
        (HostLimits(body=50), "POST", [CHUNKED], CHUNKS, None),
        (HostLimits(body=49), "POST", [CHUNKED], CHUNKS, "limit-body"),
        (HostLimits(upload=1000), "POST", ["Content-Length: 2000"], b"x" * 2000, "limit-upload"),
        (HostLimits(upload=100), "POST", [CHUNKED], CHUNKS, "limit-upload"),
        (HostLimits(upload=20), "GET", [], b"", "limit-upload"),
        (HostLimits(download=20), "GET", [], b"", "limit-download"),
        (HostLimits(download=2000), "GET", [], b"", None),
    ],
)
@pytest.mark.row(34)
def test_a_plain_request_against_its_limits(
    limits: HostLimits, method: str, fields: list[str], body: bytes, rule_id: str | None, tmp_path: Path
) -> None:
    with upstream(answers) as server:
        given_policy = policy(rule(HOST, server.port, protocol=Protocol.HTTP, limits=limits))
        with running(given_policy, NAMES, tmp_path) as proxy:
            answer = ask_plain(proxy, server.port, method, *fields, body=body)
            if rule_id is None:
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
                return
            assert answer.startswith(b"HTTP/1.1 403 ")
            assert f"\r\nX-Parhelia-Rule: {rule_id}\r\n".encode() in answer
            proxy.event(rule=rule_id, result="denied", method=method)
            assert not any(got.endswith(b"0\r\n\r\n") or b"hello" in got for got in server.conversations)


def test_the_requests_of_a_kept_connection_share_the_hosts_bytes(tmp_path: Path) -> None:
    with upstream(answers) as server:
        given_policy = policy(rule(HOST, server.port, protocol=Protocol.HTTP, limits=HostLimits(download=90)))
        with running(given_policy, NAMES, tmp_path) as proxy, proxy.connect() as sock:
            where, got = f"{HOST}:{server.port}", []
            for _ in range(3):
                sock.sendall(f"GET http://{where}/x HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
                head = read_head(sock)
                got.append(head[:12])
                read_exactly(sock, 2)
            assert got == [b"HTTP/1.1 200", b"HTTP/1.1 200", b"HTTP/1.1 403"]
            proxy.event(rule="limit-download")


def test_a_download_that_is_cut_does_not_look_complete(tmp_path: Path) -> None:
    def serve(sock: socket.socket, _: bytearray) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\n")  # a body until the end: only a reset tells that it was cut
        while True:
            sock.sendall(b"z" * 65536)

    with upstream(serve) as server:
        given_policy = policy(rule(HOST, server.port, protocol=Protocol.HTTP, limits=HostLimits(download=500_000)))
        with running(given_policy, NAMES, tmp_path) as proxy, proxy.connect() as sock:
            sock.sendall(f"GET http://{HOST}:{server.port}/ HTTP/1.0\r\n\r\n".encode())
            got = bytearray()
            with pytest.raises(ConnectionResetError):
                while piece := sock.recv(65536):
                    got += piece
            assert len(got) <= 501_000
            proxy.event(rule="limit-download", result="denied")


def test_a_thousand_idle_tunnels_cost_little_and_the_next_one_works(tmp_path: Path) -> None:
    with upstream() as server, running(policy(rule(HOST, server.port)), NAMES, tmp_path) as proxy:
        tunnel_to(proxy, server.port).close()
        before = resident(proxy)
        idle = [tunnel_to(proxy, server.port) for _ in range(1000)]
        try:
            with tunnel_to(proxy, server.port) as sock:
                sock.sendall(b"still served")
                assert read_exactly(sock, 12) == b"still served"
            assert resident(proxy) - before < 20 * 1024 * 1024
        finally:
            for sock in idle:
                sock.close()


def resident(proxy: Proxy) -> int:
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def test_slow_heads_take_the_room_of_their_limit_and_give_it_back(tmp_path: Path) -> None:
    with upstream() as server:
        limits = EgressLimits(connections=20, head=2)
        with running(bounded(limits, rule(HOST, server.port)), NAMES, tmp_path) as proxy:
            slow = [proxy.connect() for _ in range(20)]
            for sock in slow:
                sock.sendall(b"CONNECT api.good.test")
            eventually(lambda: b"limit-connections" in proxy.ask(b""))
            for sock in slow:
                assert read_all(sock).startswith(b"HTTP/1.1 408 ")
                sock.close()
            eventually(lambda: b"limit-connections" not in proxy.ask(b""))
            tunnel_to(proxy, server.port).close()
            proxy.event(rule="limit-connections", result="denied")
