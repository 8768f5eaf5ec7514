"""The parts of a running session's guard, however it came to run: brought up (`agent.daemon.running.bring_up`), or
taken over from a guard that died (`agent.daemon.running.taking_over`); and their end, in the opposite order.

Rules kept here: one of each, made once; `finish` writes the last events whatever there is of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from agent.channel import Channel, Message
from agent.daemon.base import places as layout
from agent.daemon.base.journal import Journal
from agent.daemon.base.refused import Refused
from agent.daemon.base.spec import RunSpec
from agent.daemon.beside.companions import Companions, Company
from agent.daemon.egress.attribution import Attribution
from agent.daemon.egress.link import EgressLink
from agent.daemon.launch.launcher import LaunchFailed, LaunchLink, Started
from agent.daemon.launch.planning import PUBLIC, Ground
from agent.daemon.policies.reload import Reloading, Running
from agent.daemon.ring.auditing import make_path_audit, make_read_audit
from agent.daemon.ring.commanding import command_request
from agent.daemon.ring.supervising import Ring
from agent.daemon.running.company import companions
from agent.daemon.running.egress_changes import EgressChanges
from agent.daemon.running.opening import Opening
from agent.daemon.survival.standing import Counts, Estate, Launched, Standing
from agent.enforce.commands.executable import Executables
from agent.enforce.commands.hook_server import HookServer
from agent.enforce.commands.refusal import Given
from agent.enforce.notify_loop import Handler
from agent.enforce.paths.audit import PathAudit
from agent.enforce.paths.reads import ReadAudit
from agent.exits import Exit
from agent.gate import Gate
from agent.policy.lockdown import Lock
from agent.policy.request import Origin
from agent.record.ledger import Ledger
from agent.session.doors import Door
from agent.session.levels import Level, Point, Reached
from agent.session.plan import Plan

if TYPE_CHECKING:  # not everywhere is there one
    from agent.daemon.survival.reopening import Reopening
    from agent.enforce.egress.connect import Connector

log = logging.getLogger(__name__)

NORMAL_END = "the session ended"
EGRESS_STOP_SECONDS = 3.0
ONLY_PROXY = "restored: of the doors of the session's network only the proxy's came back"


class Parts:
    """Those of one session. `on_fault` is called when a part of the agent fails, with the
    point it served and the reason; the caller then ends the session. `exited` gets the wait status of the session's
    first command. `estate`: what is left for another guard, and what one before this left."""

    def __init__(
        self,
        spec: RunSpec,
        egress: Channel,
        on_fault: Callable[[Point, str], None],
        exited: Callable[[int], None] = lambda status: None,
        tell_keeper: Callable[[Message, Sequence[int]], None] = lambda message, fds: None,
        *,
        estate: Estate,
    ) -> None:
        self._spec = spec
        self._egress_channel = egress
        self._on_fault = on_fault
        self._exited = exited
        self._tell_keeper = tell_keeper
        self._estate = estate
        self._opening = Opening(spec, self._estate.unwritten)
        self._link: EgressLink | None = None
        self._attribution: Attribution | None = None
        self._places: layout.Places | None = None
        self._launch: LaunchLink | None = None
        self._first: Started | None = None
        self._ring: Ring | None = None
        self._connector: Connector | None = None
        self._reopening: Reopening | None = None
        self._port = 0
        self._path_audit: PathAudit | None = None
        self._read_audit: ReadAudit | None = None
        self._hooks: HookServer | None = None
        self._reloading: Reloading | None = None
        self._companions: Companions | None = None
        self._levels: dict[Point, Reached] = {}
        self._changes = EgressChanges(self._opening, self._levels, tell_keeper)
        self._created = False
        self.cause = NORMAL_END
        self.warnings = self._opening.warnings

    @property
    def pid(self) -> int:
        """The session's first command, 0 before the launch."""
        return 0 if self._first is None else self._first.pid

    async def finish(self, status: int | None, reason: str) -> None:
        """The last events, the last numbers, and the clean-up."""
        self._estate.stop()
        if self._companions is not None:
            await self._companions.stop()
        if self._reloading is not None:
            await self._reloading.stop()
        if self._hooks is not None:
            await self._hooks.stop()
        if self._ring is not None:
            self._ring.stop()
        if self._read_audit is not None:
            self._read_audit.stop()
        if self._connector is not None:
            self._connector.close()
        if self._link is not None:
            await self._link.stop(EGRESS_STOP_SECONDS)
        if self._attribution is not None:
            self._attribution.stop()
        if self._opening.journal is not None and self._created and self._link is not None:
            self._opening.journal.session_ended(status, reason, self._link.bytes_up, self._link.bytes_down)
        self._opening.close(reason)
        await self._opening.push_last()

    async def _start_companions(self, ground: Ground, plan: Plan, gate: Gate, ledger: Ledger, journal: Journal) -> None:
        """From here on the policy may change."""
        store, link, metrics, launch = self._opening.store, self._link, self._opening.metrics, self._launch
        if store is None or link is None or launch is None:
            raise Refused(Exit.UNPROTECTED, "the session came before its policy")
        running = Running(self._spec, ground.policy, ground.offer, ledger, metrics, journal, link.follow)
        self._reloading = Reloading(store, running)
        company = Company(
            spec=self._spec,
            policy=self._opening.current,
            store=store,
            ledger=ledger,
            metrics=metrics,
            journal=journal,
            gate=gate,
            link=link,
            offer=ground.offer,
            places=ground.places,
            grants=ground.grants,
            plan=plan,
            launch=launch,
            session_pid=lambda: self.pid,
            end_session=self._on_fault,
            kill_session=self.end,
            reload=self._reloading.ask,
            renew_egress=partial(self._renew_egress, link, launch, journal),
            moved=(lambda: 0) if self._reopening is None else self._reopening.moved,
        )
        self._companions = Companions(companions(company), journal)
        await self._companions.start()

    async def _renew_egress(self, link: EgressLink, launch: LaunchLink, journal: Journal) -> None:
        """Another boot: what this one knows by heart is another copy's as well."""
        self._estate.count_now()
        link.renew()
        if self._connector is not None:
            self._connector.renew(link.token)
        if self._reopening is not None:
            try:
                missing = await self._reopening.renew(launch, self._port)
            except LaunchFailed as error:  # nothing reaches the egress process; asked again where told of a restore
                journal.degraded(Point.EGRESS, Level.OFF, f"restored: {error}")
            except OSError as error:
                self.end(f"restored: {error}")
            else:
                if missing:
                    journal.degraded(Point.EGRESS, self._levels[Point.EGRESS].level, f"{ONLY_PROXY}: {missing}")
        self._tell_keeper({"type": "egress_lost", "number": link.generation}, ())

    def _trust(self, certificate: str) -> None:
        """The session's programs find this interception CA (PEM) in the place of the one before. Raises OSError."""
        if self._places is not None:
            trusted = self._opening.current().trust + certificate
            layout.write_ca_bundle(self._places, self._spec.system_ca, trusted)

    def reload(self) -> None:
        """Read the policy again, now."""
        if self._reloading is not None:
            self._reloading.ask()

    @property
    def held(self) -> bool:
        """True while a lockdown holds the session still."""
        return self._opening.store is not None and self._opening.store.current.lock is Lock.ALL

    def end(self, reason: str) -> None:
        """End the session though no part of the agent has failed."""
        self.cause = reason
        self._on_fault(Point.AGENT, reason)

    def failed(self, point: Point, reason: str) -> None:
        """Record, once, why the session ends before its time."""
        if self.cause == NORMAL_END and self._opening.journal is not None:
            self._opening.journal.degraded(point, Level.OFF, reason)
        self.cause = reason if self.cause == NORMAL_END else self.cause

    def replace_egress(self, channel: Channel, doors: list[str], listeners: list[int]) -> None:
        """The keeper has started another egress process; it takes over the listeners."""
        if self._link is not None:
            self._link.replace(channel, doors, listeners)

    def _make_link(self, ledger: Ledger) -> EgressLink:
        attribution = self._make_attribution()
        link = self._changes.make_link(self._spec, self._egress_channel, ledger, attribution, self._on_fault)
        self._link = link
        link.on_renewed = self._trust
        return link

    def _make_attribution(self) -> Attribution:
        user = self._spec.session_user
        uid, gid = (None, None) if self._spec.egress_user is None else (user.uid, user.gid)
        self._attribution = Attribution(lambda: self.pid, uid, gid, {user.uid: user.name})
        return self._attribution

    def _home(self) -> str:
        return self._spec.session_user.home if self._places is None else self._places.home

    async def _start_hooks(self, ground: Ground, ledger: Ledger) -> None:
        observe = partial(self._opening.metrics.observe_decision, "hook")
        gate = Gate(self._opening.current, ledger, self._spec.actor, observe)
        self._hooks = HookServer(
            ground.places.hook_socket,
            gate,
            home=ground.places.home,
            tmpdir=ground.places.tmpdir,
            supervised=ground.offer.supervised,
            record=gate.deny,
            behind=lambda pid: pid if self._connector is None else self._connector.behind(pid),
        )
        await self._hooks.start()

    def _open(self) -> None:
        """The session starts, or goes on: from here on its calls may be permitted."""
        if self._link is not None:
            self._link.endure()
        for answering in (self._connector, self._path_audit, self._read_audit):
            if answering is not None:
                answering.open()

    def _runs(self, first: Started) -> None:
        """This is the session's first command; its end is the session's."""
        self._created = True
        self._first = first
        first.status.add_done_callback(lambda status: self._exited(status.result()))

    def _leave(self, ground: Ground, plan: Plan, doors: tuple[int, int | None], stderr: Given) -> None:
        """From here on another guard can take this one's place, where there can be one."""
        launch, link, store, ring = self._launch, self._link, self._opening.store, self._ring
        if launch is None or link is None or store is None or ring is None or not self._estate.heirs:
            return
        launched = Launched(launch.init, plan.pids is not None, launch.first, self.pid)

        def leave() -> None:
            standing = Standing(ground, plan, self._levels, *doors, launched, stderr, store.state, link.state)
            try:
                self._estate.leave(standing)
            except OSError:
                log.exception("a guard that took this one's place would not know the policy: none will")
                self._tell_keeper({"type": "keep", "names": []}, [])

        leave()
        link.on_follow = leave
        self._estate.count(self._counts)
        reads = {} if self._read_audit is None else {"reads": self._read_audit.group}
        self._estate.hand_over(self._tell_keeper, {**ring.held, **reads, "stderr": stderr.copy})

    def _counts(self) -> Counts:
        ledger, link = self._opening.ledger, self._link
        if ledger is None or link is None:
            return Counts()
        boot, directory, seq, numbers = ledger.counts()
        counted = link.counted
        return Counts(boot, str(directory), seq, numbers, counted.up, counted.down, dict(counted.accounts))

    def _lost(self) -> None:
        """The init is gone, and all that it started goes with it; after the first command's end that is as it must."""
        if self._first is None or not self._first.status.done():
            self._on_fault(Point.AGENT, "the session's init died")

    async def _serve(self, doors: list[Door], listeners: list[int]) -> None:
        """The jail's doors. Raises EgressFault."""
        if self._link is None:
            raise Refused(Exit.UNPROTECTED, "the launch came before the proxy")
        if self._reopening is not None:
            self._reopening.watch(doors, listeners)
        await self._link.listen(doors, listeners)

    def _watch_jail(self, ground: Ground, gate: Gate) -> None:
        """Where execs are traced, a restore takes sockets out of the jail."""
        if ground.offer.trace is not None and ground.offer.jail is not None:
            from agent.daemon.survival.reopening import Reopening
            from agent.enforce.egress.left_behind import LeftBehind

            left = LeftBehind(gate.deny, None if self._spec.egress_user is None else self._spec.session_user.uid)
            self._reopening = Reopening(left, self._hold_anew)

    def _hold_anew(self, doors: list[str], listeners: list[int]) -> None:
        self._tell_keeper({"type": "hold", "doors": doors, "anew": True}, listeners)

    def _make_ring(self, ground: Ground, gate: Gate, stderr: Given, *, successor: bool = False) -> Ring:
        if self._opening.ledger is None:
            raise Refused(Exit.UNPROTECTED, "the supervisor needs the log")
        by_exec = Origin(mechanism="exec")
        self._ring = Ring(
            self._spec,
            gate,
            lambda argv, exe, cwd, env: command_request(argv, exe, cwd, home=self._home(), origin=by_exec, env=env),
            post=self._opening.ledger.post,
            observe=partial(self._opening.metrics.observe_decision, "exec"),
            on_fault=self._on_fault,
            stderr=stderr,
            estate=self._estate,
            successor=successor,
            traced=ground.offer.trace is not None,
            others=self._others(ground, gate),
            traced_others={} if self._reopening is None else self._reopening.handlers(),
            in_force=self._opening.current,
            executables=Executables(ground.places.home, ground.places.tmpdir, (PUBLIC, ground.places.public)),
        )
        return self._ring

    def _watch_reads(self, gate: Gate, group: int, *, successor: bool = False) -> None:
        """Answer for the session's decoys."""
        if self._places is None:
            raise Refused(Exit.UNPROTECTED, "the decoys came before the session's directories")
        loop = asyncio.get_running_loop()

        def ended(reason: str) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._on_fault, Point.PATHS, f"denied reads cannot be recorded: {reason}")

        self._read_audit = make_read_audit(group, gate, self._spec, self._places, ended, successor=successor)

    def _others(self, ground: Ground, gate: Gate) -> dict[int, Handler]:
        """Who answers for notified calls other than execs."""
        self._path_audit = make_path_audit(self._spec, ground, gate, self._opening.current)
        connects = {} if self._connector is None else self._connector.handlers()
        writes = {} if self._path_audit is None else self._path_audit.handlers()
        return {**connects, **writes}
