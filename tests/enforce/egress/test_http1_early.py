"""Plain HTTP where the answer comes before its request's body has gone up: how the connection goes on, or ends."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.policy.request import Protocol
from tests.enforce.egress.proxy import (
    Proxy,
    Upstream,
    eventually,
    policy,
    read_all,
    read_exactly,
    read_head,
    rule,
    running,
    upstream,
)

NAMES = {"web.good.test": [["127.0.0.1"]]}
REFUSED = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"


def at_once(sock: socket.socket, received: bytearray) -> None:
    """Answers a request's head, and reads on; /close: refuses, and goes."""
    received += (head := read_head(sock))
    if b" /close " in head:
        sock.sendall(REFUSED)
        return
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    while data := sock.recv(65536):
        received += data


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with upstream(at_once) as made:
        yield made


@pytest.fixture
def proxy(server: Upstream, tmp_path: Path) -> Iterator[Proxy]:
    with running(policy(rule("web.good.test", server.port, protocol=Protocol.HTTP)), NAMES, tmp_path) as made:
        yield made


def post(server: Upstream, *fields: str, path: str = "/") -> bytes:
    where = f"web.good.test:{server.port}"
    return "\r\n".join([f"POST http://{where}{path} HTTP/1.1", f"Host: {where}", *fields, "", ""]).encode()


@pytest.mark.parametrize(
    ("framing", "body", "sent"),
    [
        ("Content-Length: 4", b"body", b"body"),
        ("Transfer-Encoding: chunked", b"4\r\nbody\r\n0\r\n\r\n", b"4\r\nbody\r\n0\r\n\r\n"),
    ],
)
def test_a_body_still_goes_up_after_its_answer_and_the_next_request_is_decided(
    proxy: Proxy, server: Upstream, framing: str, body: bytes, sent: bytes
) -> None:
    with proxy.connect() as sock:
        sock.sendall(post(server, framing))
        assert read_head(sock).startswith(b"HTTP/1.1 200 ")
        assert read_exactly(sock, 2) == b"ok"
        sock.sendall(body + b"GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n")
        assert read_all(sock).startswith(b"HTTP/1.1 403 ")
    proxy.event(rule="egress-default", host="evil.test")
    eventually(lambda: server.conversations[-1].endswith(b"\r\n\r\n" + sent))


def test_a_body_that_breaks_after_its_answer_is_not_read_on_as_a_request(proxy: Proxy, server: Upstream) -> None:
    with proxy.connect() as sock:
        sock.sendall(post(server, "Transfer-Encoding: chunked"))
        assert read_head(sock).startswith(b"HTTP/1.1 200 ")
        assert read_exactly(sock, 2) == b"ok"
        where = f"web.good.test:{server.port}"
        sock.sendall(f"zz\r\nGET http://{where}/second HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
        assert read_all(sock) == b""
    proxy.event(rule="malformed-request")
    assert all(b"/second" not in conversation for conversation in server.conversations)


def test_an_upstream_that_refuses_a_body_and_goes_is_heard(proxy: Proxy, server: Upstream) -> None:
    """Whether its answer or its reset is noticed first is a matter of chance: so many times."""
    for _ in range(40):
        with proxy.connect() as sock:
            sock.sendall(post(server, "Content-Length: 300000", path="/close") + b"x" * 200_000)
            answer = read_all(sock)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert answer.endswith(b"\r\n\r\nno")
