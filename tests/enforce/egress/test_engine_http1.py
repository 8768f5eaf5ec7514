"""HTTP/1 on both sides of the engine: what a chunked body carries beside itself, and what comes before an answer."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest

from tests.enforce.egress.engine_front import HOST, Front, Target, policy_of, tls_rule, until
from tests.enforce.egress.engine_upstream import Authority
from tests.enforce.egress.secret_upstream import OK, KeepingUpstream
from tests.enforce.egress.test_engine_http2 import Http2Client


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[KeepingUpstream]:
    made = KeepingUpstream(authority.server_context(HOST))
    yield made
    made.close()


@pytest.fixture(scope="module")
def worker(authority: Authority, server: KeepingUpstream) -> Iterator[Front]:
    made = Front(policy_of(tls_rule(HOST, server.port, paths=("/", "/**"))), authority.file)
    yield made
    made.close()


@pytest.fixture
def kept(worker: Front, server: KeepingUpstream) -> Front:
    server.reset()
    worker.journal.renew()
    worker.target = Target(HOST, server.port)
    return worker


@pytest.mark.row(24)
def test_the_trailers_and_extensions_of_a_request_end_here_and_the_connection_goes_on(
    kept: Front, server: KeepingUpstream
) -> None:
    body = b"5;name=value\r\nhello\r\n0;x\r\nAuthorization: Bearer mine\r\nX-HTTP-Method-Override: DELETE\r\n\r\n"
    chunked = kept.head("POST /x HTTP/1.1", "Transfer-Encoding: chunked", "Trailer: authorization") + body
    said = kept.raw(chunked + kept.head("GET /next HTTP/1.1", "Connection: close"))
    assert said.count(b"HTTP/1.1 200 ") == 2
    assert server.all().count(b"5\r\nhello\r\n0\r\n\r\n") == 1
    assert b"GET /next " in server.all()
    for gone in (b"name=value", b"Bearer", b"Override"):
        assert gone not in server.all()


def test_the_trailers_of_an_answer_end_here_and_the_connection_goes_on(kept: Front, server: KeepingUpstream) -> None:
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
    server.answer = lambda asked: [whole] if b"/sum" in asked else [OK]
    client = kept.client()
    for path, body in (("/sum", b"hello"), ("/", b"ok"), ("/sum", b"hello")):
        client.request("GET", path)
        assert client.getresponse().read() == body
    client.close()
    assert len(server.received) == 1
    http2 = Http2Client(kept)
    stream = http2.send("GET", "/sum")
    assert http2.answers([stream])[stream] == (200, b"hello")


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"


@pytest.mark.parametrize("pieces", [[HINTS + OK], [HINTS, OK], [HINTS[:20], HINTS[20:] + HINTS, OK]])
def test_what_comes_before_an_answer_is_not_taken_for_it(
    kept: Front, server: KeepingUpstream, pieces: list[bytes]
) -> None:
    server.answer = lambda _: pieces
    client = kept.client()
    for _ in range(2):
        client.request("GET", "/")
        response = client.getresponse()
        assert (response.status, response.read()) == (200, b"ok")
    client.close()
    assert len(server.received) == 1


def test_interim_answers_without_end_are_a_failure(kept: Front, server: KeepingUpstream) -> None:
    server.answer = lambda _: [HINTS] * 100
    response, body = kept.get("GET", "/")
    assert response.status == 502
    assert b"malformed" in body


@pytest.mark.row(24)
@pytest.mark.parametrize("coding", ["gzip, chunked", "deflate,chunked", "identity", "chunked, chunked", "x"])
def test_a_body_in_another_transfer_coding_is_refused(kept: Front, server: KeepingUpstream, coding: str) -> None:
    data = gzip.compress(b"what no search sees")
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
    said = kept.raw(kept.head("POST /x HTTP/1.1", f"Transfer-Encoding: {coding}") + body)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert kept.journal.wait()[0].details["rule"] == "malformed-request"
    assert server.all() == b""


def test_a_client_s_wish_for_another_transfer_coding_ends_here(kept: Front, server: KeepingUpstream) -> None:
    kept.raw(kept.head("GET /x HTTP/1.1", "TE: gzip, trailers", "Connection: TE, close"))
    until(lambda: b"\r\n\r\n" in server.all(), "the request")
    assert b"gzip" not in server.all()
    assert b"te:" not in server.all().lower()
