"""One request through the engine, against what the upstream saw, read in every way an upstream might read it.

A request that arrives must be one that the policy allows, and the only one: by its bytes as they are, and as servers
take them that decode a path twice, know dot segments and backslashes, make variables of fields, or end a body by its
length where chunks are told.
"""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.enforce.egress.engine_front import HOST, Front, Target, policy_of, tls_rule
from tests.enforce.egress.engine_upstream import Authority, Http2Upstream
from tests.enforce.egress.secret_upstream import KeepingUpstream
from tests.enforce.egress.test_engine_http2 import Http2Client

METHODS = ("GET", "POST")
OPEN = "/open/"
EXAMPLES = 150
SILENCE = 0.3
"""Seconds; who waits no longer sees less, and nothing that is not there."""
EMPTY_LINE = re.compile(rb"\r?\n\r?\n")
LINE_END = re.compile(r"\r\n|\n|\r")
FOLD = re.compile(r"\r?\n[ \t]+")

type Field = tuple[str, str]


class Seen(Http2Upstream):
    """An HTTP/2 upstream that keeps whole requests: pseudo-headers, fields and body."""

    def reset(self) -> None:
        super().reset()
        self.whole: list[tuple[dict[str, str], bytes]] = []

    def _answer(self, headers: dict[str, str], body: bytes) -> bytes:
        self.whole.append((headers, body))
        return super()._answer(headers, body)


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[KeepingUpstream]:
    made = KeepingUpstream(authority.server_context(HOST))
    yield made
    made.close()


@pytest.fixture(scope="module")
def http2_server(authority: Authority) -> Iterator[Seen]:
    made = Seen(authority.server_context(HOST, http2=True))
    made.reset()
    yield made
    made.close()


@pytest.fixture(scope="module")
def worker(authority: Authority, server: KeepingUpstream, http2_server: Seen) -> Iterator[Front]:
    rules = [tls_rule(HOST, each.port, methods=METHODS, paths=(f"{OPEN}**",)) for each in (server, http2_server)]
    front = Front(policy_of(*rules), authority.file)
    yield front
    front.close()


def paths(text: str) -> Iterator[str]:
    """What servers may make of a path."""
    for times in range(3):
        for plain in (text, text.replace("\\", "/")):
            yield plain
            yield re.sub(r";[^/]*", "", plain)
        text = unquote(text)
        if times:
            yield text.partition("?")[0].partition("#")[0]


def resolved(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts) + ("/" if path.endswith(("/", "/.", "/..")) else "")


def must_be_allowed(method: str, target: str, fields: list[Field], port: int) -> None:
    assert method in METHODS, method
    for path in paths(target.partition("?")[0]):
        assert resolved(path).startswith(OPEN), target
    names = [name.strip().lower().replace("_", "-") for name, _ in fields]
    assert not {"x-http-method-override", "x-http-method", "x-method-override"} & set(names)
    assert not {"x-original-url", "x-rewrite-url"} & set(names)
    assert [value.strip() for name, value in fields if name.strip().lower() == "host"] == [f"{HOST}:{port}"]
    assert names.count("content-length") + names.count("transfer-encoding") <= 1
    codings = {value.strip().lower() for name, value in fields if name.strip().lower() == "transfer-encoding"}
    assert codings <= {"chunked"}


def requests_in(data: bytes) -> Iterator[tuple[str, str, list[Field]]]:
    """The requests of one connection as a lenient server reads them: any line ends, folded fields, no word too odd."""
    while data.strip():
        end = EMPTY_LINE.search(data)
        head, data = (data, b"") if end is None else (data[: end.start()], data[end.end() :])
        line, *rest = LINE_END.split(FOLD.sub(" ", head.decode("latin-1")))
        words = line.split()
        assert len(words) == 3, line
        fields = [(name, value) for name, _, value in (each.partition(":") for each in rest)]
        yield words[0], words[1], fields
        told = {name.strip().lower().replace("_", "-"): value.strip().lower() for name, value in fields}
        if "chunked" not in told.get("transfer-encoding", ""):
            data = data[int(told.get("content-length", "0")) :]
            continue
        size = -1
        while data and size:
            text, _, data = data.partition(b"\r\n")
            size = int(text.split(b";")[0], 16)
            data = data[size + 2 :]


PIECES = (
    "open",
    "secret",
    "..",
    ".",
    "%2e%2e",
    "%252e",
    "%2f",
    "%5c",
    "\\",
    ";x",
    "%00",
    "a",
    "",
    "?",
    "#",
    "%",
    "//",
    "é",
)
NAMES = (
    "Content-Length", "Transfer-Encoding", "Transfer_Encoding", "Content_Length", "Host", "X-HTTP-Method-Override",
    "X_HTTP_METHOD", "X-Original-URL", "X_Rewrite_URL", "Connection", "Upgrade", "TE", "Expect", "X-A", "Trailer",
    "Content-Length ", " Content-Length", "Keep-Alive", "HTTP2-Settings", "Cookie", "X\tA", ":path", "",
)  # fmt: skip
VALUES = (
    "0", "5", "+5", "5, 5", "0x5", "005", "chunked", "Chunked", "chunked, identity", "gzip, chunked", "\x0bchunked",
    "DELETE", "/secret", HOST, "evil.test", "close", "h2c", "websocket", "100-continue", "x-a", "a\r\nHost: evil.test",
    "a\n b", "", "trailers",
)  # fmt: skip
HIDDEN = f"DELETE /secret HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
BODIES = (
    b"",
    b"hello",
    b"0\r\n\r\n" + HIDDEN,
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n" + HIDDEN,
    HIDDEN,
)

methods = st.sampled_from((*METHODS, "DELETE", "get", "HEAD", "POST ", "CONNECT", "GET\t/x"))
targets = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=5).map(lambda parts: "/" + "/".join(("open", *parts))),
    st.sampled_from(
        ("*", "", f"https://{HOST}/secret", f"//{HOST}/secret", "open/a", "/secret", "/open/a HTTP/1.1\r\nX: ")
    ),
)
field_lists = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), min_size=1, max_size=3)
bodies = st.sampled_from(BODIES)
pseudo_fields = st.dictionaries(
    st.sampled_from((":method", ":scheme", ":path", ":authority", ":protocol", ":status")),
    st.one_of(methods, targets, st.sampled_from((HOST, "evil.test", "http", "https", "websocket", f"{HOST}:1"))),
    min_size=1,
    max_size=2,
)
doubled = st.sampled_from(((":path", "/secret"), (":method", "DELETE"), (":authority", "evil.test"))).map(lambda x: [x])


def requests(**odd: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """What is odd in a request, by kind: nothing, one thing or two, for most of what is odd is refused."""
    kinds = st.lists(st.sampled_from(sorted(odd)), max_size=2, unique=True)
    return kinds.flatmap(lambda chosen: st.fixed_dictionaries({kind: odd[kind] for kind in chosen}))


FEW = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@pytest.mark.row(24, 35)
@FEW
@given(
    body=bodies,
    odd=requests(
        method=methods, target=targets, fields=field_lists, end=st.just("\n"), version=st.sampled_from(("1.0", "2.0"))
    ),
)
def test_an_http1_request_arrives_as_it_was_decided_or_not_at_all(
    worker: Front, server: KeepingUpstream, body: bytes, odd: dict[str, Any]
) -> None:
    server.reset()
    worker.target = Target(HOST, server.port)
    start = f"{odd.get('method', 'POST')} {odd.get('target', '/open/a')} HTTP/{odd.get('version', '1.1')}"
    lines = [start, f"Host: {HOST}:{server.port}", "Connection: close"]
    fields: list[Field] = odd.get("fields", [])
    lines += [f"{name}: {value}" for name, value in fields]
    if body and not {name.lower() for name, _ in fields} & {"content-length", "transfer-encoding"}:
        lines.append("Transfer-Encoding: chunked" if body[:1].isdigit() else f"Content-Length: {len(body)}")
    with worker.tls() as sock:
        said = answered(sock, odd.get("end", "\r\n").join((*lines, "", "")).encode() + body)
    held_against(server, said)


def answered(sock: ssl.SSLSocket, data: bytes) -> bytes:
    sock.settimeout(SILENCE)
    said = b""
    with contextlib.suppress(OSError):
        sock.sendall(data)
        while piece := sock.recv(65536):
            said += piece
    return said


def held_against(server: KeepingUpstream, said: bytes) -> None:
    for received in list(server.received):
        for count, (method, target, fields) in enumerate(requests_in(bytes(received))):
            must_be_allowed(method, target, fields, server.port)
            assert count == 0, received
    if b" 200 OK" in said:
        assert any(server.received)


@pytest.mark.row(24, 35)
@pytest.mark.parametrize("http2", [True, False])
@FEW
@given(
    body=bodies,
    odd=requests(
        method=methods, target=targets, fields=field_lists, pseudo=pseudo_fields, again=doubled, late=doubled,
        upper=st.just([("X-Upper", "a")]),
    ),
)  # fmt: skip
def test_an_http2_request_arrives_as_it_was_decided_or_not_at_all(
    worker: Front, server: KeepingUpstream, http2_server: Seen, http2: bool, body: bytes, odd: dict[str, Any]
) -> None:
    server.reset()
    http2_server.reset()
    worker.target = Target(HOST, http2_server.port if http2 else server.port)
    client = Http2Client(worker)
    client.sock.settimeout(SILENCE)
    head = {":method": odd.get("method", "POST"), ":scheme": "https", ":path": odd.get("target", "/open/a")}
    head |= {":authority": client.authority} | odd.get("pseudo", {})
    fields = [(name.lower(), value) for name, value in odd.get("fields", [])]
    heads = [*head.items(), *odd.get("again", []), *fields, *odd.get("upper", []), *odd.get("late", [])]
    stream = client.peer.get_next_available_stream_id()
    client.peer.send_headers(stream, heads, end_stream=not body)
    if body:
        client.peer.send_data(stream, body, end_stream=True)
    client.flush()
    status = 0
    with client.sock, contextlib.suppress(OSError):
        status, _ = client.answers([stream])[stream]
    if not http2:
        held_against(server, b" 200 OK" if status == 200 else b"")
        return
    for seen, arrived in http2_server.whole:
        rest = [(name, value) for name, value in seen.items() if not name.startswith(":")]
        assert seen[":scheme"] == "https"
        must_be_allowed(seen[":method"], seen[":path"], [*rest, ("host", seen[":authority"])], http2_server.port)
        assert arrived in BODIES
    assert http2_server.whole or status != 200
