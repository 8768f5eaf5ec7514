"""The ClientHello parser: what it takes, what it refuses, and that nothing makes it fail or guess."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.enforce.egress.hello import ClientHello, HelloError, read_client_hello, too_old
from tests.enforce.egress.proxy import client_hello

TLS12, TLS13 = 0x0303, 0x0304


def vector(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size) + data


def server_name(name: bytes, kind: int = 0) -> tuple[int, bytes]:
    return 0, vector(2, bytes([kind]) + vector(2, name))


def versions(*known: int) -> tuple[int, bytes]:
    return 43, vector(1, b"".join(struct.pack("!H", version) for version in known))


def message(extensions: Sequence[tuple[int, bytes]] | None, legacy: int = TLS12, tail: bytes = b"") -> bytes:
    body = struct.pack("!H", legacy) + bytes(32) + vector(1, b"") + vector(2, b"\x13\x01") + vector(1, b"\0")
    if extensions is not None:
        body += vector(2, b"".join(struct.pack("!H", kind) + vector(2, data) for kind, data in extensions))
    return b"\x01" + vector(3, body + tail)


def records(data: bytes, size: int = 1 << 14) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"\x16\x03\x01" + vector(2, piece) for piece in pieces)


GOOD = records(message([server_name(b"api.good.test"), versions(TLS13, TLS12)]))


def test_a_hello_of_openssl_is_read() -> None:
    assert read_client_hello(client_hello("api.good.test")) == ClientHello("api.good.test", TLS13, encrypted=False)


def test_a_hello_without_a_name_is_read_as_such() -> None:
    hello = read_client_hello(client_hello(None))
    assert hello is not None
    assert hello.sni is None


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_hello_split_over_many_records_is_the_same(size: int) -> None:
    whole = message([server_name(b"api.good.test"), versions(TLS13)])
    assert read_client_hello(records(whole, size)) == ClientHello("api.good.test", TLS13, encrypted=False)


def test_a_name_past_byte_1024_is_found() -> None:
    hello = records(message([(21, bytes(4000)), server_name(b"api.good.test"), versions(TLS13)]))
    parsed = read_client_hello(hello)
    assert parsed is not None
    assert parsed.sni == "api.good.test"


def test_every_prefix_of_a_hello_asks_for_more() -> None:
    for end in range(len(GOOD)):
        assert read_client_hello(GOOD[:end]) is None


def test_what_follows_the_hello_in_a_record_of_its_own_is_left_alone() -> None:
    assert read_client_hello(GOOD + b"\x17\x03\x03\x00\x01x") == read_client_hello(GOOD)


@pytest.mark.parametrize(
    ("name", "data", "rule"),
    [
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", "tls-required"),
        ("HTTP", b"GET / HTTP/1.1\r\n", "tls-required"),
        ("one wrong byte", b"\x15", "tls-required"),
        ("SSLv2 hello", b"\x80\x2e\x01\x00\x02", "tls-required"),
        ("a version that is not TLS", b"\x16\x02\x00", "tls-required"),
        ("another handshake message", records(b"\x02" + vector(3, b"x" * 50)), "tls-required"),
        ("a hello too long", records(b"\x01" + (1 << 20).to_bytes(3) + b"x"), "tls-required"),
        ("an empty record", b"\x16\x03\x01\x00\x00", "tls-malformed"),
        ("a record too long", b"\x16\x03\x01\x40\x01", "tls-malformed"),
        ("a second message in the record", records(message([server_name(b"a.test")]) + b"\x01"), "tls-malformed"),
        ("two server names", records(message([server_name(b"a.test"), server_name(b"b.test")])), "tls-malformed"),
        (
            "two names in the list",
            records(message([(0, vector(2, (b"\0" + vector(2, b"a.test")) * 2))])),
            "tls-malformed",
        ),
        ("an empty name", records(message([server_name(b"")])), "tls-malformed"),
        ("a name of another type", records(message([server_name(b"a.test", kind=1)])), "tls-malformed"),
        ("a name that is not ASCII", records(message([server_name("ä.test".encode())])), "tls-malformed"),
        ("bytes after the extensions", records(message([server_name(b"a.test")], tail=b"x")), "tls-malformed"),
        ("any extension twice", records(message([(10, b""), (10, b"")])), "tls-malformed"),
        ("a truncated extension", records(message([(0, b"\x00\x20\x00")])), "tls-malformed"),
        ("an odd version list", records(message([(43, b"\x03\x03\x04\x03")])), "tls-malformed"),
        ("no versions", records(message([(43, b"\x00")])), "tls-malformed"),
    ],
)
def test_what_is_not_one_clear_hello_is_refused_by_rule(name: str, data: bytes, rule: str) -> None:
    with pytest.raises(HelloError) as caught:
        read_client_hello(data)
    assert caught.value.rule == rule, name


@pytest.mark.parametrize("kind", [0xFE0D, 0xFFCE])
def test_an_encrypted_inner_hello_is_reported(kind: int) -> None:
    hello = read_client_hello(records(message([server_name(b"a.test"), (kind, b"\0" * 20)])))
    assert hello is not None
    assert hello.encrypted


@pytest.mark.parametrize(
    ("extensions", "legacy", "expected"),
    [
        ([versions(TLS13)], TLS12, False),
        ([versions(0x7F1C, 0x0A0A, TLS12)], TLS12, False),
        ([versions(0x0302, 0x0301)], TLS12, True),
        ([versions(0x0A0A)], TLS12, True),
        ([], TLS12, False),
        (None, TLS12, False),
        (None, 0x0301, True),
    ],
)
def test_only_old_versions_are_told_apart(
    extensions: list[tuple[int, bytes]] | None, legacy: int, expected: bool
) -> None:
    hello = read_client_hello(records(message(extensions, legacy)))
    assert hello is not None
    assert too_old(hello) is expected


@given(st.binary(max_size=400))
def test_no_bytes_make_it_fail_otherwise(data: bytes) -> None:
    try:
        read_client_hello(data)
    except HelloError as error:
        assert error.rule in {"tls-required", "tls-malformed"}


@given(st.integers(5, len(GOOD) - 1), st.integers(0, 255))
def test_a_changed_byte_never_yields_another_readable_name(at: int, value: int) -> None:
    changed = bytearray(GOOD)
    changed[at] = value
    try:
        hello = read_client_hello(bytes(changed))
    except HelloError:
        return
    if hello is not None and hello.sni not in (None, "api.good.test"):
        start = GOOD.index(b"api.good.test")
        assert start - 2 <= at < start + 13, "a name appeared that is not in the name's place"


@given(st.integers(1, 60), st.integers(0, 40))
def test_however_it_is_cut_it_reads_the_same(size: int, more: int) -> None:
    whole = message([(21, bytes(more)), server_name(b"api.good.test"), versions(TLS13)])
    data = records(whole, size)
    found = [at for at in range(len(data) + 1) if read_client_hello(data[:at]) is not None]
    assert found == [len(data)]
