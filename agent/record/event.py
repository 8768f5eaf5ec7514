"""THE list of event types, and the event as a value.

Every event type, its counter behaviour and its vocabulary are defined here once; metrics, dashboards, docs and the
verifier are generated from or checked against this module. An event says what happened; the chain
(`agent.record.chain`) adds when, where in the stream, and the hashes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from agent.values import dataclass, field

type Json = str | int | bool | list["Json"] | dict[str, "Json"] | None


class EventType(StrEnum):
    """`details.event_type` of the audit log."""

    AUTH_LOGIN = "auth.login"
    AUTH_LOGOUT = "auth.logout"
    AUTH_MFA_ENROLL = "auth.mfa_enroll"
    AUTH_FAILURE = "auth.failure"
    SECRET_ACCESS = "secret.access"  # noqa: S105 - a name, not a secret
    SECRET_INJECT = "secret.inject"  # noqa: S105 - a name, not a secret
    SECRET_ROTATE = "secret.rotate"  # noqa: S105 - a name, not a secret
    SESSION_CREATE = "session.create"
    SESSION_ATTACH = "session.attach"
    SESSION_DETACH = "session.detach"
    SESSION_TERMINATE = "session.terminate"
    CHECKPOINT_CREATE = "checkpoint.create"
    CHECKPOINT_RESTORE = "checkpoint.restore"
    PERMISSION_DENIED = "permission.denied"
    BASH_DANGEROUS = "bash.dangerous"
    NETWORK_EGRESS = "network.egress"
    NETWORK_EGRESS_BLOCKED = "network.egress_blocked"
    AGENT_START = "agent.start"
    AGENT_STOP = "agent.stop"
    AGENT_DEGRADED = "agent.degraded"
    AGENT_RECOVERED = "agent.recovered"
    AGENT_LOCKDOWN = "agent.lockdown"
    INTEGRITY_CHANGED = "integrity.changed"
    DETECTION = "detection.triggered"
    POLICY_LOAD = "policy.load"
    POLICY_RELOAD = "policy.reload"
    POLICY_REJECTED = "policy.rejected"
    AUDIT_RECOVERED = "audit.recovered"
    AUDIT_GAP = "audit.gap"
    AUDIT_CHECKPOINT = "audit.checkpoint"


DENIALS = frozenset({EventType.PERMISSION_DENIED, EventType.BASH_DANGEROUS, EventType.NETWORK_EGRESS_BLOCKED})
"""The event types counted in `parhelia_security_denied_total` when their result is DENIED."""


class AuthFailure(StrEnum):
    """`details.reason` of `auth.failure`, and the label of `parhelia_auth_failures_total`: a closed set."""

    UNKNOWN_CALLER = "unknown_caller"
    BAD_CREDENTIALS = "bad_credentials"
    EXPIRED_CREDENTIALS = "expired_credentials"
    MFA_FAILED = "mfa_failed"
    MALFORMED_REQUEST = "malformed_request"
    OTHER = "other"


class Integrity(StrEnum):
    """`details.kind` of `integrity.changed`, the label of `parhelia_agent_integrity_changes_total`: a closed set."""

    PROTECTED = "protected"
    POLICY = "policy"
    AGENT = "agent"
    SETTINGS = "settings"


class Action(StrEnum):
    CREATE = "CREATE"
    READ = "READ"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


class Result(StrEnum):
    SUCCESS = "success"
    DENIED = "denied"
    ERROR = "error"


class ResourceType(StrEnum):
    SESSION = "session"
    CHECKPOINT = "checkpoint"
    SECRET = "secret"  # noqa: S105 - a name, not a secret
    NETWORK = "network"
    COMMAND = "command"
    PATH = "path"
    TOOL = "tool"
    POLICY = "policy"
    AGENT = "agent"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, before the chain gives it a place. `details` holds whatever else applies."""

    type: EventType
    actor: str
    action: Action
    resource: str
    resource_type: ResourceType
    result: Result
    source_ip: str | None = None
    details: Mapping[str, Json] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many occurrences this event stands for (coalesced lines carry `details.count`)."""
        count = self.details.get("count", 1)
        return count if isinstance(count, int) else 1


def fields_of(event: Event) -> dict[str, Json]:
    """The event as it travels between the agent's processes."""
    return {
        "type": str(event.type),
        "actor": event.actor,
        "action": str(event.action),
        "resource": event.resource,
        "resource_type": str(event.resource_type),
        "result": str(event.result),
        "source_ip": event.source_ip,
        "details": dict(event.details),
    }


def event_of(fields: Mapping[str, Any]) -> Event:
    """The event that was sent so. Raises KeyError, TypeError or ValueError where it is none."""
    source_ip = fields["source_ip"]
    return Event(
        type=EventType(fields["type"]),
        actor=str(fields["actor"]),
        action=Action(fields["action"]),
        resource=str(fields["resource"]),
        resource_type=ResourceType(fields["resource_type"]),
        result=Result(fields["result"]),
        source_ip=None if source_ip is None else str(source_ip),
        details=dict(fields["details"]),
    )


class RecordError(Exception):
    """The writer could not accept an event."""
