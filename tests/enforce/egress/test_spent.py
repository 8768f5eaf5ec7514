"""What was counted against the limits outlives the process that counted it."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from agent.enforce.egress.quota import MAX_HOSTS, Quota
from agent.enforce.egress.spent import SESSION, Spent

NAMES = st.sampled_from(["a.test", "b.test", "*.wild.test", ""])
STEPS = st.lists(st.tuples(NAMES, st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 5)))


def account(quota: Quota, name: str):  # type: ignore[no-untyped-def]
    return quota.wildcard(name) if name.startswith("*.") else quota.account(name)


@given(STEPS, STEPS)
def test_a_successor_goes_on_with_the_totals_and_the_connections_of_the_last_minute(
    first: list[tuple[str, int, int, int]], second: list[tuple[str, int, int, int]]
) -> None:
    told: dict[str, list[int]] = {}
    sums: dict[str, list[int]] = {}
    for steps in (first, second):
        quota = Quota(lambda: 1000.0)
        spent = Spent(quota, json.loads(json.dumps(told)))
        for name, up, down, begun in steps:
            found = account(quota, name)
            found.up.total += up
            found.down.total += down
            found.rate.add(quota.now(), begun)
            quota.rate.add(quota.now(), begun)
            total = sums.setdefault(name, [0, 0, 0])
            sums[name] = [total[0] + up, total[1] + down, total[2] + begun]
            told |= spent.take()
        told |= spent.take()
        assert spent.take() == {}
    assert {name: numbers for name, numbers in told.items() if name != SESSION} == {
        name: numbers for name, numbers in sums.items() if numbers != [0, 0, 0]
    }
    assert told.get(SESSION, [0, 0, 0])[2] == sum(numbers[2] for numbers in sums.values())


def test_what_began_long_ago_is_told_as_no_longer_counting() -> None:
    now = [1000.0]
    quota = Quota(lambda: now[0])
    spent = Spent(quota, {})
    quota.account("a.test").rate.add(quota.now(), 3)
    assert spent.take() == {"a.test": [0, 0, 3]}
    now[0] += 62
    assert spent.take() == {"a.test": [0, 0, 0]}


def test_hosts_that_share_an_account_do_so_in_the_successor_too() -> None:
    quota = Quota()
    for number in range(MAX_HOSTS + 2):
        quota.account(f"n{number}.test").up.total += 1
    again = Quota()
    Spent(again, Spent(quota, {}).take())
    assert again.account("new.test").up.total == 2
    assert again.account("n7.test").up.total == 1
