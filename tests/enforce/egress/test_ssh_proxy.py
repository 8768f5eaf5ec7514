"""The ProxyCommand for ssh, as the program that ssh starts, against the real egress process."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.enforce.egress import ssh_proxy
from agent.policy.request import Protocol
from tests.enforce.egress.proxy import SECONDS, Proxy, Upstream, policy, read_head, rule, running, upstream

NAMES = {"git.good.test": [["127.0.0.1"]], "evil.test": [["127.0.0.1"]], "down.good.test": [["127.0.0.1"]]}
BIG = bytes(range(256)) * 8192


def greet(sock: socket.socket, received: bytearray) -> None:
    """As sshd does: speaks first, then answers; ends when the client has ended."""
    sock.sendall(b"SSH-2.0-server\r\n")
    while data := sock.recv(65536):
        received += data
        sock.sendall(data)


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with upstream(greet) as made:
        yield made


@pytest.fixture(scope="module")
def proxy(server: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    given = policy(
        rule("git.good.test", server.port, protocol=Protocol.TCP),
        rule("down.good.test", 1, protocol=Protocol.TCP),
        rule("tls.good.test"),
    )
    with running(given, NAMES, tmp_path_factory.mktemp("proxy"), head=3, dial=3) as made:
        yield made


def connect(host: str, port: object, data: bytes = b"", **environment: str) -> tuple[int, bytes, str]:
    argv = [sys.executable, "-IS", ssh_proxy.__file__, host, str(port)]
    done = subprocess.run(argv, input=data, env=environment, capture_output=True, timeout=SECONDS, check=False)
    return done.returncode, done.stdout, done.stderr.decode()


def by(proxy: Proxy) -> dict[str, str]:
    return {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}", "NO_PROXY": "localhost,127.0.0.1,::1"}


def test_an_allowed_server_is_reached_and_every_byte_arrives_both_ways(proxy: Proxy, server: Upstream) -> None:
    status, out, err = connect("git.good.test", server.port, BIG, **by(proxy))
    assert (status, err) == (0, "")
    assert out == b"SSH-2.0-server\r\n" + BIG


@pytest.mark.parametrize(
    ("host", "port", "says"),
    [
        ("evil.test", 22, "parhelia: denied by egress-default: no rule of the policy allows evil.test:22 (tls)\n"),
        ("git.good.test", 2, "parhelia: denied by egress-default: git.good.test:2 (tls) is not allowed"),
        ("::1", 22, "parhelia: denied by egress-default: no rule of the policy allows [::1]:22 (tls)"),
        ("bad..name", 22, "parhelia: denied by malformed-request: "),
    ],
)
def test_a_refusal_is_said_with_its_rule_and_reason_and_recorded(proxy: Proxy, host: str, port: int, says: str) -> None:
    environment = {**by(proxy), "NO_PROXY": ""}
    before = len(proxy.events)
    status, out, err = connect(host, port, **environment)
    assert (status, out) == (1, b"")
    assert err.startswith(says), err
    proxy.wait(lambda p: len(p.events) == before + 1)
    assert proxy.events[-1]["event"]["result"] == "denied"


def test_an_upstream_that_is_down_is_said(proxy: Proxy) -> None:
    status, _, err = connect("down.good.test", 1, **by(proxy))
    assert status == 1
    assert "cannot be reached" in err


@pytest.mark.parametrize("host", ["a b", "a\nb", "a\r\nX: y", "", "é", "x" * 300])
def test_a_host_that_could_write_a_header_never_reaches_the_proxy(proxy: Proxy, host: str) -> None:
    before = len(proxy.events)
    status, out, err = connect(host, 22, **by(proxy))
    assert (status, out, err) == (1, b"", "parhelia: the host or port is malformed\n")
    assert len(proxy.events) == before


@pytest.mark.parametrize("given", ["socks5h://127.0.0.1:1", "http://user@127.0.0.1:1", "http://127.0.0.1", "x"])
def test_a_proxy_variable_that_is_not_the_session_s_is_an_error_and_never_a_way_round(given: str) -> None:
    assert connect("git.good.test", 22, HTTPS_PROXY=given)[::2] == (
        1,
        "parhelia: HTTPS_PROXY is not http://ADDRESS:PORT\n",
    )


@pytest.mark.parametrize("environment", [{}, {"NO_PROXY": "x, 127.0.0.1", "HTTPS_PROXY": "http://127.0.0.1:1"}])
def test_without_a_proxy_for_the_host_it_connects_directly(server: Upstream, environment: dict[str, str]) -> None:
    assert connect("127.0.0.1", server.port, b"x", **environment) == (0, b"SSH-2.0-server\r\nx", "")


def test_an_answer_s_words_cannot_steer_the_terminal(tmp_path: Path) -> None:
    def hostile(sock: socket.socket, received: bytearray) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 403 No\r\nX-Parhelia-Rule: r\x1b[2J\r\nX-Parhelia-Reason: \xe2\x80\xae\r\n\r\n")

    with upstream(hostile) as server:
        status, _, err = connect("git.good.test", 22, HTTPS_PROXY=f"http://127.0.0.1:{server.port}")
    assert (status, err) == (1, "parhelia: denied by r?[2J: ???\n")


def test_a_wrong_call_says_how() -> None:
    argv = [sys.executable, "-IS", ssh_proxy.__file__]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stderr) == (2, "usage: ssh_proxy.py HOST PORT\n")
