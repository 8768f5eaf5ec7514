"""The engine as its clients and upstreams see it: a worker process, real TLS on both sides, a recorder behind."""

from __future__ import annotations

import socket
import ssl

import pytest

from tests.enforce.egress.engine_front import HOST, Front, Target, exchange
from tests.enforce.egress.engine_upstream import Http1Upstream


def test_an_allowed_request_reaches_the_upstream_and_leaves_no_denial(front: Front, upstream: Http1Upstream) -> None:
    response, body = front.get("GET", "/simple/pkg/?a=1")
    assert (response.status, body.split()[:2]) == (200, [b"GET", b"/simple/pkg/?a=1"])
    assert upstream.requests == [("GET", "/simple/pkg/?a=1", f"{HOST}:{upstream.port}")]
    assert upstream.sni == [HOST]
    assert front.journal.posted == []


@pytest.mark.parametrize("prefix", [1, 2, 5, 100])
def test_bytes_read_before_the_hand_over_are_not_lost(front: Front, prefix: int) -> None:
    front.target.prefix = prefix
    response, _ = front.get("GET", "/simple/x")
    assert response.status == 200


def test_many_requests_on_one_connection_share_one_upstream_connection(front: Front, upstream: Http1Upstream) -> None:
    client = front.client()
    for number in range(25):
        client.request("GET", f"/simple/{number}")
        response = client.getresponse()
        assert (response.status, response.read().split()[1]) == (200, f"/simple/{number}".encode())
    client.close()
    assert len(upstream.requests) == 25
    assert upstream.connections == 1


def test_allowed_and_refused_requests_alternate_on_one_connection(front: Front, upstream: Http1Upstream) -> None:
    client = front.client()
    seen = []
    for number in range(8):
        client.request("GET", f"/simple/{number}" if number % 2 else f"/admin/{number}")
        response = client.getresponse()
        response.read()
        seen.append(response.status)
    client.close()
    assert seen == [403, 200] * 4
    assert [target for _, target, _ in upstream.requests] == [f"/simple/{n}" for n in (1, 3, 5, 7)]
    numbers = [event.details["request_id"] for event in front.journal.wait(4)]
    assert numbers == [f"{front.journal.connection}-{number}" for number in (1, 3, 5, 7)]


def test_redirects_are_passed_on_and_not_followed(front: Front, upstream: Http1Upstream) -> None:
    response, _ = front.get("GET", "/moved")
    assert (response.status, response.headers["Location"]) == (302, "https://elsewhere.test/")
    assert len(upstream.requests) == 1


def test_an_address_that_was_not_vetted_is_never_dialled(front: Front, upstream: Http1Upstream) -> None:
    front.target = Target(HOST, upstream.port, addresses=("127.0.0.9",))
    listener = socket.create_server(("127.0.0.9", upstream.port))
    listener.settimeout(60)
    with front.client().sock as sock:  # the upstream listens on 127.0.0.1, which is not this connection's address
        sock.sendall(front.head("GET /simple/x HTTP/1.1"))
        accepted, _ = listener.accept()
        accepted.close()
    listener.close()
    assert upstream.connections == 0


def test_no_vetted_address_means_no_connection(front: Front, upstream: Http1Upstream) -> None:
    front.target = Target(HOST, upstream.port, addresses=())
    response, _ = front.get("GET", "/simple/x")
    assert response.status == 502
    assert upstream.connections == 0


def test_an_upstream_that_refuses_is_a_502_with_the_reason(front: Front, upstream: Http1Upstream) -> None:
    front.target = Target(HOST, upstream.port, addresses=("127.0.0.13",))
    response, body = front.get("GET", "/simple/x")
    assert response.status == 502
    assert b"refused" in body.lower() or b"Connect call failed" in body
    assert front.journal.posted == []


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", b"\x05\x01\x00", b"\x16\x02\x00\x00"])
def test_a_tunnel_that_does_not_start_with_tls_is_closed(front: Front, upstream: Http1Upstream, data: bytes) -> None:
    with front.connect() as sock:
        assert exchange(sock, data) == b""
    assert front.journal.wait()[0].details["rule"] == "tls-required"
    assert upstream.connections == 0


def test_tls_inside_tls_is_no_way_out(front: Front, upstream: Http1Upstream) -> None:
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    inner = context.wrap_bio(incoming, outgoing, server_hostname="evil.test")
    with pytest.raises(ssl.SSLWantReadError):
        inner.do_handshake()
    front.raw(outgoing.read() + b"\r\n\r\n")
    assert front.journal.wait()[0].details["rule"] == "malformed-request"
    assert upstream.connections == 0


@pytest.mark.row(39)
def test_mitmproxy_s_own_page_does_not_exist(front: Front, upstream: Http1Upstream) -> None:
    front.target = Target("mitm.it", upstream.port)
    sock = _unverified(front, "mitm.it")
    with sock:
        said = exchange(sock, front.head("GET / HTTP/1.1", f"Host: mitm.it:{upstream.port}", "Connection: close"))
    assert b" 403 " in said.split(b"\r\n")[0]
    assert front.journal.wait()[0].details["rule"] == "egress-default"


def _unverified(front: Front, name: str) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(front.connect(), server_hostname=name)
