"""Lockdown: a session contained on demand, by an operator or by a detector, with evidence kept.

Rules kept here: egress is cut first, by the policy in force (`agent.policy.lockdown`), and recorded after; a
freeze that does not hold becomes the end of the session; a lockdown is only ever widened until it is lifted, and every
engagement and lifting is an event with its cause, actor and measures; the log is on disk before anything is reported.
Lifting never raises the dead: after a kill there is nothing to lift.
"""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.daemon.control.events import ControlEvents
from agent.daemon.control.freezing import Freezer
from agent.daemon.control.status import Status
from agent.daemon.egress.link import EgressFault
from agent.policy.lockdown import Lock, Measure
from agent.record.event import Action, Event, EventType, Json, RecordError, ResourceType, Result
from agent.session.levels import Level, Point
from agent.values import dataclass, field, replace

if TYPE_CHECKING:  # it is made there
    from agent.daemon.beside.companions import Company

log = logging.getLogger(__name__)

AGENT: Final = "agent"
TAKEN_OVER: Final = "begun before the guard was replaced"
_EVIDENCE_SECONDS: Final = 30.0
_PATIENT_SECONDS: Final = 1.0
_CUT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class State:
    """What contains the session now: nothing, where there is no measure."""

    measure: Measure | None = None
    cause: str = ""
    actor: str = ""
    since: str = ""
    evidence: tuple[str, ...] = field(default=())

    def document(self) -> dict[str, Json]:
        """As `status` shows it."""
        return {
            "measures": [str(measure) for measure in self.measure.all] if self.measure else [],
            "cause": self.cause,
            "actor": self.actor,
            "since": self.since,
            "evidence": [*self.evidence],
        }


class Lockdown:
    """A companion of the session; `engage` and `lift` are called on the guard's loop."""

    def __init__(self, company: Company, freezer: Freezer) -> None:
        self._company = company
        self._freezer = freezer
        self._events = ControlEvents(company.ledger, company.spec.session_id)
        self._status = Status(company)
        self._one = asyncio.Lock()
        self._stopped = self._inherited = False
        self._before = company.store.current.lock
        self._freezer.unheld = self._unheld
        self._ending: asyncio.Task[State] | None = None
        self.state = State()

    async def start(self) -> None:
        """Nothing is begun before it is asked for, but what a guard before this one had begun goes on."""
        async with self._one:
            await self._take_over()

    async def _take_over(self) -> None:
        """Once, before all else: a detector may ask for a lockdown before this is started."""
        lock, self._before = self._before, Lock.NONE
        if lock is Lock.NONE:
            return
        measure = Measure.CUT if lock is Lock.EGRESS else Measure.FREEZE
        self._inherited = True
        self.state = State(measure, TAKEN_OVER, AGENT, _now())
        self._record(AGENT, TAKEN_OVER, measure.all, {})  # it may have died before it could
        if measure is Measure.FREEZE and await self._freezer.freeze(others=False):
            self._company.kill_session("lockdown: the session does not come to rest")

    async def stop(self) -> None:
        """The session is over."""
        self._stopped = True
        await self._freezer.stop()

    @property
    def measure(self) -> Measure | None:
        """What contains the session now."""
        return self.state.measure

    def status(self) -> dict[str, Json]:
        """The agent's state, with what contains the session."""
        return self._status.document(self.state.document())

    async def engage(self, measure: Measure, cause: str, actor: str = AGENT) -> State:
        """Contain the session so, and with whatever holds already. Returns when it holds and is on disk."""
        async with self._one:
            await self._take_over()
            if self.state.measure is not None:
                measure = max(measure, self.state.measure, key=[*Measure].index)
            details: dict[str, Json] = {}
            if self.state.measure is None:
                details["cut_connections"] = await self._close(Lock.EGRESS)
            if measure is not Measure.CUT:
                left = await self._freeze()
                details["frozen"] = len(self._freezer.processes()) - len(left)
                if left:
                    details["unfrozen"] = len(left)
                    measure = Measure.KILL  # what cannot be held is ended
            name = f"evidence-{self._company.ledger.seq:012d}-{datetime.now(tz=UTC):%Y%m%dT%H%M%S}"
            self.state = State(measure, cause, actor, _now(), (*self.state.evidence, name))
            self._record(actor, cause, measure.all, {**details, "evidence": name})
            await self._keep(name)
            if measure is Measure.KILL and not self._stopped:
                self._company.kill_session(f"lockdown: {cause}")
            return self.state

    async def lift(self, cause: str, actor: str) -> bool:
        """Let the session go on, under the policy as it is now; False where there is nothing to lift."""
        async with self._one:
            await self._take_over()
            if self.state.measure in (None, Measure.KILL):
                return False
            lifted: list[Json] = [str(measure) for measure in self.state.measure.all]
            await self._close(Lock.NONE)
            if self._freezer.frozen or self._inherited:  # the guard before may have died in the middle of a freeze
                await self._freezer.thaw()
            self._inherited = False
            self.state = replace(State(), evidence=self.state.evidence)
            self._record(actor, cause, (), {"lifted": lifted})
            return True

    def _unheld(self) -> None:
        """What was held goes on: the kernel sends SIGCONT for it."""
        if self._ending is None and not self._stopped:
            ended = self.engage(Measure.KILL, "the freeze did not hold: what was stopped went on by itself")
            self._ending = asyncio.get_running_loop().create_task(ended)

    async def _freeze(self) -> list[int]:
        """What still runs. Commands are refused only once their processes are held, for those that are later let go on
        must not find that one of theirs had failed; where they do not come to rest at once, that does not matter."""
        left = await self._freezer.freeze(_PATIENT_SECONDS)
        await self._close(Lock.ALL)
        return await self._freezer.freeze() if left else left

    async def _close(self, lock: Lock) -> int:
        """From here on every enforcement point obeys it; how many connections were cut. An egress process that does not
        say in time that it has followed is not to be trusted with any."""
        policy = self._company.store.lock(lock)
        try:
            followed = self._company.link.follow(policy)
            return 0 if followed is None else await asyncio.wait_for(followed, _CUT_SECONDS)
        except EgressFault:  # it is gone, and another one starts with the policy in force
            return 0
        except TimeoutError:
            self._company.end_session(Point.EGRESS, "the egress process did not follow a lockdown")
            return 0

    def _record(self, actor: str, cause: str, measures: tuple[Measure, ...], details: dict[str, Json]) -> None:
        try:
            self._events.lockdown(actor, cause, [str(measure) for measure in measures], details)
            self._company.ledger.flush()
        except RecordError as error:
            log.error("a lockdown holds, but its record is not on disk: %s", error)

    async def _keep(self, name: str) -> None:
        from agent.daemon.control import evidence  # with what it reads processes by, which no start should wait for

        company = self._company
        try:
            async with asyncio.timeout(_EVIDENCE_SECONDS):
                await asyncio.to_thread(
                    evidence.keep,
                    Path(company.spec.audit_dir, name),
                    processes=self._freezer.processes(),
                    status=self.status(),
                    policy_dirs=company.spec.policy_dirs,
                    audit_dir=company.spec.audit_dir,
                    redact=self._redact,
                )
        except (OSError, TimeoutError) as error:
            company.journal.degraded(Point.AGENT, Level.PARTIAL, f"evidence could not be kept: {error or 'too slow'}")

    def _redact(self, details: dict[str, Json]) -> dict[str, Json]:
        event = Event(
            EventType.AGENT_LOCKDOWN, AGENT, Action.READ, "", ResourceType.SESSION, Result.SUCCESS, None, details
        )
        return dict(self._company.ledger.redacted(event).details)


def _now() -> str:
    return datetime.now(tz=UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def freezer_of(company: Company) -> Freezer:
    """The one for this session: below its init, and by account where the session has one of its own."""
    spec = company.spec
    account = None if spec.egress_user is None else spec.session_user.uid
    return Freezer(lambda: company.launch.init, account=account, strangers=_strangers)


def _strangers(account: int) -> list[int]:
    """Processes of the account that are no part of this run: another session's."""
    from agent.session.offspring import foreign

    return foreign(os.getppid(), account)
