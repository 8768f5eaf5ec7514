"""HTTP/1 heads and chunks: what is taken, what is refused, and that it is read in one way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.enforce.egress.head import (
    CHUNKED,
    MAX_FIELDS,
    MAX_HEAD,
    UNTIL_CLOSE,
    Chunks,
    HeadError,
    end_of_head,
    end_to_end,
    parse_request,
    parse_response,
    render,
    starts_request,
)

LINE = b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n"

MALFORMED = [
    ("a bare LF", b"GET http://a.test/ HTTP/1.1\nHost: a.test\r\n\r\n"),
    ("a bare LF between fields", LINE + b"A: b\nB: c\r\n\r\n"),
    ("a bare CR", LINE + b"A: b\rB: c\r\n\r\n"),
    ("NUL in a value", LINE + b"A: b\0c\r\n\r\n"),
    ("NUL in the target", b"GET http://a.test/\0 HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("an escape character", LINE + b"A: \x1b[31m\r\n\r\n"),
    ("a folded header", LINE + b"A: b\r\n c\r\n\r\n"),
    ("a field without name", LINE + b": b\r\n\r\n"),
    ("space before the colon", LINE + b"A : b\r\n\r\n"),
    ("no colon", LINE + b"A\r\n\r\n"),
    ("two Host", LINE + b"Host: a.test\r\n\r\n"),
    ("two Host, one spelt otherwise", LINE + b"HOST: b.test\r\n\r\n"),
    ("Content-Length with Transfer-Encoding", LINE + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("two Content-Length", LINE + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n"),
    ("a list of lengths", LINE + b"Content-Length: 3, 3\r\n\r\n"),
    ("a signed length", LINE + b"Content-Length: +3\r\n\r\n"),
    ("a hexadecimal length", LINE + b"Content-Length: 0x3\r\n\r\n"),
    ("an empty length", LINE + b"Content-Length:\r\n\r\n"),
    ("a huge length", LINE + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n"),
    ("another coding", LINE + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    ("a hidden coding", LINE + b"Transfer-Encoding: xchunked\r\n\r\n"),
    ("chunked twice", LINE + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("chunked in 1.0", b"GET http://a.test/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("HTTP/2", b"GET http://a.test/ HTTP/2.0\r\n\r\n"),
    ("HTTP/1.2", b"GET http://a.test/ HTTP/1.2\r\n\r\n"),
    ("no version", b"GET http://a.test/\r\n\r\n"),
    ("two spaces", b"GET  http://a.test/ HTTP/1.1\r\n\r\n"),
    ("a tab", b"GET\thttp://a.test/ HTTP/1.1\r\n\r\n"),
    ("a lower-case method", b"get http://a.test/ HTTP/1.1\r\n\r\n"),
    ("a byte above ASCII in the target", "GET http://ä.test/ HTTP/1.1\r\n\r\n".encode()),
    ("too many fields", LINE + b"A: b\r\n" * MAX_FIELDS + b"\r\n"),
]


@pytest.mark.parametrize(("name", "head"), MALFORMED, ids=[name for name, _ in MALFORMED])
def test_a_malformed_request_head_is_refused(name: str, head: bytes) -> None:
    with pytest.raises(HeadError):
        parse_request(head)


def test_a_request_head_is_read_into_its_parts() -> None:
    request = parse_request(b"POST http://a.test/x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 12\r\nX: \ty \r\n\r\n")
    assert (request.method, request.target, request.minor) == ("POST", "http://a.test/x", 1)
    assert request.fields == (("host", "a.test"), ("content-length", "12"), ("x", "y"))
    assert request.body == 12
    assert request.persistent


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (LINE + b"\r\n", True),
        (LINE + b"Connection: close\r\n\r\n", False),
        (LINE + b"Proxy-Connection: Close\r\n\r\n", False),
        (b"GET http://a.test/ HTTP/1.0\r\n\r\n", False),
        (b"GET http://a.test/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_whether_the_connection_goes_on_is_the_client_s_word(head: bytes, expected: bool) -> None:
    assert parse_request(head).persistent is expected


@pytest.mark.parametrize(
    ("fields", "method", "status", "expected"),
    [
        (b"Content-Length: 5\r\n", "GET", b"200", 5),
        (b"Content-Length: 5\r\n", "HEAD", b"200", 0),
        (b"Content-Length: 5\r\n", "GET", b"304", 0),
        (b"", "GET", b"204", 0),
        (b"", "GET", b"200", UNTIL_CLOSE),
        (b"Transfer-Encoding: Chunked\r\n", "GET", b"200", CHUNKED),
    ],
)
def test_a_response_is_framed_as_the_rfc_says(fields: bytes, method: str, status: bytes, expected: int) -> None:
    assert parse_response(b"HTTP/1.1 " + status + b" OK\r\n" + fields + b"\r\n").body(method) == expected


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
    ],
)
def test_a_malformed_response_head_is_refused(head: bytes) -> None:
    with pytest.raises(HeadError):
        parse_response(head)


def test_hop_by_hop_fields_and_credentials_for_the_proxy_end_here() -> None:
    fields = (
        ("host", "a.test"),
        ("connection", "X-Secret, keep-alive, Host"),
        ("x-secret", "1"),
        ("proxy-authorization", "Basic x"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("http2-settings", "x"),
        ("authorization", "Bearer y"),
        ("accept", "*/*"),
    )
    assert end_to_end(fields) == [("host", "a.test"), ("authorization", "Bearer y"), ("accept", "*/*")]


@pytest.mark.parametrize(
    "data", [b"\x05\x01\x00", b"\x16\x03\x01", b"get /", b"SSH-2.0-x\r\n", b"GET / HTTP/2", b"\r\n", b"GET /\n", b"{"]
)
def test_what_cannot_become_a_request_is_refused_before_it_is_whole(data: bytes) -> None:
    with pytest.raises(HeadError):
        end_of_head(data)


def test_a_head_may_come_in_any_pieces() -> None:
    whole = LINE + b"A: b\r\n\r\n"
    assert [at for at in range(len(whole) + 1) if end_of_head(whole[:at]) is not None] == [len(whole)]


def test_a_long_request_line_may_come_in_any_pieces_and_is_judged_whole() -> None:
    line = b"GET /" + b"a" * 5000
    for end in (b" HTTP/1.1\r\n", b"\x7f HTTP/1.1\r\n"):
        whole = line + end + b"\r\n"
        assert {starts_request(whole[:at]) for at in range(len(line) + 10)} == {None}
        assert starts_request(whole) is (end[0] == 0x20)
        assert [at for at in range(len(whole) + 1) if end_of_head(whole[:at]) is not None] == [len(whole)]
    with pytest.raises(HeadError, match="request line"):
        parse_request(whole)
    with pytest.raises(HeadError, match="no HTTP/1"):
        end_of_head(b"\x7f" + line)


def test_a_head_past_the_limit_is_refused_whole_or_not() -> None:
    for data in (LINE + b"A: " + b"x" * MAX_HEAD, LINE + b"A: " + b"x" * MAX_HEAD + b"\r\n\r\n"):
        with pytest.raises(HeadError, match="longer"):
            end_of_head(data)


@given(st.binary(max_size=300))
def test_no_bytes_make_the_parser_fail_otherwise(data: bytes) -> None:
    for head in (data, LINE + data + b"\r\n\r\n"):
        try:
            end = end_of_head(head)
            request = None if end is None else parse_request(head[:end])
        except HeadError:
            continue
        if request is not None:
            again = render(f"{request.method} {request.target} HTTP/1.{request.minor}", list(request.fields))
            assert parse_request(again) == request


CHUNKED_BODY = b"4\r\nwiki\r\n5;ext=1\r\npedia\r\n0\r\nTrailer: x\r\n\r\n"


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60))
def test_a_chunked_body_reads_the_same_however_it_is_cut(cuts: list[int]) -> None:
    chunks, body, at = Chunks(), b"", 0
    data = CHUNKED_BODY + b"NEXT"
    for cut in [*cuts, len(data)]:
        body += chunks.feed(data[at : at + cut])
        at += cut
    assert (body, chunks.done, chunks.rest) == (b"wikipedia", True, b"NEXT")


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"-1\r\n",
        b"+4\r\n",
        b"0x4\r\n",
        b"\r\n",
        b" 4\r\n",
        b"4\nwiki\r\n",
        b"4\r\nwikipedia\r\n",
        b"4\r\nwiki\n",
        b"4;a=\x00\r\n",
        b"f" * 17 + b"\r\n",
        b"4;" + b"a" * 5000,
        b"0\r\nbad trailer\r\n\r\n",
    ],
)
def test_a_bad_chunk_is_refused(data: bytes) -> None:
    with pytest.raises(HeadError):
        Chunks().feed(data)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=5), st.binary(max_size=20))
def test_what_was_chunked_comes_out_as_it_was(pieces: list[bytes], rest: bytes) -> None:
    chunks = Chunks()
    data = b"".join(b"%X\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    assert chunks.feed(data + rest) == b"".join(pieces)
    assert chunks.done
    assert chunks.rest == rest
