from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.enforce.egress.engine_requests import (
    Head,
    Identity,
    examine,
    examine_sni,
    is_websocket,
    printable,
)


def identity(host: str = "api.good.test", port: int = 443, kind: str = "connect") -> Identity:
    return Identity(host, port, ("192.0.2.1",), kind, "c1", None)  # type: ignore[arg-type]


def request(*headers: tuple[bytes, bytes], authority: bytes = b"", http2: bool = False, target: bytes = b"/") -> Head:
    return Head(b"GET", target, authority, headers, b"HTTP/1.1", http2)


def rule(who: Identity, head: Head) -> str | None:
    refusal = examine(who, head)
    return None if refusal is None else refusal.rule


SAME = [
    (identity(), b"api.good.test"),
    (identity(), b"API.Good.TEST"),
    (identity(), b"api.good.test."),
    (identity(), b"api.good.test:443"),
    (identity(port=8443), b"api.good.test:8443"),
    (identity(kind="absolute", port=80), b"api.good.test"),
    (identity("2001:db8::1"), b"[2001:db8::1]"),
    (identity("2001:db8::1"), b"[2001:0DB8:0::1]:443"),
    (identity("192.0.2.1"), b"192.0.2.1"),
]


@pytest.mark.parametrize(("who", "host"), SAME)
def test_other_spellings_of_the_same_authority_pass(who: Identity, host: bytes) -> None:
    assert rule(who, request((b"Host", host))) is None
    assert rule(who, request(authority=host, http2=True)) is None


OTHERS = [
    b"",
    b"evil.test",
    b"good.test",
    b"api.good.test:444",
    b"api.good.test:0443443",
    b"api.good.test:",
    b"api.good.test:443:443",
    b"user@api.good.test",
    b"api.good.test@evil.test",
    b"api.good.test/x",
    b"api.good.test evil.test",
    b"api.good.test,evil.test",
    b"api.good.test..",
    b"[api.good.test]",
    b"[::1]",
    "api.good.tes\u0074\u0301".encode(),
    b"api%2egood.test",
]


@pytest.mark.parametrize("host", OTHERS)
def test_anything_else_as_authority_is_a_mismatch(host: bytes) -> None:
    assert rule(identity(), request((b"Host", host))) == "authority-mismatch"
    assert rule(identity(), request((b"Host", b"api.good.test"), authority=host or b"x")) == "authority-mismatch"


@given(st.binary(max_size=40))
def test_no_bytes_but_the_host_s_own_spellings_pass_as_host(text: bytes) -> None:
    if rule(identity(), request((b"Host", text))) is None:
        assert text.lower() in (b"api.good.test", b"api.good.test.", b"api.good.test:443", b"api.good.test.:443")


@given(st.binary(min_size=1, max_size=60))
def test_a_target_that_passes_is_visible_ascii_from_a_slash_without_fragment(target: bytes) -> None:
    if rule(identity(), request((b"Host", b"api.good.test"), target=target)) is None:
        assert target.startswith(b"/")
        assert all(0x21 <= byte <= 0x7E and byte != 0x23 for byte in target)


@pytest.mark.parametrize(
    ("host", "sni", "expected"),
    [
        ("api.good.test", "api.good.test", None),
        ("api.good.test", "API.good.test.", None),
        ("api.good.test", None, "sni-missing"),
        ("api.good.test", "evil.test", "sni-mismatch"),
        ("api.good.test", "api.good.test\0", "sni-mismatch"),
        ("192.0.2.1", None, None),
        ("2001:db8::1", None, None),
        ("192.0.2.1", "evil.test", "sni-mismatch"),
    ],
)
def test_the_tls_name_is_the_tunnel_s_host(host: str, sni: str | None, expected: str | None) -> None:
    refusal = examine_sni(identity(host), sni)
    assert (None if refusal is None else refusal.rule) == expected


@pytest.mark.parametrize(
    ("upgrade", "connection", "expected"),
    [
        ([b"websocket"], b"Upgrade", True),
        ([b"WebSocket"], b"keep-alive, upgrade", True),
        ([b"websocket"], b"keep-alive", False),
        ([b"websocket, h2c"], b"Upgrade", False),
        ([b"websocket", b"h2c"], b"Upgrade", False),
        ([b"h2c"], b"Upgrade", False),
    ],
)
def test_only_an_upgrade_to_websocket_alone_is_one(upgrade: list[bytes], connection: bytes, expected: bool) -> None:
    headers = [(b"Upgrade", value) for value in upgrade]
    assert is_websocket(request(*headers, (b"Connection", connection))) is expected
    assert not is_websocket(request(*headers, (b"Connection", connection), http2=True))


@given(st.text(max_size=700))
def test_what_is_shown_is_visible_and_short(text: str) -> None:
    shown = printable(text)
    assert all(" " <= character <= "~" for character in shown)
    assert len(shown) <= 10 * 512 + 3


def test_the_authority_that_is_sent_upstream_has_a_port_only_where_it_is_not_the_usual() -> None:
    assert identity().authority == "api.good.test"
    assert identity(port=8443).authority == "api.good.test:8443"
    assert identity(port=80).authority == "api.good.test:80"
    assert identity(port=80, kind="absolute").authority == "api.good.test"
    assert identity("2001:db8::1", 8443).authority == "[2001:db8::1]:8443"
