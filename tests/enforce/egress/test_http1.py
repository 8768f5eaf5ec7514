"""Plain HTTP through the real egress process: every request decided, written anew, never made to look complete."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.policy.request import Protocol
from tests.conftest import require
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

HERE = [["127.0.0.1"]]
NAMES = {"web.good.test": HERE, "get.good.test": HERE, "two.good.test": [["127.0.0.2"]], "api.good.test": HERE}

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def answers(sock: socket.socket, received: bytearray) -> None:
    """An origin of a few paths, one request after the other."""
    while head := read_head(sock):
        received += head
        path = head.split(b" ")[1]
        if b"ontent-length: " in head:
            received += read_exactly(sock, int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
        if b"transfer-encoding: chunked" in head.lower():
            while not received.endswith(b"0\r\n\r\n") and (data := sock.recv(65536)):
                received += data
        reply = REPLIES.get(path, OK)
        if reply is None:
            return
        sock.sendall(reply)
        if b"Connection: close" in reply or path == b"/until-close":
            return
        if path == b"/reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return


REPLIES: dict[bytes, bytes | None] = {
    b"/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nT: 1\r\n\r\n",
    b"/until-close": b"HTTP/1.0 200 OK\r\n\r\nall of it",
    b"/short": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nonly this",
    b"/cut-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nab",
    b"/bad-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
    b"/smuggle": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"/upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nraw",
    b"/garbage": b"SSH-2.0-x\r\n\r\n",
    b"/continue": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"/nothing": None,
    b"/gone": b"HTTP/1.1 204 No Content\r\n\r\n",
    b"/redirect": b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
    b"/reset": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
    b"/hop": b"HTTP/1.1 200 OK\r\nConnection: X-A\r\nX-A: 1\r\nKeep-Alive: 5\r\nX-B: 2\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with upstream(answers) as made:
        yield made


@pytest.fixture(scope="module")
def proxy(server: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    plain = Protocol.HTTP
    given = policy(
        rule("web.good.test", server.port, protocol=plain),
        rule("two.good.test", server.port, protocol=plain),
        rule("get.good.test", server.port, protocol=plain, methods=("GET",), paths=("/pub/**",)),
        rule("api.good.test", server.port),
    )
    with running(given, NAMES, tmp_path_factory.mktemp("proxy"), head=3, dial=3) as made:
        yield made


def ask(server: Upstream, path: str, *fields: str, host: str = "web.good.test", method: str = "GET") -> bytes:
    where = f"{host}:{server.port}"
    return "\r\n".join(
        [f"{method} http://{where}{path} HTTP/1.1", f"Host: {where}", *fields, "Connection: close", "", ""]
    ).encode("latin-1")


def test_a_request_is_forwarded_as_the_origin_expects_it(proxy: Proxy, server: Upstream) -> None:
    fields = ("Proxy-Authorization: Basic c2VjcmV0", "Connection: X-Hop", "X-Hop: 1", "TE: trailers", "X-Kept: 2")
    answer = proxy.ask(ask(server, "/a?b=c", *fields))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nok")
    sent = bytes(server.conversations[-1])
    assert sent.startswith(f"GET /a?b=c HTTP/1.1\r\nhost: web.good.test:{server.port}\r\n".encode())
    assert b"x-kept: 2" in sent
    for gone in (b"secret", b"roxy", b"x-hop", b"c2VjcmV0", b"te:"):
        assert gone not in sent.lower()


@pytest.mark.parametrize(
    ("path", "tail"),
    [
        ("/chunked", b"7\r\nabcdefg\r\n0\r\n\r\n"),
        ("/until-close", b"9\r\nall of it\r\n0\r\n\r\n"),
        ("/continue", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"),
        ("/gone", b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"),
        ("/hop", b"HTTP/1.1 200 OK\r\nx-b: 2\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"),
    ],
)
def test_a_response_of_any_framing_arrives_whole(proxy: Proxy, server: Upstream, path: str, tail: bytes) -> None:
    assert proxy.ask(ask(server, path)).endswith(tail)


def test_a_client_of_http_1_0_gets_no_chunks(proxy: Proxy, server: Upstream) -> None:
    where = f"web.good.test:{server.port}"
    answer = proxy.ask(f"GET http://{where}/chunked HTTP/1.0\r\n\r\n".encode())
    assert answer.endswith(b"\r\n\r\nabcdefg")
    assert b"chunked" not in answer


@pytest.mark.parametrize("path", ["/short", "/cut-chunk", "/bad-chunk", "/reset"])
def test_a_response_that_breaks_is_a_reset_and_never_complete(proxy: Proxy, server: Upstream, path: str) -> None:
    with proxy.connect() as sock:
        sock.sendall(ask(server, path))
        with pytest.raises(ConnectionResetError):
            while sock.recv(65536):
                pass


@pytest.mark.parametrize("path", ["/smuggle", "/upgrade", "/garbage", "/nothing"])
def test_a_response_that_cannot_be_trusted_is_502(proxy: Proxy, server: Upstream, path: str) -> None:
    assert proxy.ask(ask(server, path)).startswith(b"HTTP/1.1 502 Bad Gateway\r\n")


DENIED = [
    ("http://evil.test/", "evil.test", "egress-default"),
    ("http://169.254.169.254/latest/", "169.254.169.254", "egress-default"),
    ("http://[::ffff:169.254.169.254]/", "[::ffff:169.254.169.254]", "egress-default"),
    ("http://2852039166/", "2852039166", "egress-default"),
    ("http://mitm.it/", "mitm.it", "egress-default"),
    ("http://web.good.test:81/", "web.good.test:81", "egress-default"),
    ("http://api.good.test:PORT/", "api.good.test:PORT", "egress-default"),
]


@pytest.mark.parametrize(("url", "host", "rule_id"), DENIED)
def test_a_forbidden_url_is_403_with_its_rule(
    proxy: Proxy, server: Upstream, url: str, host: str, rule_id: str
) -> None:
    text = f"GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n".replace("PORT", str(server.port))
    before = proxy.lookups()
    answer = proxy.ask(text.encode())
    assert answer.startswith(b"HTTP/1.1 403 Forbidden by parhelia: ")
    assert f"X-Parhelia-Rule: {rule_id}\r\n".encode() in answer
    assert proxy.lookups() == before


@pytest.mark.row(22)
def test_a_redirect_to_metadata_is_followed_into_a_denial(proxy: Proxy, server: Upstream) -> None:
    assert b"Location: http://169.254.169.254/".lower() in proxy.ask(ask(server, "/redirect")).lower()
    answer = proxy.ask(b"GET http://169.254.169.254/ HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 ")


MALFORMED = [
    "GET http://[evil.test]/ HTTP/1.1\r\nHost: web.good.test\r\n\r\n",
    "GET http:///x HTTP/1.1\r\nHost: web.good.test\r\n\r\n",
    "GET http://web.good.test#@evil.test/ HTTP/1.1\r\nHost: web.good.test\r\n\r\n",
    "GET http://web.good.test\\@evil.test/ HTTP/1.1\r\nHost: web.good.test\r\n\r\n",
    "GET http://u:p@web.good.test/ HTTP/1.1\r\nHost: web.good.test\r\n\r\n",
    "GET http://%77eb.good.test/ HTTP/1.1\r\nHost: web.good.test\r\n\r\n",
    "GET http://web.good.test/ HTTP/1.1\r\n\r\n",
    "GET http://web.good.test/ HTTP/1.1\r\nHost: web.good.test\r\nHost: web.good.test\r\n\r\n",
    "GET http://web.good.test/ HTTP/1.1\r\nHost: a b\r\n\r\n",
    "GET http://web.good.test/a\\b HTTP/1.1\r\nHost: web.good.test\r\n\r\n",
    "GET ftp://web.good.test/ HTTP/1.1\r\nHost: web.good.test\r\n\r\n",
    "GET //web.good.test/ HTTP/1.1\r\nHost: web.good.test\r\n\r\n",
    "POST http://web.good.test/ HTTP/1.1\r\nHost: web.good.test\r\n"
    "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_request_is_400_before_any_lookup(proxy: Proxy, text: str) -> None:
    before = proxy.lookups()
    assert proxy.ask(text.encode("latin-1")).startswith(b"HTTP/1.1 400 Bad Request by parhelia: malformed-request: ")
    assert proxy.lookups() == before


def test_a_host_header_that_names_another_host_is_421(proxy: Proxy, server: Upstream) -> None:
    text = f"GET http://web.good.test:{server.port}/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"
    answer = proxy.ask(text.encode())
    assert answer.startswith(b"HTTP/1.1 421 Misdirected Request by parhelia: host-mismatch: ")
    assert proxy.event(rule="host-mismatch")["result"] == "denied"


@pytest.mark.parametrize(
    ("method", "path", "fields", "expected"),
    [
        ("GET", "/pub/x", (), b"200"),
        ("GET", "/pub/x?y=/admin", (), b"200"),
        ("POST", "/pub/x", (), b"403"),
        ("DELETE", "/pub/x", (), b"403"),
        ("GET", "/admin", (), b"403"),
        ("GET", "/pub/../admin", (), b"403"),
        ("GET", "/pub/%2e%2e/admin", (), b"403"),
        ("GET", "/pub/x", ("X-HTTP-Method-Override: DELETE",), b"403"),
        ("GET", "/pub/x", ("X-Method-Override: PUT",), b"403"),
        ("GET", "/pub/x", ("X-Original-URL: /admin",), b"403"),
        ("GET", "/pub/x", ("X_HTTP-Method_Override: DELETE",), b"403"),
        ("GET", "/pub/x", ("Transfer_Encoding: chunked",), b"400"),
        ("get", "/pub/x", (), b"400"),
        ("TRACE", "/pub/x", (), b"403"),
    ],
)
def test_method_and_path_rules_hold_for_every_request(
    proxy: Proxy, server: Upstream, method: str, path: str, fields: tuple[str, ...], expected: bytes
) -> None:
    answer = proxy.ask(ask(server, path, *fields, host="get.good.test", method=method))
    assert answer.split(b" ")[1] == expected, answer


@pytest.mark.parametrize(("upgrade", "expected"), [("websocket", b"403"), ("h2c", b"200"), ("h2c, x", b"403")])
def test_no_connection_is_upgraded(proxy: Proxy, server: Upstream, upgrade: str, expected: bytes) -> None:
    answer = proxy.ask(ask(server, "/", f"Upgrade: {upgrade}", "Connection: Upgrade"))
    assert answer.split(b" ")[1] == expected
    if expected == b"200":
        assert b"pgrade" not in server.conversations[-1]


def test_a_kept_connection_decides_each_request_anew(proxy: Proxy, server: Upstream) -> None:
    where = f"get.good.test:{server.port}"
    good = f"GET http://{where}/pub/a HTTP/1.1\r\nHost: {where}\r\n\r\n".encode()
    evil = f"GET http://{where}/admin HTTP/1.1\r\nHost: {where}\r\n\r\n".encode()
    with proxy.connect() as sock:
        for _ in range(3):
            sock.sendall(good)
            assert read_head(sock).startswith(b"HTTP/1.1 200 ")
            assert read_exactly(sock, 2) == b"ok"
        count = len(server.conversations)
        assert bytes(server.conversations[-1]).count(b"GET /pub/a") == 3, "one upstream connection for all"
        sock.sendall(evil)
        assert read_all(sock).startswith(b"HTTP/1.1 403 ")
    assert len(server.conversations) == count
    assert b"/admin" not in server.conversations[-1]


def test_requests_sent_at_once_are_answered_in_order_and_each_decided(proxy: Proxy, server: Upstream) -> None:
    where, other = f"web.good.test:{server.port}", "evil.test"
    data = (
        f"GET http://{where}/1 HTTP/1.1\r\nHost: {where}\r\n\r\n"
        f"GET http://{where}/2 HTTP/1.1\r\nHost: {where}\r\n\r\n"
        f"GET http://{other}/3 HTTP/1.1\r\nHost: {other}\r\n\r\n"
        f"GET http://{where}/4 HTTP/1.1\r\nHost: {where}\r\n\r\n"
    ).encode()
    answer = proxy.ask(data)
    assert re.findall(rb"HTTP/1\.1 ([0-9]{3})", answer) == [b"200", b"200", b"403"]


def test_a_body_is_forwarded_in_either_framing(proxy: Proxy, server: Upstream) -> None:
    body = b"x" * 300_000
    sized = ask(server, "/", f"Content-Length: {len(body)}", method="POST") + body
    assert proxy.ask(sized).startswith(b"HTTP/1.1 200 ")
    assert server.conversations[-1].endswith(body)
    chunked = ask(server, "/", "Transfer-Encoding: chunked", method="POST")
    assert proxy.ask(chunked + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert server.conversations[-1].endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("body", [b"zz\r\nabc\r\n", b"3\r\nabcd\r\n", b"3\nabc\r\n", b"3\r\nab"])
@pytest.mark.row(31)
def test_a_bad_or_cut_chunk_ends_the_upload_without_looking_complete(
    proxy: Proxy, server: Upstream, body: bytes
) -> None:
    count = len(server.conversations)
    with proxy.connect() as sock:
        sock.sendall(ask(server, "/", "Transfer-Encoding: chunked", method="POST") + body)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")
    assert all(b"0\r\n\r\n" not in conversation for conversation in server.conversations[count:])


def test_a_kept_upstream_that_went_away_is_dialled_anew_for_a_safe_request(tmp_path: Path) -> None:
    def once(sock: socket.socket, received: bytearray) -> None:
        received += read_head(sock)
        sock.sendall(OK)

    with (
        upstream(once) as server,
        running(policy(rule("web.good.test", server.port, protocol=Protocol.HTTP)), NAMES, tmp_path) as proxy,
        proxy.connect() as sock,
    ):
        where = f"web.good.test:{server.port}"
        for number in range(4):
            sock.sendall(f"GET http://{where}/{number} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
            assert read_head(sock).startswith(b"HTTP/1.1 200 ")
            assert read_exactly(sock, 2) == b"ok"
        eventually(lambda: len(server.conversations) == 4)


def test_a_large_response_streams_and_is_counted(tmp_path: Path) -> None:
    size = 20_000_000

    def large(sock: socket.socket, received: bytearray) -> None:
        received += read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 100_000):
            sock.sendall(bytes(100_000))

    with (
        upstream(large) as server,
        running(policy(rule("web.good.test", server.port, protocol=Protocol.HTTP)), NAMES, tmp_path) as proxy,
    ):
        answer = proxy.ask(ask(server, "/"))
        assert len(answer.partition(b"\r\n\r\n")[2]) == size
        proxy.wait(lambda p: sum(stats["down"] for stats in p.stats) > size)
        assert sum(stats["connections"] for stats in proxy.stats) == 1


def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["curl", "-sS", "-m", "60", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "more", [(), ("-d", "x" * 5000), ("-T", "/etc/passwd"), ("--http1.0",), ("-I",), ("--http2",), ("--compressed",)]
)
def test_curl_is_served_in_all_its_ways(proxy: Proxy, server: Upstream, more: tuple[str, ...]) -> None:
    require(subprocess.run(["which", "curl"], capture_output=True, check=False).returncode == 0, "curl is missing")
    where = f"http://web.good.test:{server.port}/"
    done = curl("-x", f"http://127.0.0.1:{proxy.port}", "-w", "%{http_code}", "-o", "/dev/null", *more, where)
    assert done.stdout == "200", done.stderr
