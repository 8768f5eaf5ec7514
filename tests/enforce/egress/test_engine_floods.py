"""Floods through the engine: what is begun and never ended, or begun and given up, takes a bounded room and is cut."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

from tests.enforce.egress.engine_front import (
    HOST,
    MEBIBYTE,
    PATIENCE,
    Front,
    Target,
    policy_of,
    resident_peak,
    tls_rule,
    until,
)
from tests.enforce.egress.engine_upstream import Authority, Http1Upstream
from tests.enforce.egress.secret_upstream import OK, KeepingUpstream
from tests.enforce.egress.test_engine_http2 import Http2Client

HEADERS, RST_STREAM, PING, CONTINUATION = 1, 3, 6, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
ENHANCE_YOUR_CALM = 0xB
MOST = 24 * MEBIBYTE
ROOM = 16 * MEBIBYTE
HOLD = 1.0


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """RFC 9113 section 4.1."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def get_frame(
    client: Http2Client, stream: int, path: str = "/simple/x", flags: int = END_HEADERS | END_STREAM
) -> bytes:
    method = "GET" if flags & END_STREAM else "POST"
    fields = [(":method", method), (":scheme", "https"), (":path", path), (":authority", client.authority)]
    return frame(HEADERS, flags, stream, client.peer.encoder.encode(fields))


def poured(sock: ssl.SSLSocket, block: bytes, patience: float = PATIENCE) -> str:
    """How sending ends: "cut", "held back" where nobody takes more, or "taken" where all of `MOST` is."""
    sock.settimeout(patience)
    try:
        for _ in range(MOST // len(block)):
            sock.sendall(block)
    except TimeoutError:
        return "held back"
    except OSError:
        return "cut"
    return "taken"


@pytest.mark.row(42)
@pytest.mark.parametrize(
    ("begin", "block"),
    [(b"5;", b"a" * 65536), (b"5\r\nhello\r\n0\r\n", b"x-a: b\r\n" * 8192), (b"", b"0" * 65536)],
    ids=["a chunk's extension", "trailers", "a chunk's size"],
)
def test_a_chunked_body_whose_lines_never_end_is_cut_and_recorded(
    front: Front, upstream: Http1Upstream, begin: bytes, block: bytes
) -> None:
    before = resident_peak(front.engine.pid)
    with front.tls() as sock:
        sock.sendall(front.head("POST /simple/x HTTP/1.1", "Transfer-Encoding: chunked") + begin)
        assert poured(sock, block) == "cut"
    assert front.journal.wait()[0].details["rule"] == "malformed-request"
    assert resident_peak(front.engine.pid) - before < ROOM


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[KeepingUpstream]:
    made = KeepingUpstream(authority.server_context(HOST))
    yield made
    made.close()


@pytest.fixture(scope="module")
def deaf() -> Iterator[int]:
    """The port of a listener whose backlog is full: a SYN gets no answer."""
    with socket.socket() as listener, contextlib.ExitStack() as fillers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port


@pytest.fixture(scope="module")
def worker(authority: Authority, server: KeepingUpstream, deaf: int) -> Iterator[Front]:
    rules = [tls_rule(HOST, port, paths=("/**",)) for port in (server.port, deaf)]
    front = Front(policy_of(*rules), authority.file)
    yield front
    front.close()


@pytest.fixture
def kept(worker: Front, server: KeepingUpstream) -> Front:
    server.reset()
    worker.journal.renew()
    worker.target = Target(HOST, server.port)
    return worker


@pytest.fixture
def dialling(kept: Front, deaf: int) -> Front:
    kept.target = Target(HOST, deaf)
    return kept


def test_what_is_sent_behind_a_request_is_not_taken_before_its_answer(kept: Front, server: KeepingUpstream) -> None:
    answered = threading.Event()
    server.answer = lambda _: [OK] if answered.wait(PATIENCE) else []
    before = resident_peak(kept.engine.pid)
    with kept.tls() as sock:
        sock.sendall(kept.head("GET /x HTTP/1.1"))
        until(lambda: b"GET /x" in server.all(), "the request")
        assert poured(sock, b"a" * 65536, HOLD) != "cut"
        assert resident_peak(kept.engine.pid) - before < ROOM
        answered.set()
        sock.settimeout(PATIENCE)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_an_answer_whose_chunk_line_never_ends_is_cut(kept: Front, server: KeepingUpstream) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;"
    server.answer = lambda _: [head, *[b"a" * 65536] * 64]
    said = kept.raw(kept.head("GET /x HTTP/1.1"))  # ends where the connection does
    assert b"aaaa" not in said


def test_requests_that_are_begun_and_given_up_without_end_are_cut(dialling: Front) -> None:
    """None of them can end before the dial does, so each takes room, however fast it is given up (CVE-2023-44487). One
    that is given up before it waits for the dial is gone at once: so they are given ever more time to come to that."""
    for pause in (0.0, 0.1, 0.3, 1.0):
        with contextlib.suppress(OSError):
            begin_and_give_up(Http2Client(dialling), pause)
        if dialling.journal.posted:
            break
    event = dialling.journal.wait()[0]
    assert event.details["rule"] == "malformed-request"
    assert "given up" in str(event.details["reason"])


def begin_and_give_up(client: Http2Client, pause: float) -> None:
    """A hundred at a time, eight times, given up after so many seconds. Raises OSError where the connection is cut."""
    for start in range(1, 801, 100):
        streams = range(2 * start - 1, 2 * start + 199, 2)
        client.sock.sendall(b"".join(get_frame(client, stream) for stream in streams))
        pong(client)
        time.sleep(pause)
        client.sock.sendall(b"".join(frame(RST_STREAM, 0, stream, b"\0\0\0\x08") for stream in streams))
    pong(client)


def pong(client: Http2Client) -> None:
    """Wait until everything that was sent is read. Raises OSError where the connection ends instead."""
    client.sock.sendall(frame(PING, 0, 0, b"12345678"))
    seen = b""
    while frame(PING, ACK, 0, b"12345678") not in seen:
        data = client.sock.recv(65536)
        if not data:
            raise ConnectionResetError
        seen += data


@pytest.mark.parametrize("data", [b"a", b""], ids=["one byte", "empty"])
def test_the_smallest_pieces_of_a_body_do_not_fill_the_worker_while_it_dials(dialling: Front, data: bytes) -> None:
    client = Http2Client(dialling)
    before = resident_peak(dialling.engine.pid)
    client.sock.sendall(get_frame(client, 1, flags=END_HEADERS))
    assert poured(client.sock, frame(0, 0, 1, data) * 2000, HOLD) in ("held back", "cut")  # cut: the dial has ended
    assert resident_peak(dialling.engine.pid) - before < ROOM


BOMB = b"\x82\x84\x87\x40\x01a\x7f\xa1\x1e" + b"b" * 4000 + b"\xbe" * 16000
"""A field of 4 KB into the table (RFC 7541 6.2.1), and 16,000 times out of it: 64 MB."""


@pytest.mark.parametrize(
    ("first", "block"),
    [
        (frame(HEADERS, END_HEADERS | END_STREAM, 1, BOMB), frame(PING, 0, 0, b"12345678")),
        (frame(HEADERS, END_STREAM, 1, b"\x82"), frame(CONTINUATION, 0, 1, b"a" * 16000)),
        (frame(HEADERS, END_STREAM, 1, b"\x82"), frame(CONTINUATION, 0, 1) * 1000),
    ],
    ids=["a field list that unfolds", "header frames without end", "empty header frames without end"],
)
def test_a_head_that_has_no_end_in_http2_is_cut_and_recorded(
    front: Front, upstream: Http1Upstream, first: bytes, block: bytes
) -> None:
    client = Http2Client(front)
    before = resident_peak(front.engine.pid)
    client.sock.sendall(first)
    assert poured(client.sock, block) == "cut"
    assert front.journal.wait()[0].details["rule"] == "malformed-request"
    assert resident_peak(front.engine.pid) - before < ROOM
    assert upstream.requests == []


@pytest.mark.parametrize(
    "block",
    [frame(PING, 0, 0, b"12345678") * 1000, frame(4, 0, 0) * 1000, frame(0x77, 0, 0) * 1000],
    ids=["pings", "settings", "unknown frames"],
)
def test_who_floods_with_frames_takes_no_room_and_others_are_served(
    front: Front, upstream: Http1Upstream, block: bytes
) -> None:
    client = Http2Client(front)
    before = resident_peak(front.engine.pid)
    client.sock.settimeout(HOLD)
    with contextlib.suppress(OSError):  # held back: the answers are not read
        for _ in range(100):
            client.sock.sendall(block)
    assert front.get("GET", "/simple/x")[0].status == 200
    assert resident_peak(front.engine.pid) - before < ROOM
