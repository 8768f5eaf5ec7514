"""The engine inside the real egress process: CONNECT to the front, the hand-over, the events at the guard's end."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.policy.model import EgressSection
from tests.enforce.egress.engine_front import HOST, NOBODY, exchange, until
from tests.enforce.egress.engine_upstream import Authority, Http1Upstream
from tests.enforce.egress.proxy import Proxy, policy, rule, running


@pytest.fixture
def proxy(authority: Authority, upstream: Http1Upstream, tmp_path: Path) -> Iterator[Proxy]:
    given = policy(rule(HOST, upstream.port, methods=("GET",), paths=("/simple/**",)))
    user = (NOBODY, NOBODY) if os.geteuid() == 0 else None
    tmp_path.chmod(0o755)
    names = {HOST: [["127.0.0.1"]]}
    with running(given, names, tmp_path, user=user, ca_file=str(authority.file)) as served:
        yield served


def worker_of(proxy: Proxy) -> int:
    pid = proxy.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def tls(proxy: Proxy, port: int) -> ssl.SSLSocket:
    assert proxy.ca is not None
    context = ssl.create_default_context(cadata=proxy.ca)
    return context.wrap_socket(proxy.tunnel(HOST, port), server_hostname=HOST)


def ask(sock: socket.socket, port: int, method: str, path: str) -> bytes:
    return exchange(sock, f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n".encode())


def test_requests_in_a_tunnel_are_decided_one_by_one_and_recorded_by_the_guard(
    proxy: Proxy, upstream: Http1Upstream
) -> None:
    with tls(proxy, upstream.port) as sock:
        assert ask(sock, upstream.port, "GET", "/simple/x").startswith(b"HTTP/1.1 200 ")
    connection = proxy.event(type="network.egress")
    assert connection["details"]["stage"] == "connect"
    with tls(proxy, upstream.port) as sock:
        assert ask(sock, upstream.port, "GET", "/admin").startswith(b"HTTP/1.1 403 ")
    denied = proxy.event(type="network.egress_blocked", mechanism="engine")
    assert (denied["details"]["path"], denied["details"]["rule"], denied["actor"]) == (
        "/admin",
        "egress-default",
        connection["actor"],
    )
    assert upstream.requests == [("GET", "/simple/x", f"{HOST}:{upstream.port}")]
    proxy.wait(lambda p: sum(entry["down"] for entry in p.stats) > 100)


@pytest.mark.parametrize("trusted", [True, False])
def test_an_upstream_may_be_certified_by_an_authority_of_the_policys_own(
    authority: Authority, upstream: Http1Upstream, tmp_path: Path, trusted: bool
) -> None:
    given = policy(rule(HOST, upstream.port, methods=("GET",)))
    section = replace(given.layers[0].egress or EgressSection(), trust=(authority.file.read_text(),) * trusted)
    given = replace(given, layers=(replace(given.layers[0], egress=section),))
    user = (NOBODY, NOBODY) if os.geteuid() == 0 else None
    tmp_path.chmod(0o755)
    with (
        running(given, {HOST: [["127.0.0.1"]]}, tmp_path, user=user) as served,
        tls(served, upstream.port) as sock,
    ):
        said = ask(sock, upstream.port, "GET", "/simple/x")
    assert said.startswith(b"HTTP/1.1 200 " if trusted else b"HTTP/1.1 502 ")
    assert len(upstream.requests) == trusted


def test_the_death_of_the_worker_is_the_end_of_the_egress_process(proxy: Proxy, upstream: Http1Upstream) -> None:
    with tls(proxy, upstream.port) as sock:
        os.kill(worker_of(proxy), signal.SIGKILL)
        assert ask(sock, upstream.port, "GET", "/simple/x") == b""
    assert proxy.process.wait(60) == 1
    with pytest.raises(OSError, match="refused"):
        proxy.connect()
    assert upstream.requests == []


def test_the_end_of_the_egress_process_is_the_end_of_the_worker(proxy: Proxy) -> None:
    worker = worker_of(proxy)
    proxy.process.kill()
    proxy.process.wait(60)
    until(lambda: gone(worker), "the worker's end")


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
