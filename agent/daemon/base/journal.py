"""The agent's own events of one run: start and stop, policy, session, and whatever is less than it should be.

The enforcement points' events come from the gate; these come from here and nowhere else. A failure to record is the
ledger's to count (`audit.gap`), except for the start of the session, which waits for acceptance like every allow.
"""

from __future__ import annotations

import os
import signal

from agent.daemon.base.spec import RunSpec
from agent.policy.detection import Detection
from agent.policy.model import Secret
from agent.record.event import Action, Event, EventType, Json, RecordError, ResourceType, Result
from agent.record.ledger import Ledger
from agent.session.levels import Level, Point


class Journal:
    """Writes the run's own events into its ledger."""

    def __init__(self, ledger: Ledger, spec: RunSpec) -> None:
        self._ledger = ledger
        self._spec = spec

    def agent_started(self) -> None:
        self._post(EventType.AGENT_START, Action.CREATE, "run", {"version": self._spec.version, "pid": os.getpid()})

    def agent_stopped(self, reason: str) -> None:
        self._post(EventType.AGENT_STOP, Action.DELETE, reason, {})

    def policy_loaded(self, sources: list[str]) -> None:
        self._post(EventType.POLICY_LOAD, Action.READ, "start", {"sources": [*sources]})

    def policy_rejected(self, reason: str) -> None:
        self._post(EventType.POLICY_REJECTED, Action.READ, reason, {}, Result.ERROR)

    def policy_reloaded(self, cause: str, before: str, digest: str, sections: tuple[str, ...]) -> None:
        """`before`, `digest`: of the policy that was in force and of the one that is."""
        details: dict[str, Json] = {"previous_digest": before, "policy_digest": digest, "changed": [*sections]}
        self._post(EventType.POLICY_RELOAD, Action.UPDATE, cause, details)

    def secret_read(self, entry: Secret) -> None:
        """Accepted when this returns: no secret is used unrecorded. Raises RecordError where it could not be."""
        details: dict[str, Json] = {"secret_name": entry.name, "source": str(entry.source.kind)}
        event = self._event(EventType.SECRET_ACCESS, Action.READ, "start", details, Result.SUCCESS, resource=entry.name)
        self._ledger.accept(event)

    def degraded(self, point: Point, level: Level, reason: str) -> None:
        details: dict[str, Json] = {"point": str(point), "level": str(level)}
        self._post(EventType.AGENT_DEGRADED, Action.UPDATE, reason, details, resource=str(point))

    def detected(self, found: Detection) -> None:
        """A detector's threshold was reached, and how it is answered."""
        detector = found.detector
        counted = "bytes" if detector.upload else "resources" if detector.distinct else "events"
        details: dict[str, Json] = {
            "detector": detector.id,
            "rule": detector.id,
            "where": str(detector.where),
            "severity": str(detector.severity),
            "occurrences": found.occurrences,
            "counted": counted,
            "meanwhile": found.meanwhile,
            "window_seconds": detector.within,
            "response": [str(each) for each in detector.respond],
        }
        self._post(EventType.DETECTION, Action.CREATE, detector.reason or f"the detector {detector.id}", details)

    def recovered(self, point: Point, level: Level, process: str, reason: str) -> None:
        """A part that was lost works again, at this level."""
        details: dict[str, Json] = {"point": str(point), "level": str(level), "process": process}
        self._post(EventType.AGENT_RECOVERED, Action.UPDATE, reason, details, resource=str(point))

    def session_created(self, details: dict[str, Json]) -> None:
        """On disk when this returns: no session starts unrecorded. Raises RecordError where it could not be written."""
        self._ledger.accept(self._event(EventType.SESSION_CREATE, Action.CREATE, "run", details, Result.SUCCESS))
        self._ledger.flush()

    def session_ended(self, status: int | None, reason: str, bytes_up: int, bytes_down: int) -> None:
        """`status` as of wait(2), None where it is not known."""
        details: dict[str, Json] = {"bytes_up": bytes_up, "bytes_down": bytes_down}
        if status is not None and os.WIFSIGNALED(status):
            details["signal"] = signal.Signals(os.WTERMSIG(status)).name
        elif status is not None:
            details["exit_status"] = os.WEXITSTATUS(status)
        self._post(EventType.SESSION_TERMINATE, Action.DELETE, reason, details)

    def _post(
        self,
        kind: EventType,
        action: Action,
        reason: str,
        details: dict[str, Json],
        result: Result = Result.SUCCESS,
        *,
        resource: str | None = None,
    ) -> None:
        try:
            self._ledger.post(self._event(kind, action, reason, details, result, resource=resource))
        except RecordError:
            return  # counted by the ledger, and told by an audit.gap event

    def _event(
        self,
        kind: EventType,
        action: Action,
        reason: str,
        details: dict[str, Json],
        result: Result,
        *,
        resource: str | None = None,
    ) -> Event:
        subject, resource_type = self._subject(kind)
        return Event(
            type=kind,
            actor="agent",
            action=action,
            resource=resource or subject,
            resource_type=resource_type,
            result=result,
            details={"reason": reason, **details},
        )

    def _subject(self, kind: EventType) -> tuple[str, ResourceType]:
        match kind.value.split(".")[0]:
            case "session" | "detection":
                return self._spec.session_id, ResourceType.SESSION
            case "secret":
                return "", ResourceType.SECRET
            case "policy":
                return ", ".join(self._spec.policy_dirs) or "embedded default", ResourceType.POLICY
            case _:
                return "parhelia-agent", ResourceType.AGENT
