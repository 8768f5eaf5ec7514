"""Limits of a rule for a wildcard: as many names as the session can make up below it are one budget."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.enforce.egress.quota import LimitExceeded
from agent.policy.model import HostLimits, HostRule, Mode
from agent.policy.request import Protocol
from tests.enforce.egress.engine_front import NOBODY, exchange
from tests.enforce.egress.engine_upstream import Authority
from tests.enforce.egress.proxy import Proxy, client_hello, policy, read_all, read_exactly, rule, running, upstream
from tests.enforce.egress.secret_upstream import KeepingUpstream
from tests.enforce.egress.test_http1 import answers
from tests.enforce.egress.tickets import Desk, allowed, request

WILD = "*.good.test"
HOSTS = [f"{name}.good.test" for name in "abcdefgh"]
NAMES = {host: [["127.0.0.1"]] for host in HOSTS}


def test_bytes_of_all_hosts_below_a_wildcard_count_together() -> None:
    desk = Desk()
    for host in ("a.good.test", "b.good.test"):
        desk.open(HostLimits(upload=10, download=10), host=host, pattern=WILD).up.take(5)
    third = desk.open(HostLimits(upload=20, download=10), host="c.good.test", pattern=WILD)
    third.down.take(10)
    with pytest.raises(LimitExceeded, match=r"11 bytes received from \*\.good\.test are more than the session's 10"):
        third.down.take(1)
    with pytest.raises(LimitExceeded):
        desk.open(HostLimits(upload=10), host="d.good.test", pattern=WILD)
    assert desk.rules() == [("limit-download", True), ("limit-upload", True)]


def test_a_wildcard_and_a_host_below_it_each_have_their_own_count() -> None:
    desk = Desk()
    both = (*allowed(HostLimits(upload=100), pattern=WILD).grants, *allowed(HostLimits(upload=10)).grants)
    one = desk.open(HostLimits(upload=100), host="other.good.test", pattern=WILD)
    one.up.take(50)
    two = desk.open()
    two.bind(request(), replace(allowed(), grants=both), observing=False)
    two.up.take(10)
    with pytest.raises(LimitExceeded, match=r"sent to api\.good\.test"):
        two.up.take(1)
    with pytest.raises(LimitExceeded, match=r"sent to \*\.good\.test"):
        one.up.take(41)


def test_connections_and_rates_of_a_wildcard_count_over_all_its_hosts() -> None:
    desk = Desk()
    open_now = [desk.open(HostLimits(connections=2), host=host, pattern=WILD) for host in HOSTS[:2]]
    with pytest.raises(LimitExceeded, match=r"2 connections to \*\.good\.test are open; 2 at once are allowed"):
        desk.open(HostLimits(connections=2), host=HOSTS[2], pattern=WILD)
    open_now[0].close()
    open_now[0].close()
    desk.open(HostLimits(connections=2), host=HOSTS[3], pattern=WILD)
    with pytest.raises(LimitExceeded, match=r"connections to \*\.good\.test in the last minute; 3 are allowed"):
        desk.open(HostLimits(connections_per_minute=3), host=HOSTS[4], pattern=WILD)
    assert desk.rules() == [("limit-connections", True), ("limit-rate", True)]


def test_a_policy_that_comes_later_counts_what_is_open_below_its_wildcard_from_then_on() -> None:
    desk = Desk()
    ticket = desk.open(host=HOSTS[0])
    ticket.up.take(1000)
    ticket.rebind(allowed(HostLimits(upload=10, connections=1), pattern=WILD), observing=False)
    with pytest.raises(LimitExceeded):
        desk.open(HostLimits(connections=1), host=HOSTS[1], pattern=WILD)
    ticket.up.take(10)
    with pytest.raises(LimitExceeded):
        ticket.up.take(1)
    ticket.close()
    assert desk.quota.wildcard(WILD).open == 0


def test_a_wildcard_that_only_observes_is_told_and_binds_nothing() -> None:
    desk = Desk()
    for host in HOSTS:
        desk.open(HostLimits(upload=10), host=host, pattern=WILD, mode=Mode.OBSERVE).up.take(20)
    assert set(desk.rules()) == {("limit-upload", False)}


@contextlib.contextmanager
def tunnel(proxy: Proxy, host: str, port: int) -> Iterator[socket.socket]:
    with proxy.connect() as sock:
        sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\n\r\n".encode() + client_hello(host))
        yield sock


@pytest.mark.row(34)
def test_many_names_below_a_wildcard_get_no_more_out_than_one(tmp_path: Path) -> None:
    """Tunnels: what does not fit into the one budget is cut, whichever name it goes by."""
    with (
        upstream() as server,
        running(policy(rule(WILD, server.port, limits=HostLimits(upload=20_000))), NAMES, tmp_path) as proxy,
    ):
        for host in HOSTS:
            with tunnel(proxy, host, server.port) as sock, contextlib.suppress(OSError):
                sock.sendall(b"x" * 8_000)
                sock.shutdown(socket.SHUT_WR)
                read_all(sock)
        event = proxy.event(rule="limit-upload", result="denied")
        assert f"to {WILD} are more than the session's 20000" in event["details"]["reason"]
        assert 8_000 < sum(len(got) for got in server.conversations) <= 20_000


def test_many_names_below_a_wildcard_share_its_connections(tmp_path: Path) -> None:
    with (
        upstream() as server,
        running(policy(rule(WILD, server.port, limits=HostLimits(connections=2))), NAMES, tmp_path) as proxy,
        contextlib.ExitStack() as stack,
    ):
        for host in HOSTS[:2]:
            sock = stack.enter_context(tunnel(proxy, host, server.port))
            assert b" 200 " in read_exactly(sock, 20)
        answer = proxy.ask(f"CONNECT {HOSTS[2]}:{server.port} HTTP/1.1\r\n\r\n".encode())
        assert b"X-Parhelia-Rule: limit-connections\r\n" in answer
        proxy.event(rule="limit-connections", result="denied", resource=f"{HOSTS[2]}:{server.port}")


def engine_upload(proxy: Proxy, host: str, port: int, size: int) -> bytes:
    assert proxy.ca is not None
    context = ssl.create_default_context(cadata=proxy.ca)
    with context.wrap_socket(proxy.tunnel(host, port), server_hostname=host) as sock:
        head = f"POST /up/x HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
        return exchange(sock, head.encode() + b"x" * size)


@pytest.mark.row(34)
def test_the_engine_and_the_proxy_spend_one_wildcard_s_budget(authority: Authority, tmp_path: Path) -> None:
    """Intercepted requests to many names, then plain HTTP to another: both sides count for the same wildcard."""
    server = KeepingUpstream(authority.server_context(*HOSTS))
    limits = HostLimits(upload=5_000)
    tmp_path.chmod(0o755)
    user = (NOBODY, NOBODY) if os.geteuid() == 0 else None
    with upstream(answers) as plain:
        rules: list[HostRule] = [
            rule(WILD, server.port, paths=("/up/**",), limits=limits),
            rule(WILD, plain.port, protocol=Protocol.HTTP, limits=limits),
        ]
        with running(policy(*rules), NAMES, tmp_path, user=user, ca_file=str(authority.file)) as proxy:
            said = [engine_upload(proxy, host, server.port, 1_500) for host in HOSTS[:4]]
            assert [answer[9:12] for answer in said] == [b"200", b"200", b"200", b"403"]
            assert b"X-Parhelia-Rule: limit-upload\r\n" in said[3]
            event = proxy.event(rule="limit-upload", result="denied", mechanism="engine")
            assert WILD in event["details"]["reason"]

            where = f"{HOSTS[5]}:{plain.port}"
            ask = f"POST http://{where}/ HTTP/1.1\r\nHost: {where}\r\nContent-Length: 3000\r\nConnection: close\r\n\r\n"
            proxy.wait(lambda p: sum(stats["up"] for stats in p.stats) >= 4_500)
            assert b"X-Parhelia-Rule: limit-upload\r\n" in proxy.ask(ask.encode() + b"x" * 3000)
    server.close()
    assert server.all().count(b"x" * 1_500) == 3
