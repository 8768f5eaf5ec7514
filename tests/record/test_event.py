"""THE list: its words are those of the contract."""

from __future__ import annotations

import pytest

from agent.record.event import DENIALS, Action, AuthFailure, Event, EventType, Result
from tests.record.logs import denial


def test_the_vocabulary_is_the_contract_s():
    assert {action.value for action in Action} == {"CREATE", "READ", "UPDATE", "DELETE"}
    assert {result.value for result in Result} == {"success", "denied", "error"}
    assert {kind.value for kind in DENIALS} == {"permission.denied", "bash.dangerous", "network.egress_blocked"}
    assert all(kind.value.count(".") == 1 and kind.value.islower() for kind in EventType)
    assert AuthFailure.OTHER in AuthFailure


@pytest.mark.parametrize(("event", "count"), [(denial(), 1), (denial(count=7), 7), (denial(count="many"), 1)])
def test_an_event_stands_for_one_occurrence_unless_it_says_otherwise(event: Event, count: int):
    assert event.count == count
