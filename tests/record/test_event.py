"""THE list: its words are those of the contract."""

from __future__ import annotations

import pytest

from agent.record.event import (
    DENIALS,
    Action,
    AuthFailure,
    Event,
    EventType,
    ResourceType,
    Result,
    event_of,
    fields_of,
)
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


FIELDS = {
    "type": "network.egress_blocked",
    "actor": "session:x",
    "action": "CREATE",
    "resource": "evil.test:443",
    "resource_type": "network",
    "result": "denied",
    "source_ip": None,
    "details": {"rule": "r"},
}


def test_an_event_is_read_back_as_it_was() -> None:
    assert event_of(FIELDS) == Event(
        EventType.NETWORK_EGRESS_BLOCKED,
        "session:x",
        Action.CREATE,
        "evil.test:443",
        ResourceType.NETWORK,
        Result.DENIED,
        None,
        {"rule": "r"},
    )
    assert fields_of(event_of(FIELDS)) == FIELDS


@pytest.mark.parametrize("key", sorted(FIELDS))
def test_a_message_that_is_no_event_is_an_error(key: str) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        event_of({name: value for name, value in FIELDS.items() if name != key})
    if key in ("type", "action", "resource_type", "result", "details"):
        with pytest.raises((KeyError, TypeError, ValueError)):
            event_of(FIELDS | {key: "nonsense"})
