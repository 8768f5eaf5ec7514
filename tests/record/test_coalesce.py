"""Bursts of denials: exact sums, whatever the timing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.record.coalesce import Coalescer
from agent.record.event import Action, Event, EventType, Result
from tests.record.logs import allowed, denial

SECOND = 1_000_000_000


def test_the_first_of_a_burst_pass_and_the_rest_become_one_line_with_the_count():
    coalescer = Coalescer(first=3)
    held = [coalescer.offer(denial(n=n), n, f"t{n}") for n in range(10)]
    assert held == [False] * 3 + [True] * 7
    assert coalescer.due(SECOND - 1) == []
    (line,) = coalescer.due(SECOND)
    assert (line.details["count"], line.details["first_seen"], line.details["last_seen"]) == (7, "t3", "t9")
    assert line.details["n"] == 9
    assert line.resource == "evil.test:443"


def test_a_burst_that_goes_on_is_one_line_per_window_and_ends_when_it_is_quiet():
    coalescer = Coalescer(first=1)
    assert [coalescer.offer(denial(), now, "") for now in (0, 1)] == [False, True]
    assert [line.count for line in coalescer.due(SECOND)] == [1]
    assert coalescer.offer(denial(), SECOND + 1, "")
    assert [line.count for line in coalescer.due(2 * SECOND)] == [1]
    assert coalescer.due(3 * SECOND) == []
    assert coalescer.deadline_ns is None
    assert not coalescer.offer(denial(), 3 * SECOND, "")


@pytest.mark.parametrize(
    "other",
    [
        denial("other.test:443"),
        replace(denial(), actor="user:x"),
        replace(denial(), type=EventType.BASH_DANGEROUS),
        replace(denial(), action=Action.DELETE),
        replace(denial(), source_ip="192.0.2.1"),
        replace(denial(), details={"rule": "another-rule"}),
    ],
)
def test_events_that_differ_in_what_a_reader_groups_by_are_never_summed(other: Event):
    coalescer = Coalescer(first=1)
    assert not coalescer.offer(denial(), 0, "")
    assert not coalescer.offer(other, 1, "")


@pytest.mark.parametrize("event", [allowed(), replace(denial(), result=Result.SUCCESS)])
def test_only_enforced_denials_are_held(event: Event):
    coalescer = Coalescer(first=0)
    assert not coalescer.offer(event, 0, "")


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, SECOND), st.integers(1, 9), st.booleans()), max_size=60)
)
def test_what_passes_plus_what_comes_out_is_what_went_in(steps):
    coalescer = Coalescer(first=2, keys=2)
    now, given_in, out = 0, 0, 0
    for name, pause, count, flush in steps:
        now += pause
        event = denial(name, count=count)
        given_in += count
        out += 0 if coalescer.offer(event, now, "") else count
        if flush:
            out += sum(line.count for line in coalescer.due(now))
    assert out + sum(line.count for line in coalescer.drain()) == given_in
    assert coalescer.drain() == []


def test_past_the_most_bursts_different_names_are_summed_by_rule():
    coalescer = Coalescer(first=2, keys=3)
    held = [coalescer.offer(denial(f"n{n}.test:443"), 0, "") for n in range(10)]
    assert held == [False] * 5 + [True] * 5  # three bursts of their own, and the first two of the many
    (line,) = coalescer.due(SECOND)
    assert (line.resource, line.details["count"]) == ("(many)", 5)
    assert not coalescer.offer(replace(denial("x.test:1"), details={"rule": "another-rule"}), SECOND, "")
