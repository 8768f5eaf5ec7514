"""What the writer of the log says of every event itself: who it is, when, in which boot, under which policy.

Rules kept here: an event cannot choose these details; one that names the policy it was decided by keeps that name.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from agent.record.event import Event, Json
from agent.values import dataclass

STAMPS = ("event_type", "event_id", "session_id", "stream", "seq", "boot", "mono_ns")


@dataclass(frozen=True, slots=True)
class Stamps:
    """Of one boot of one session's agent. `policy_digest` is what goes into events that name none."""

    session_id: str
    boot: str
    policy_digest: Callable[[], str] | str

    def of(self, event: Event) -> dict[str, Json]:
        """The stamps of an event that is taken now."""
        digest = event.details.get("policy_digest")
        if not isinstance(digest, str):
            digest = self.policy_digest if isinstance(self.policy_digest, str) else self.policy_digest()
        return {
            "event_id": str(uuid.uuid4()),
            "session_id": self.session_id,
            "boot": self.boot,
            "mono_ns": str(time.monotonic_ns()),
            "policy_digest": digest,
        }
