"""Rows of the decision histogram: nothing is lost between processes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.record.timings import BUCKETS, Timings

SECONDS = st.lists(st.floats(0, 5), max_size=50)


@given(SECONDS, SECONDS)
def test_what_is_taken_and_added_elsewhere_is_what_was_observed(first: list[float], second: list[float]) -> None:
    here, there, whole = Timings(), Timings(), Timings()
    for part in (first, second):
        for seconds in part:
            here.observe(seconds)
            whole.observe(seconds)
        there.add(*here.take())
    assert here.take() == ([0] * (len(BUCKETS) + 1), 0.0)
    assert there.counts == whole.counts
    assert there.seconds == pytest.approx(whole.seconds)


def test_a_bound_belongs_to_its_bucket_and_the_rest_to_the_last() -> None:
    row = Timings()
    row.observe(BUCKETS[0])
    row.observe(BUCKETS[-1] + 1)
    assert (row.counts[0], row.counts[-1], sum(row.counts)) == (1, 1, 2)


def test_a_row_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Timings().add([1], 0.1)
