"""HTTP/2 upstreams that break what they began: the client never takes a part for the whole, and others are served."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import h2.events
import hpack
import pytest

from tests.enforce.egress.engine_front import HOST, MEBIBYTE, Front, Target, policy_of, resident_peak, tls_rule
from tests.enforce.egress.engine_upstream import Authority, Http1Upstream
from tests.enforce.egress.test_engine_floods import BOMB, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, frame
from tests.enforce.egress.test_engine_http2 import Http2Client

DATA, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE = 0, 4, 5, 6, 7, 8


def block(*fields: tuple[str, str]) -> bytes:
    """Of fields that stand for themselves: nothing is kept in a table."""
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*field) for field in fields])


def head(*fields: tuple[str, str]) -> bytes:
    return frame(HEADERS, END_HEADERS, 1, block(*fields))


STATUS = (":status", "200")
OK = head(STATUS)
PART = OK + frame(DATA, 0, 1, b"part")
END = frame(DATA, END_STREAM, 1, b"")
PUSHED = block((":method", "GET"), (":scheme", "https"), (":path", "/pushed"), (":authority", HOST))
BROKEN = {
    "a push": frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + PUSHED) + PART + END,
    "GOAWAY in the body": PART + frame(GOAWAY, 0, 0, b"\0\0\0\1" + b"\0\0\0\0"),
    "a reset in the body": PART + frame(RST_STREAM, 0, 1, b"\0\0\0\2"),
    "a body that ends before its length": frame(
        HEADERS, END_HEADERS, 1, block((":status", "200"), ("content-length", "9"))
    )
    + frame(DATA, END_STREAM, 1, b"part"),
    "a coding of HTTP/1": head(STATUS, ("transfer-encoding", "chunked")) + END,
    "a field in upper case": head(STATUS, ("X-Upper", "1")) + END,
    "a line break in a field": head(STATUS, ("x", "a\r\nb: c")) + END,
    "no status": head(("x", "1")) + END,
    "a status that is no number": head((":status", "2x0")) + END,
    "data before the head": frame(DATA, 0, 1, b"part") + OK + END,
    "a field list that unfolds": frame(HEADERS, END_HEADERS, 1, b"\x88" + BOMB[3:]) + END,
    "a stream that nobody asked for": frame(HEADERS, END_HEADERS | END_STREAM, 7, block((":status", "200"))),
    "a window past its most": PART + frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 2,
    "no window for what was sent": PART + frame(SETTINGS, 0, 0, b"\0\4\xff\xff\xff\xff"),
}
WHOLE = {
    "trailers": PART + frame(HEADERS, END_HEADERS | END_STREAM, 1, block(("x-sum", "1"))),
    "hints before it": head((":status", "103"), ("link", "</a>")) * 50 + PART + END,
    "pings and settings between": PART + (frame(PING, 0, 0, b"12345678") + frame(SETTINGS, 0, 0)) * 500 + END,
    "empty data between": PART + frame(DATA, 0, 1, b"") * 5000 + END,
}


class Scripted:
    """An HTTP/2 upstream that answers each connection's first request with `script`, whatever it is."""

    def __init__(self, authority: Authority) -> None:
        self.script = b""
        self.context = authority.server_context(HOST, http2=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), self.context.wrap_socket(sock, server_side=True) as tls:
            received = b""
            while b"\x01" not in kinds(received):
                received += (data := tls.recv(65536))
                if not data:
                    return
            tls.sendall(frame(SETTINGS, 0, 0) + self.script)
            while tls.recv(65536):
                pass


def kinds(received: bytes) -> bytes:
    """The types of the whole frames behind a client's preface (RFC 9113 section 3.4)."""
    found, at = b"", 24
    while len(received) >= at + 9:
        found += received[at + 3 : at + 4]
        at += 9 + int.from_bytes(received[at : at + 3])
    return found


@pytest.fixture(scope="module")
def scripted(authority: Authority) -> Iterator[Scripted]:
    made = Scripted(authority)
    yield made
    made.listener.close()


@pytest.fixture(scope="module")
def worker(authority: Authority, scripted: Scripted, session_upstream: Http1Upstream) -> Iterator[Front]:
    front = Front(
        policy_of(*(tls_rule(HOST, each.port, paths=("/**",)) for each in (scripted, session_upstream))), authority.file
    )
    yield front
    front.close()


def answer(front: Front) -> tuple[int, bytes, bool]:
    """Status, body, and whether it came to its end."""
    client = Http2Client(front)
    with client.sock:
        client.send("GET", "/x")
        status, body = 0, b""
        while data := client.sock.recv(65536):
            for event in client.peer.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[":status"])  # type: ignore[arg-type, index]
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    return status, body, True
                elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                    return status, body, False
            client.flush()
    return status, body, False


@pytest.mark.parametrize("name", [*BROKEN, *WHOLE])
def test_a_broken_answer_is_no_whole_one_and_others_are_served(
    worker: Front, scripted: Scripted, upstream: Http1Upstream, name: str
) -> None:
    before = resident_peak(worker.engine.pid)
    scripted.script = (BROKEN | WHOLE)[name]
    worker.target = Target(HOST, scripted.port)
    status, body, ended = answer(worker)
    if name in WHOLE:
        assert (status, body, ended) == (200, b"part", True)
    else:
        assert (status, ended) in ((502, True), (200, False), (0, False))
    worker.target = Target(HOST, upstream.port)
    assert worker.get("GET", "/simple/x")[0].status == 200
    assert resident_peak(worker.engine.pid) - before < 16 * MEBIBYTE
