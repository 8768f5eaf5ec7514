"""Uploads through the real engine to a host whose rule says `scan`: what holds a credential does not arrive."""

from __future__ import annotations

import base64
import gzip
import random
from collections.abc import Callable, Iterator
from contextlib import suppress

import brotli
import pytest
import zstandard

from agent.policy.model import Mode, Pattern, Policy
from agent.policy.request import Protocol
from agent.record.event import EventType, Result
from tests.enforce.egress.engine_front import (
    HOST,
    MEBIBYTE,
    Front,
    Target,
    allow,
    exchange,
    policy_of,
    resident_peak,
)
from tests.enforce.egress.engine_upstream import Authority
from tests.enforce.egress.secret_upstream import KeepingUpstream

PATTERNS = (Pattern("test-key", "key of a test", rb"tstkey_[a-z0-9]{24}", (b"tstkey_",)),)
KEY = "tstkey_" + "a1b2c3d4" * 3
FREE = "free.test"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 6),
    "br": lambda data: bytes(brotli.compress(data, quality=1)),
    "zstd": zstandard.compress,
}


def policy_for(port: int, mode: Mode = Mode.ENFORCE) -> Policy:
    rules = [allow(host, port, protocol=Protocol.TLS, paths=("/", "/**"), scan=host == HOST) for host in (HOST, FREE)]
    return policy_of(*rules, patterns=PATTERNS, mode=mode)


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[KeepingUpstream]:
    made = KeepingUpstream(authority.server_context(HOST, FREE))
    yield made
    made.close()


@pytest.fixture(scope="module", params=[Mode.ENFORCE, Mode.OBSERVE])
def engine(request: pytest.FixtureRequest, authority: Authority, server: KeepingUpstream) -> Iterator[Front]:
    front = Front(policy_for(server.port, request.param), authority.file)
    yield front
    front.close()


@pytest.fixture
def front(engine: Front, server: KeepingUpstream) -> Front:
    server.reset()
    engine.journal.renew()
    engine.target = Target(HOST, server.port)
    return engine


@pytest.fixture
def enforced(request: pytest.FixtureRequest) -> bool:
    return bool(request.node.callspec.params["engine"] is Mode.ENFORCE)


UPLOADS = [
    ("in the query", f"GET /?k={KEY} HTTP/1.1", [], b"", "the URL"),
    ("in the path, escaped", f"GET /{KEY.replace('_', '%5F')} HTTP/1.1", [], b"", "the URL"),
    ("in a header field", "GET / HTTP/1.1", [f"X-Note: {KEY}"], b"", "the header field x-note"),
    ("as a bearer token", "GET / HTTP/1.1", [f"Authorization: Bearer {KEY}"], b"", "the header field authorization"),
    ("in a body", "POST / HTTP/1.1", ["Content-Length: {}"], KEY.encode(), "the body"),
    ("in base64", "POST / HTTP/1.1", ["Content-Length: {}"], base64.b64encode(b"a" + KEY.encode() + b"bc"), "the body"),
    (
        "compressed",
        "POST / HTTP/1.1",
        ["Content-Length: {}", "Content-Encoding: gzip"],
        gzip.compress(KEY.encode() * 9),
        "the body",
    ),
]


@pytest.mark.parametrize(
    ("line", "lines", "body", "where"), [case[1:] for case in UPLOADS], ids=[c[0] for c in UPLOADS]
)
def test_a_credential_on_its_way_out_is_refused_and_recorded_or_only_recorded(
    front: Front, server: KeepingUpstream, enforced: bool, line: str, lines: list[str], body: bytes, where: str
) -> None:
    said = front.raw(front.head(line, *(each.format(len(body)) for each in lines), "Connection: close") + body)
    event = front.journal.wait()[0]
    assert (event.type, event.details["rule"]) == (EventType.NETWORK_EGRESS_BLOCKED, "credential-in-upload")
    assert where in str(event.details["reason"])
    assert "key of a test" in str(event.details["reason"])
    if enforced:
        assert event.result is Result.DENIED
        assert said.startswith(b"HTTP/1.1 403 ")
        assert KEY not in str(event.details["reason"])
        assert server.all() == b""
    else:
        assert event.details["enforced"] is False
        assert said.startswith(b"HTTP/1.1 200 ")
        assert len(front.journal.posted) == 1


def test_a_body_whose_encoding_is_unknown_is_refused(front: Front, server: KeepingUpstream, enforced: bool) -> None:
    response, _ = front.get("POST", "/", b"\x1f\x9d compressed", Content_Encoding="compress")
    assert front.journal.wait()[0].details["rule"] == "upload-unreadable"
    assert response.status == (403 if enforced else 200)


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_a_compressed_body_without_its_end_does_not_arrive_whole(
    front: Front, server: KeepingUpstream, enforced: bool, framing: str, size: int
) -> None:
    """Short, it is refused before any of it is sent; long, its end is not."""
    body = gzip.compress(random.Random(7).randbytes(size))[:-1]
    if framing == "chunked":
        field, sent = "Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        field, sent = f"Content-Length: {len(body)}", body
    head = front.head("POST / HTTP/1.1", "Content-Encoding: gzip", field, "Connection: close")
    with front.tls() as sock, suppress(OSError):
        exchange(sock, head + sent)
    event = front.journal.wait()[0]
    assert event.details["rule"] == "upload-unreadable"
    assert "ends before" in str(event.details["reason"])
    whole = server.all().endswith(b"0\r\n\r\n" if framing == "chunked" else body)
    assert whole is not enforced


@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_a_long_body_is_cut_before_the_credential_is_whole(
    front: Front, server: KeepingUpstream, enforced: bool, framing: str
) -> None:
    body = b"x " * 75_000 + KEY.encode() + b" y" * 50
    said = "Transfer-Encoding: chunked" if framing == "chunked" else f"Content-Length: {len(body)}"
    with front.tls() as sock:
        sock.sendall(front.head("POST / HTTP/1.1", said, "Connection: close"))
        for at in range(0, len(body), 1000):
            piece = body[at : at + 1000]
            try:
                sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece)
            except OSError:
                break
        with suppress(OSError):
            exchange(sock, b"0\r\n\r\n" if framing == "chunked" else b"")
    assert front.journal.wait()[0].details["rule"] == "credential-in-upload"
    assert (KEY.encode() in server.all()) is not enforced


def test_other_hosts_and_harmless_uploads_are_left_alone(front: Front, server: KeepingUpstream) -> None:
    assert front.get("POST", "/", b"tstkey_ is a prefix" * 5000)[0].status == 200
    front.target = Target(FREE, server.port)
    assert front.get("POST", "/", KEY.encode(), X_Note=KEY)[0].status == 200
    assert KEY.encode() in server.all()
    assert front.journal.posted == []


@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip", "br", "br, gzip", "zstd"])
def test_a_body_that_unfolds_without_measure_takes_no_room(
    front: Front, server: KeepingUpstream, enforced: bool, coding: str
) -> None:
    body = bytes(60 * MEBIBYTE)
    for name in coding.split(", "):
        body = COMPRESS[name](body)
    before = resident_peak(front.engine.pid)
    response, _ = front.get("POST", "/", body, Content_Encoding=coding)
    assert response.status == (403 if enforced else 200)
    assert front.journal.wait()[0].details["rule"] == "upload-unreadable"
    assert resident_peak(front.engine.pid) - before < 32 * MEBIBYTE
