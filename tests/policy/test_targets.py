"""URLs and hosts as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.request import Protocol
from agent.policy.targets import Target, TargetError, parse_target


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://API.good.test./x?y#z", Target("api.good.test", 443, Protocol.TLS, "/x", query="y")),
        ("http://good.test", Target("good.test", 80, Protocol.HTTP, "/")),
        ("good.test", Target("good.test", 443, Protocol.TLS)),
        ("good.test:8443", Target("good.test", 8443, Protocol.TLS)),
        ("POST https://good.test/x", Target("good.test", 443, Protocol.TLS, "/x", "POST")),
        ("tcp://good.test:22", Target("good.test", 22, Protocol.TCP)),
        ("wss://good.test/s", Target("good.test", 443, Protocol.TLS, "/s")),
        ("https://[2001:DB8::1]:8443/", Target("2001:db8::1", 8443, Protocol.TLS, "/")),
        ("https://0x7f.1/", Target("127.0.0.1", 443, Protocol.TLS, "/")),
        ("https://good.test?x", Target("good.test", 443, Protocol.TLS, "/", query="x")),
    ],
)
def test_a_destination_is_read_as_written(text: str, expected: Target) -> None:
    assert parse_target(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://",
        "ftp://good.test/",
        "tcp://good.test",
        "https://user@good.test/",
        "https://good.test@evil.test/",
        "https://good.test:0/",
        "https://good.test:99999/",
        "https://good.test:x/",
        "evil.com:443.good.test",
        "https://good test/",
        "https://good.test\\@evil.test/",
        "http://[evil.test]/",
        "https://evil.test\0.good.test/",
        "https://evil.test%00.good.test/",
        "https://[::1%25eth0]/",
    ],
)
def test_what_names_no_destination_is_refused(text: str) -> None:
    with pytest.raises(TargetError):
        parse_target(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        target = parse_target(text)
    except TargetError:
        return
    assert 1 <= target.port <= 65535
