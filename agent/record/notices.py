"""The events that the audit log writes about itself: `audit.recovered` and `audit.gap`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.record.event import Action, Event, EventType, Json, ResourceType, Result
from agent.record.log import CURRENT, Recovered


def recovered(found: Recovered) -> Event:
    """What was found amiss when the log was opened or checked, and where it was put."""
    details: dict[str, Json] = {"reason": found.reason}
    if found.sidecar is not None:
        details |= {
            "sidecar": found.sidecar.removesuffix(".pending"),
            "sidecar_bytes": found.size,
            "sidecar_sha256": found.sha256,
        }
    return _own(EventType.AUDIT_RECOVERED, details, Result.SUCCESS)


def gap(lost: Mapping[str, int], unacknowledged: Sequence[int], reason: str) -> Event:
    """How many occurrences, by event type, are missing before this event.

    `unacknowledged` are the `seq` of events that are in the log although whoever asked was told they are not (and was
    refused): under ``durable: strict``, when the disk failed after the event was taken.
    """
    by_type: dict[str, Json] = dict(sorted(lost.items()))
    details: dict[str, Json] = {"lost": sum(lost.values()), "lost_by_type": by_type, "reason": reason}
    if unacknowledged:
        details["unacknowledged_seq"] = list(unacknowledged)
    return _own(EventType.AUDIT_GAP, details, Result.ERROR)


def _own(event_type: EventType, details: dict[str, Json], result: Result) -> Event:
    return Event(
        type=event_type,
        actor="agent",
        action=Action.UPDATE,
        resource=CURRENT,
        resource_type=ResourceType.AUDIT,
        result=result,
        details=details,
    )
