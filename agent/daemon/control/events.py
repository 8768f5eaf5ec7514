"""What the control socket and a lockdown leave in the audit log.

Rules kept here: the actor is the caller by the kernel's word (`user:NAME`); words of the caller's are escaped; a known
caller without the role is `permission.denied`, any other `auth.failure`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from agent.daemon.control.callers import Caller
from agent.policy.control_roles import Role
from agent.policy.words import shown
from agent.record.event import Action, AuthFailure, Event, EventType, Json, RecordError, ResourceType, Result
from agent.record.ledger import Ledger

log = logging.getLogger(__name__)

CONTROL_ROLE: Final = "control-role"
"""The rule of a refusal for want of the role."""
EXEC_LIMIT: Final = "exec-limit"
"""The rule of a refusal because so many commands of `exec` run."""
SOCKET: Final = "control.sock"


class ControlEvents:
    """Writes them. Losses are counted by the ledger and told by an `audit.gap`."""

    def __init__(self, ledger: Ledger, session_id: str) -> None:
        self._ledger = ledger
        self._session_id = session_id

    def unknown_caller(self, caller: Caller) -> None:
        """Somebody without any role connected."""
        self._auth_failure(caller, AuthFailure.UNKNOWN_CALLER, {})

    def malformed(self, caller: Caller, why: str) -> None:
        """A known caller sent what is no request."""
        self._auth_failure(caller, AuthFailure.MALFORMED_REQUEST, {"fault": shown(why)})

    def refused(self, caller: Caller, verb: str, least: Role) -> str:
        """A known caller asked for more than its role allows; returns the reason."""
        reason = f"{verb} needs the role {least}, and {caller.name} is {caller.role}"
        action = Action.READ if verb == "status" else Action.UPDATE
        return self._denied(caller, action, verb, CONTROL_ROLE, reason)

    def too_many(self, caller: Caller, reason: str) -> str:
        """A known caller asked for one command more than may run; returns the reason."""
        return self._denied(caller, Action.CREATE, "exec", EXEC_LIMIT, reason)

    def _denied(self, caller: Caller, action: Action, verb: str, rule: str, reason: str) -> str:
        details: dict[str, Json] = {"rule": rule, "reason": reason, "role": str(caller.role), **_who(caller)}
        self._post(EventType.PERMISSION_DENIED, caller.actor, action, Result.DENIED, details, resource=verb)
        return reason

    def attached(self, caller: Caller, details: dict[str, Json]) -> None:
        """A further command is about to start. Accepted when this returns; raises RecordError where it could not be."""
        self._ledger.accept(self._of_session(EventType.SESSION_ATTACH, caller, Action.CREATE, details))

    def detached(self, caller: Caller, details: dict[str, Json]) -> None:
        """It has ended, has not started, or its caller went away."""
        with suppress(RecordError):  # counted by the ledger, and told by an audit.gap
            self._ledger.post(self._of_session(EventType.SESSION_DETACH, caller, Action.DELETE, details))

    def left(self, pid: int) -> None:
        """A further command is hung up, since the guard that had its caller died."""
        with suppress(RecordError):  # as above
            self._ledger.post(
                Event(
                    type=EventType.SESSION_DETACH,
                    actor="agent",
                    action=Action.DELETE,
                    resource=self._session_id,
                    resource_type=ResourceType.SESSION,
                    result=Result.SUCCESS,
                    details={"reason": "the guard died", "pid": pid, "mechanism": "control"},
                )
            )

    def _of_session(self, kind: EventType, caller: Caller, action: Action, details: dict[str, Json]) -> Event:
        return Event(
            type=kind,
            actor=caller.actor,
            action=action,
            resource=self._session_id,
            resource_type=ResourceType.SESSION,
            result=Result.SUCCESS,
            details={**details, "mechanism": "control", "uid": caller.uid},
        )

    def lockdown(self, actor: str, cause: str, measures: Sequence[str], details: dict[str, Json]) -> None:
        """Containment has begun, was widened, or was lifted (no measures). Raises RecordError where it is not taken."""
        self._ledger.accept(
            Event(
                type=EventType.AGENT_LOCKDOWN,
                actor=actor,
                action=Action.UPDATE,
                resource=self._session_id,
                resource_type=ResourceType.SESSION,
                result=Result.SUCCESS,
                details={"cause": shown(cause), "measures": [*measures], **details},
            )
        )

    def restored(self, caller: Caller, checkpoint: str) -> None:
        """The platform says that it restored the container. Raises RecordError where it is not taken."""
        self._ledger.accept(
            Event(
                type=EventType.CHECKPOINT_RESTORE,
                actor=caller.actor,
                action=Action.UPDATE,
                resource=checkpoint,
                resource_type=ResourceType.CHECKPOINT,
                result=Result.SUCCESS,
                details=_who(caller),
            )
        )

    def _auth_failure(self, caller: Caller, reason: AuthFailure, details: dict[str, Json]) -> None:
        self._post(
            EventType.AUTH_FAILURE,
            caller.actor,
            Action.READ,
            Result.DENIED,
            {"reason": str(reason), **details, **_who(caller)},
            resource=SOCKET,
        )

    def _post(
        self,
        kind: EventType,
        actor: str,
        action: Action,
        result: Result,
        details: dict[str, Json],
        *,
        resource: str,
    ) -> None:
        event = Event(
            type=kind,
            actor=actor,
            action=action,
            resource=resource,
            resource_type=ResourceType.SESSION if kind is EventType.PERMISSION_DENIED else ResourceType.AGENT,
            result=result,
            details=details,
        )
        try:
            self._ledger.post(event)
        except RecordError:
            log.warning("%s at the control socket could not be recorded; the loss is counted", kind)


def _who(caller: Caller) -> dict[str, Json]:
    return {"mechanism": "control", "uid": caller.uid, "pid": caller.pid}
