"""What the log says about itself."""

from __future__ import annotations

from agent.record.event import EventType, ResourceType, Result
from agent.record.log import Recovered
from agent.record.notices import gap, recovered


def test_a_gap_names_the_sum_the_types_and_the_reason():
    event = gap({"b": 2, "a": 1}, [], "disk full")
    assert (event.type, event.result, event.resource_type) == (EventType.AUDIT_GAP, Result.ERROR, ResourceType.AUDIT)
    assert event.details == {"lost": 3, "lost_by_type": {"a": 1, "b": 2}, "reason": "disk full"}
    assert gap({}, [4, 9], "x").details["unacknowledged_seq"] == [4, 9]


def test_a_recovery_names_the_sidecar_by_its_final_name():
    event = recovered(Recovered("torn tail", "quarantine-000000000003-0.bin.pending", 12, "ab"))
    assert event.type is EventType.AUDIT_RECOVERED
    assert event.details == {
        "reason": "torn tail",
        "sidecar": "quarantine-000000000003-0.bin",
        "sidecar_bytes": 12,
        "sidecar_sha256": "ab",
    }
    assert recovered(Recovered("edited")).details == {"reason": "edited"}
