"""What the tests of the exec ring share: a recorder that keeps what it is given, and how an argv becomes a request."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import date
from functools import cache

from agent.linux import seccomp
from agent.policy.request import CommandRequest, Origin
from agent.record.event import Event
from agent.shell.requests import from_argv
from agent.shell.scripts import Environment
from tests.conftest import require

TODAY = date(2026, 11, 22)


@dataclass
class Recorded:
    """A recorder that keeps what it is given."""

    events: list[Event] = field(default_factory=list)

    def post(self, event: Event) -> None:
        self.events.append(event)

    def accept(self, event: Event) -> None:
        self.events.append(event)

    def rules(self) -> list[object]:
        return [event.details["rule"] for event in self.events]

    def seen(self) -> list[tuple[str, object]]:
        return [(event.resource, event.details["rule"]) for event in self.events]


def build_request(argv: tuple[str, ...], exe: str, cwd: str, environment: Environment) -> CommandRequest:
    return from_argv(
        argv,
        exe=exe,
        cwd=cwd,
        home="/nonexistent",
        today=TODAY,
        origin=Origin("exec"),
        supervised=True,
        environment=environment,
    )


@cache
def _notification_available() -> bool:
    return seccomp.notification_available()


def require_ring() -> None:
    """What a session with a uid of its own, whose system calls are notified, needs."""
    require(os.geteuid() == 0, "root, to give the session a uid of its own")
    require(_notification_available(), "seccomp user notification")
