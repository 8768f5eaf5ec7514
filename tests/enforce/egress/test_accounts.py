"""What is counted of a host."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.enforce.egress.accounts import Rate


@given(st.lists(st.integers(0, 70), max_size=60))
def test_the_rate_counts_what_began_in_the_last_minute(steps: list[int]) -> None:
    rate, now, begun = Rate(), 0, []
    for step in steps:
        now += step
        assert rate.recent(now) == sum(now - at <= 60 for at in begun)
        rate.add(now)
        begun.append(now)
