"""How often a part of the agent may die."""

from __future__ import annotations

import pytest

from agent.daemon.keeping.restarts import Deaths


@pytest.mark.parametrize(
    ("times", "survived"),
    [
        ([0], [True]),
        ([0, 1, 2], [True, True, True]),
        ([0, 1, 2, 3], [True, True, True, False]),
        ([0, 1, 2, 60], [True, True, True, False]),
        ([0, 1, 2, 60.1], [True, True, True, True]),
        ([0, 30, 61, 91, 122, 152], [True] * 6),
        ([0, 30, 61, 62, 63], [True, True, True, True, False]),
    ],
)
def test_three_deaths_within_a_minute_are_survived_and_the_fourth_is_not(
    times: list[float], survived: list[bool]
) -> None:
    deaths = Deaths()
    assert [deaths.survived(100 + time) for time in times] == survived
