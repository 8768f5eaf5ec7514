"""The fuzzing targets under hypothesis: bytes of any kind, and seeds with pieces cut, changed, doubled and swapped."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, allowed, openssl_reads


@st.composite
def bent(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A seed after a few edits."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        end = draw(st.integers(at, min(len(data), at + 8)))
        piece = draw(
            st.binary(max_size=4) | st.sampled_from((b"\r\n", b"\0", b":", b".", b" ", b"%", data[at:end] * 2))
        )
        data = data[:at] + piece + data[end:]
    return data


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_bytes_break_a_promise(name: str, data: st.DataObject) -> None:
    target, seeds = TARGETS[name]
    target(data.draw(bent(seeds) | st.binary(max_size=300)))


def test_the_other_readings_can_disagree() -> None:
    assert allowed("api.good.test", 443)
    assert not allowed("evil.test", 443)
    assert openssl_reads(TARGETS["hello"][1][0]) == ["api.good.test"]
