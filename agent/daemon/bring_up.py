"""Bringing one session up, in order, and ending it: policy, log, egress, confinement, proofs, go.

Each step needs the one before; whatever fails raises `Refused` with the contract's exit code, and nothing of the
session has run. `finish` undoes in the opposite order and writes the last events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from agent.channel import Channel, ChannelClosed, Message
from agent.daemon import places as layout
from agent.daemon.attribution import Attribution
from agent.daemon.auditing import make_path_audit, say_unaudited
from agent.daemon.canary import Canaries
from agent.daemon.commanding import command_request
from agent.daemon.companions import Companions, Company, companions
from agent.daemon.connecting import make_connector, open_doors
from agent.daemon.demands import paths_observed, run_levels, with_protection
from agent.daemon.egress_link import EgressFault, EgressLink
from agent.daemon.journal import Journal
from agent.daemon.launcher import LaunchFailed, LaunchLink, NoWorkdir, Started
from agent.daemon.opening import Opening, Refused
from agent.daemon.placeholders import write_placeholders
from agent.daemon.planning import Ground, make_plan, session_details, workdir
from agent.daemon.policy_store import policy_sources
from agent.daemon.protecting import Protection, protect
from agent.daemon.reload import Reloading, Running
from agent.daemon.spec import RunSpec
from agent.daemon.supervising import Ring
from agent.enforce.commands.executable import Executables
from agent.enforce.commands.hook_server import HookServer
from agent.enforce.commands.refusal import refusal_line
from agent.enforce.egress.connect import Connector
from agent.enforce.egress.dialling import Doors
from agent.enforce.egress.secrets import Secrets
from agent.enforce.notify_loop import Handler
from agent.enforce.paths.audit import PathAudit
from agent.exits import Exit
from agent.gate import Gate
from agent.policy.decide import decide
from agent.policy.grants import Grants, path_grants
from agent.policy.model import OnFailure, Policy
from agent.policy.request import Origin
from agent.record.event import Json, RecordError
from agent.record.ledger import Ledger
from agent.session.levels import Level, Offer, Point, Reached, shortfall
from agent.session.plan import Plan
from agent.session.probe import probe
from agent.session.proofs import PRIVATE

JAIL_PORT = 3128
NORMAL_END = "the session ended"
EGRESS_STOP_SECONDS = 3.0


class BringUp:
    """One session, from nothing to running and back. `on_fault` is called when a part of the agent fails, with the
    point it served and the reason; the caller then ends the session. `exited` gets the wait status of the session's
    first command."""

    def __init__(
        self,
        spec: RunSpec,
        egress: Channel,
        on_fault: Callable[[Point, str], None],
        exited: Callable[[int], None] = lambda status: None,
        tell_keeper: Callable[[Message, Sequence[int]], None] = lambda message, fds: None,
    ) -> None:
        self._spec = spec
        self._egress_channel = egress
        self._on_fault = on_fault
        self._exited = exited
        self._tell_keeper = tell_keeper
        self._opening = Opening(spec)
        self._link: EgressLink | None = None
        self._attribution: Attribution | None = None
        self._places: layout.Places | None = None
        self._launch: LaunchLink | None = None
        self._first: Started | None = None
        self._ring: Ring | None = None
        self._connector: Connector | None = None
        self._path_audit: PathAudit | None = None
        self._hooks: HookServer | None = None
        self._reloading: Reloading | None = None
        self._companions: Companions | None = None
        self._levels: dict[Point, Reached] = {}
        self._created = False
        self.cause = NORMAL_END
        self.warnings = self._opening.warnings

    @property
    def pid(self) -> int:
        """The session's first command, 0 before the launch."""
        return 0 if self._first is None else self._first.pid

    @property
    def traces(self) -> bool:
        """True while the session's processes are traced: waiting for them is then the tracer's."""
        return self._ring is not None and self._ring.traces

    async def start(self, stdio: tuple[int, int, int], keeper: int) -> None:
        """All steps up to the session's first instruction. `keeper`: the other end of a channel of the keeper's, for
        the session's init. Raises Refused."""
        self._opening.check_own_paths()
        ledger, journal = self._opening.open_log()
        policy = self._opening.load_policy(ledger, journal)
        gate = Gate(self._opening.current, ledger, self._spec.actor)
        self._link = self._make_link(ledger)
        secrets = self._opening.read_secrets(policy, ledger, journal)
        own_ca = asyncio.create_task(self._link.start(policy, self._spec.egress_user, self._spec.system_ca, secrets))
        try:
            offer = probe()
            levels = self._levels = run_levels(policy, offer)
            self._announce(levels, journal)
            self.warnings += say_unaudited(policy, offer, levels[Point.PATHS].level, journal)
            self._judge_command(gate, offer)
            ground = self._lay_out(policy, offer, secrets)
            self._announce_protection(ground.protection, levels, journal)
            layout.write_ca_bundle(ground.places, self._spec.system_ca, policy.trust + (await own_ca or ""))
            await self._start_hooks(ground, ledger)
            plan, broken = await self._launch_session(ground, gate, stdio, keeper)
            self._judge_proofs(broken, levels, journal)
            self._record_session(session_details(self._spec, plan, levels, ground), policy, journal)
            await self._go(plan, stdio)
            await self._start_companions(ground, plan, gate, ledger, journal)
        except layout.Exposed as error:
            raise Refused(Exit.POLICY_INVALID, str(error)) from error
        except NoWorkdir as error:
            raise Refused(Exit.USAGE, str(error)) from error
        except (EgressFault, LaunchFailed, ChannelClosed, RecordError) as error:
            raise Refused(Exit.UNPROTECTED, str(error)) from error
        except OSError as error:
            raise Refused(Exit.UNPROTECTED, f"the session could not be prepared: {error}") from error
        finally:
            own_ca.cancel()

    async def finish(self, status: int | None, reason: str) -> None:
        """The last events, the last numbers, and the clean-up."""
        if self._companions is not None:
            await self._companions.stop()
        if self._reloading is not None:
            await self._reloading.stop()
        if self._hooks is not None:
            await self._hooks.stop()
        if self._ring is not None:
            self._ring.stop()
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
            kill_session=self._kill,
            reload=self._reloading.ask,
        )
        self._companions = Companions(companions(company), journal)
        await self._companions.start()

    def reload(self) -> None:
        """Read the policy again, now."""
        if self._reloading is not None:
            self._reloading.ask()

    def _kill(self, reason: str) -> None:
        """End the session though no part of the agent has failed."""
        self.cause = reason
        self._on_fault(Point.AGENT, reason)

    def failed(self, point: Point, reason: str) -> None:
        """Record, once, why the session ends before its time."""
        if self.cause == NORMAL_END and self._opening.journal is not None:
            self._opening.journal.degraded(point, Level.OFF, reason)
        self.cause = reason if self.cause == NORMAL_END else self.cause

    def _make_link(self, ledger: Ledger) -> EgressLink:
        return EgressLink(
            self._egress_channel,
            ledger,
            self._opening.metrics,
            self._spec.actor,
            on_fault=lambda reason: self._on_fault(Point.EGRESS, reason),
            attribution=self._make_attribution(),
            on_lost=self._egress_lost,
            on_back=self._egress_back,
            hold=lambda doors, listeners: self._tell_keeper({"type": "hold", "doors": doors}, listeners),
        )

    def replace_egress(self, channel: Channel, doors: list[str], listeners: list[int]) -> None:
        """The keeper has started another egress process; it takes over the listeners."""
        if self._link is not None:
            self._link.replace(channel, doors, listeners)

    def _egress_lost(self, reason: str) -> None:
        """Until another one serves, no connection is made, and nothing is allowed."""
        if self._link is not None and self._opening.journal is not None:
            self._opening.metrics.set_level(str(Point.EGRESS), str(Level.OFF))
            self._opening.journal.degraded(Point.EGRESS, Level.OFF, reason)
            self._tell_keeper({"type": "egress_lost", "number": self._link.generation}, ())

    def _egress_back(self) -> None:
        level = self._levels[Point.EGRESS].level
        self._opening.metrics.set_level(str(Point.EGRESS), str(level))
        self._opening.metrics.restarted("egress")
        if self._opening.journal is not None:
            self._opening.journal.recovered(Point.EGRESS, level, "egress", "another egress process serves")

    def _make_attribution(self) -> Attribution:
        user = self._spec.session_user
        uid, gid = (None, None) if self._spec.egress_user is None else (user.uid, user.gid)
        self._attribution = Attribution(lambda: self.pid, uid, gid, {user.uid: user.name})
        return self._attribution

    def _announce(self, levels: dict[Point, Reached], journal: Journal) -> None:
        """Every level below ENFORCED is said: metric, event, terminal; and it may be the end (--require contained)."""
        for point, found in levels.items():
            self._opening.metrics.set_level(str(point), str(found.level))
            if found.level is not Level.ENFORCED:
                journal.degraded(point, found.level, found.why)
                self.warnings.append(f"{point} is {found.level}: {found.why}")
        missing = shortfall(levels)
        if missing and self._spec.require_contained:
            words = "; ".join(f"{point} is {levels[point].level}: {levels[point].why}" for point in missing)
            raise Refused(Exit.UNPROTECTED, f"--require contained: {words}")

    def _announce_protection(self, protection: Protection, levels: dict[Point, Reached], journal: Journal) -> None:
        """Protected places that nothing holds lower the level; it is known only when they have been looked for."""
        reached = with_protection(levels[Point.PATHS], protection.weak)
        if reached is not levels[Point.PATHS]:
            levels[Point.PATHS] = reached
            self._announce({Point.PATHS: reached}, journal)

    def _judge_command(self, gate: Gate, offer: Offer) -> None:
        origin = Origin(mechanism="launch", argv=self._spec.command)
        known = command_request(self._spec.command, None, workdir(self._spec), home=self._home(), origin=origin)
        request = replace(known, supervised=offer.supervised)
        if offer.supervised and decide(self._opening.current(), request).permitted:
            return  # asked again, and recorded if need be, when it is executed
        decision = gate.check(request)
        if not decision.permitted:
            raise Refused(Exit.COMMAND_DENIED, refusal_line(decision).removeprefix("parhelia: "))

    def _home(self) -> str:
        return self._spec.session_user.home if self._places is None else self._places.home

    def _lay_out(self, policy: Policy, offer: Offer, secrets: Secrets) -> Ground:
        spec = self._spec
        places = self._places = layout.lay_out(spec)
        grants = path_grants(policy, home=places.home, tmpdir=places.tmpdir)
        if paths_observed(policy):
            grants = Grants(read=(), write=("/",), agent_files=grants.agent_files)
        places = layout.set_canary(places, grants, spec)
        self._places = places
        if not offer.mounts:
            layout.publish_hook(places, spec)
        self.warnings += [f"paths.read: {root} does not exist here" for root in layout.make_roots(grants, spec)]
        if self._spec.workdir is not None and not Path(self._spec.workdir).is_dir():
            raise NoWorkdir(f"--workdir {self._spec.workdir}: no such directory")
        write_placeholders(policy, secrets, places.home, spec)
        protection = protect(policy, spec, places.home, grants, workdir(spec), mounts=offer.mounts)
        return Ground(policy, places, grants, offer, secrets, protection)

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

    async def _launch_session(
        self, ground: Ground, gate: Gate, stdio: tuple[int, int, int], keeper: int
    ) -> tuple[Plan, list[tuple[str, str]]]:
        """Everything up to the proofs; the plan that was carried out, and what should have failed and did not."""
        link = self._link
        if link is None:
            raise Refused(Exit.UNPROTECTED, "the launch came before the proxy")

        port, forwarded = JAIL_PORT, None
        if ground.offer.jail is None:
            port, forwarded = await open_doors(link.listen, forwarded=ground.offer.connect)
        if forwarded is not None:
            self._connector = make_connector(self._spec, ground, gate, Doors(port, forwarded, link.token))

        ring = self._make_ring(ground, gate, stdio[2])
        self._launch = LaunchLink(link.listen, ring.supervise, ring.trace, self._lost)
        with Canaries() as canaries:
            plan = make_plan(
                self._spec,
                ground,
                port=port,
                canaries=canaries,
                policy_files=[str(path) for path in policy_sources(ground.policy)],
            )
            broken = await self._launch.prepare(plan, keeper)
            return plan, [*((str(Point.EGRESS), text) for text in canaries.reached()), *broken]

    def _record_session(self, details: dict[str, Json], policy: Policy, journal: Journal) -> None:
        try:
            journal.session_created(details)
        except RecordError as error:
            if policy.audit.on_failure is not OnFailure.CONTINUE:
                raise
            self.warnings.append(f"the session starts unrecorded (audit.on_failure: continue): {error}")

    async def _go(self, plan: Plan, stdio: tuple[int, int, int]) -> None:
        if self._launch is None:
            raise Refused(Exit.UNPROTECTED, "the session came before its launch")
        self._created = True
        if self._link is not None:
            self._link.endure()
        for answering in (self._connector, self._path_audit):
            if answering is not None:
                answering.open()
        self._first = await self._launch.run(plan.command, stdio)
        self._first.status.add_done_callback(lambda status: self._exited(status.result()))

    def _lost(self) -> None:
        if self._first is None or not self._first.status.done():  # after the first command's end that is as it must
            self._on_fault(Point.AGENT, "the session's init died")

    def _make_ring(self, ground: Ground, gate: Gate, stderr: int) -> Ring:
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
            traced=ground.offer.trace is not None,
            others=self._others(ground, gate),
            in_force=self._opening.current,
            executables=Executables(ground.places.home, ground.places.tmpdir),
        )
        return self._ring

    def _others(self, ground: Ground, gate: Gate) -> dict[int, Handler]:
        """Who answers for notified calls other than execs."""
        self._path_audit = make_path_audit(self._spec, ground, gate, self._opening.current)
        connects = {} if self._connector is None else self._connector.handlers()
        writes = {} if self._path_audit is None else self._path_audit.handlers()
        return {**connects, **writes}

    def _judge_proofs(self, broken: list[tuple[str, str]], levels: dict[Point, Reached], journal: Journal) -> None:
        """An attempt that should have failed and did not: the level falls, and what is private must stay private."""
        for what, text in broken:
            if what == PRIVATE:
                raise Refused(Exit.POLICY_INVALID, text)
            point = Point(what)
            levels[point] = Reached(Level.OFF, text)
            self.warnings.append(f"{point} is off: {text}")
            self._opening.metrics.set_level(what, str(Level.OFF))
            journal.degraded(point, Level.OFF, text)
            if self._spec.require_contained:
                raise Refused(Exit.UNPROTECTED, f"--require contained: {text}")
