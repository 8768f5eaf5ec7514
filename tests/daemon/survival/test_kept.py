"""What a guard keeps for a successor is the last whole version, wherever it died."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from agent.daemon.survival.kept import Kept


def successor(kept: Kept) -> Kept:
    return Kept([os.dup(descriptor) for descriptor in kept.descriptors])


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_a_successor_has_the_last_version_and_goes_on(versions: list[bytes]) -> None:
    kept = Kept()
    for data in versions:
        kept.save(data)
    again = successor(kept)
    assert again.data == (versions[-1] if versions else b"")
    again.save(b"more")
    third = successor(again)
    assert third.data == b"more"
    for each in (kept, again, third):
        each.close()


@given(st.binary(min_size=1, max_size=100), st.binary(min_size=1, max_size=100), st.integers(0, 130), st.booleans())
def test_one_that_dies_while_it_writes_leaves_the_version_before(
    first: bytes, second: bytes, cut: int, emptied: bool
) -> None:
    kept = Kept()
    kept.save(first)
    kept.save(second)
    (latest,) = [
        fd for fd in kept.descriptors if os.pread(fd, 8, 0) == (2 if first != second else 1).to_bytes(8, "little")
    ]
    size = os.fstat(latest).st_size
    if cut < size:
        os.ftruncate(latest, 0 if emptied else cut)
        if not emptied:
            os.ftruncate(latest, size)  # holes read as zeros, as what was not written yet
    again = successor(kept)
    assert again.data in {first, second, b""}
    if first != second:
        assert again.data in {first, second}
    for each in (kept, again):
        each.close()
