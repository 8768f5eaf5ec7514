"""What runs beside a session from its first instruction to its end: watchers, the control socket, detectors.

Rules kept here: they start in the order given when the session is let go and stop in the opposite one, before the log
is closed; one that cannot be started is `agent.degraded`, and the others run all the same: none of them holds the
session (that is the launch's), they see and tell. What fails later records itself.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from agent.daemon.base.journal import Journal
from agent.daemon.base.places import Places
from agent.daemon.base.spec import RunSpec
from agent.daemon.egress.link import EgressLink
from agent.daemon.launch.launcher import LaunchLink
from agent.daemon.policies.store import PolicyStore
from agent.gate import Gate
from agent.policy.grants import Grants
from agent.policy.model import Policy
from agent.record.ledger import Ledger
from agent.record.metrics import Metrics
from agent.session.levels import Level, Offer, Point
from agent.session.plan import Plan
from agent.values import dataclass

log = logging.getLogger(__name__)


class Companion(Protocol):
    """One of them. Both are called on the guard's loop."""

    async def start(self) -> None:
        """Begin. May raise: then it is not started, and that is said."""

    async def stop(self) -> None:
        """End, whatever state it is in; its last events are posted when this returns."""


@dataclass(frozen=True, slots=True)
class Company:
    """What a companion may use of the run. `policy`: the one in force. `launch` starts further commands in the
    confinement (`LaunchLink.run`) and names its init. `session_pid`: of the session's first command, 0 where there is
    none. `end_session` ends it because a point of the agent's fails, `kill_session` for a reason of others; `reload`
    reads the policy anew (for a cause; why the last good one stays, empty where it does not); `renew_egress` has
    another egress process take the place of the one that serves; `moved` counts the restores that have taken the
    session's sockets out of its network."""

    spec: RunSpec
    policy: Callable[[], Policy]
    store: PolicyStore
    ledger: Ledger
    metrics: Metrics
    journal: Journal
    gate: Gate
    link: EgressLink
    offer: Offer
    places: Places
    grants: Grants
    plan: Plan
    launch: LaunchLink
    session_pid: Callable[[], int]
    end_session: Callable[[Point, str], None]
    kill_session: Callable[[str], None]
    reload: Callable[[str], Awaitable[tuple[str, ...]]]
    renew_egress: Callable[[], Awaitable[None]]
    moved: Callable[[], int]


class Companions:
    """Those of one session, started and stopped."""

    def __init__(self, members: Sequence[Companion], journal: Journal) -> None:
        self._members = members
        self._journal = journal
        self._started: list[Companion] = []

    async def start(self) -> None:
        """Start them all; never raises."""
        for member in self._members:
            try:
                await member.start()
            except Exception as error:  # the session does not depend on it; that it is missing is on record
                log.exception("%s not started", type(member).__name__)
                reason = f"{type(member).__name__} could not be started: {type(error).__name__}: {error}"
                self._journal.degraded(Point.AGENT, Level.PARTIAL, reason)
                continue
            self._started.append(member)

    async def stop(self) -> None:
        """Stop those that run, the last one first; never raises."""
        while self._started:
            member = self._started.pop()
            try:
                await member.stop()
            except Exception:  # the end goes on: the log is still to be closed
                log.exception("%s not stopped", type(member).__name__)
