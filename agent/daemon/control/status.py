"""The state of a running agent as one JSON document: what `status` answers, and what is kept as evidence."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.record.event import Json
from agent.version import version

if TYPE_CHECKING:  # it is made there
    from agent.daemon.beside.companions import Company


class Status:
    """Of one session. `lockdown` says what contains it."""

    def __init__(self, company: Company) -> None:
        self._company = company

    def document(self, lockdown: Json) -> dict[str, Json]:
        """All of it, now. Bytes, counts and times are of the whole session so far, whichever guard it has;
        `uptime_seconds` is by the machine's clock."""
        company = self._company
        policy, metrics = company.policy(), company.metrics.reading()
        began = company.spec.began
        return {
            "version": version(),
            "session_id": company.spec.session_id,
            "boot": company.ledger.boot,
            "user": company.spec.session_user.name,
            "since": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "uptime_seconds": max(0, int(time.time() - began)),
            "pids": {"guard": os.getpid(), "keeper": os.getppid(), "session": company.session_pid()},
            "policy": {"digest": policy.digest, "sources": [layer.source for layer in policy.layers]},
            "audit": {
                "directory": company.spec.audit_dir,
                "seq": company.ledger.seq,
                "synced": company.ledger.synced,
                "failure": company.ledger.failure,
            },
            "lockdown": lockdown,
            **metrics,
        }
