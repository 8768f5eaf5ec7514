"""Bringing one session up, in order, and ending it: log, policy, egress, confinement, proofs, go.

Each step needs the one before; whatever fails raises `Refused` with the contract's exit code, and nothing of the
session has run. `finish` undoes in the opposite order and writes the last events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from agent.channel import Channel, ChannelClosed, Message
from agent.daemon.base import places as layout
from agent.daemon.base.journal import Journal
from agent.daemon.base.refused import Refused
from agent.daemon.base.spec import RunSpec
from agent.daemon.egress.link import EgressFault
from agent.daemon.launch.canary import Canaries
from agent.daemon.launch.decoying import with_decoys
from agent.daemon.launch.launcher import LaunchFailed, LaunchLink, NoWorkdir
from agent.daemon.launch.placeholders import write_placeholders
from agent.daemon.launch.planning import Ground, make_plan, session_details, workdir
from agent.daemon.launch.waiting import Waiting
from agent.daemon.policies.demands import paths_observed, run_levels, with_protection
from agent.daemon.policies.store import policy_sources
from agent.daemon.protection.protecting import Lookout, Protection
from agent.daemon.protection.rounds import Rounds
from agent.daemon.ring.auditing import say_unaudited
from agent.daemon.ring.commanding import command_request
from agent.daemon.ring.limiting import hold_limits
from agent.daemon.running.parts import Parts
from agent.daemon.survival.standing import Estate
from agent.enforce.commands.refusal import Given, refusal_line
from agent.enforce.egress.secrets import Secrets
from agent.exits import Exit
from agent.gate import Gate
from agent.policy.decide import decide
from agent.policy.grants import Grants, path_grants
from agent.policy.model import OnFailure, Policy
from agent.policy.paths import covered
from agent.policy.request import Origin
from agent.record.event import Json, RecordError
from agent.session.levels import Level, Offer, Point, Reached, shortfall
from agent.session.plan import Plan
from agent.session.proofs import PRIVATE
from agent.values import replace

JAIL_PORT = 3128


class BringUp(Parts):
    """One session, from nothing to running. `offer`: what was found that this machine has for its confinement."""

    def __init__(
        self,
        spec: RunSpec,
        egress: Channel,
        on_fault: Callable[[Point, str], None],
        exited: Callable[[int], None] = lambda status: None,
        tell_keeper: Callable[[Message, Sequence[int]], None] = lambda message, fds: None,
        *,
        offer: Offer,
    ) -> None:
        super().__init__(spec, egress, on_fault, exited, tell_keeper, estate=Estate(heirs=offer.guard_replaced))
        self._offer = offer
        self._rounds: Rounds | None = None

    async def start(self, stdio: tuple[int, int, int], launcher: Waiting) -> None:
        """All steps up to the session's first instruction. `launcher`: what becomes the session's init. Raises
        Refused."""
        self._opening.check_own_paths()
        ledger, journal = self._opening.open_log()
        policy = self._opening.load_policy(ledger, journal)
        gate = Gate(self._opening.current, ledger, self._spec.actor)
        link = self._make_link(ledger)
        secrets = self._opening.read_secrets(policy, ledger, journal)
        own_ca = asyncio.create_task(link.start(policy, self._spec.egress_user, self._spec.system_ca, secrets))
        try:
            offer, levels = self._offer, self._levels
            levels.update(run_levels(policy, offer))
            self._announce(levels, journal)
            self.warnings += say_unaudited(policy, offer, levels[Point.PATHS].level, journal)
            self._judge_command(gate, offer)
            ground = self._lay_out(policy, offer, secrets)
            self._announce_protection(ground.protection, levels, journal)
            layout.write_ca_bundle(ground.places, self._spec.system_ca, policy.trust + (await own_ca or ""))
            await self._start_hooks(ground, ledger)
            stderr = Given.of(stdio[2])
            doors = await self._open_doors(ground, gate)
            plan, broken = await self._launch_session(ground, gate, stderr, doors[0], launcher)
            ground = replace(ground, protection=self._announce_moved(ground.protection, levels, journal))
            self._judge_proofs(broken, levels, journal)
            self._record_session(session_details(self._spec, plan, levels, ground), policy, journal)
            await self._go(plan, stdio)
            self._leave(ground, plan, doors, stderr)
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

    def _announce_moved(self, before: Protection, levels: dict[Point, Reached], journal: Journal) -> Protection:
        """What came or went while the mounts were made: what is held now; what of it is known to be open is said."""
        rounds, self._rounds = self._rounds, None
        if rounds is None:
            return before
        weak = tuple(text for text in (*rounds.protection.weak, *rounds.weak) if text not in before.weak)
        self._announce_protection(Protection(weak=weak), levels, journal)
        return rounds.protection

    def _judge_command(self, gate: Gate, offer: Offer) -> None:
        origin = Origin(mechanism="launch", argv=self._spec.command)
        known = command_request(self._spec.command, None, workdir(self._spec), home=self._home(), origin=origin)
        request = replace(known, supervised=offer.supervised)
        if offer.supervised and decide(self._opening.current(), request).permitted:
            return  # asked again, and recorded if need be, when it is executed
        decision = gate.check(request)
        if not decision.permitted:
            raise Refused(Exit.COMMAND_DENIED, refusal_line(decision).removeprefix("parhelia: "))

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
        granted = (*grants.read, *grants.write)
        if spec.workdir is None and not covered(granted, workdir(spec)):  # it may be out of sight
            spec = self._spec = replace(spec, workdir=places.home)
        write_placeholders(policy, secrets, places.home, spec)
        lookout = Lookout(policy, spec, places.home, grants, workdir(spec), mounts=offer.mounts)
        self._rounds = Rounds(lookout.look)
        return Ground(policy, places, grants, offer, secrets, self._rounds.protection)

    async def _open_doors(self, ground: Ground, gate: Gate) -> tuple[int, int | None]:
        """The ports of the proxy and, where the guard connects for the session, of forwarded connections."""
        link = self._link
        if link is None:
            raise Refused(Exit.UNPROTECTED, "the launch came before the proxy")
        if ground.offer.jail is not None:
            self._port = JAIL_PORT
            return JAIL_PORT, None
        from agent.daemon.ring.connecting import make_connector, open_doors

        port, forwarded = await open_doors(link.listen, forwarded=ground.offer.connect)
        if forwarded is not None:
            self._connector = make_connector(self._spec, ground, gate, (port, forwarded), link.token)
        return port, forwarded

    async def _launch_session(
        self, ground: Ground, gate: Gate, stderr: Given, port: int, launcher: Waiting
    ) -> tuple[Plan, list[tuple[str, str]]]:
        """Everything up to the proofs; the plan that was carried out, and what should have failed and did not."""
        if self._link is None or self._rounds is None:
            raise Refused(Exit.UNPROTECTED, "the launch came before the proxy")
        self._watch_jail(ground, gate)
        ring = self._make_ring(ground, gate, stderr)
        limits = hold_limits(self._spec, ground.policy, self._opening.journal, self.warnings)
        self._launch = LaunchLink(
            self._serve,
            ring.supervise,
            ring.trace,
            self._lost,
            limits.place,
            watch_reads=partial(self._watch_reads, gate),
            held=self._rounds.more,
        )
        with Canaries() as canaries:
            plan = make_plan(
                self._spec,
                ground,
                port=port,
                canaries=canaries,
                policy_files=[str(path) for path in policy_sources(ground.policy)],
                processes=limits.by_account,
            )
            plan = with_decoys(plan, self._spec, ground)
            broken = await self._launch.prepare(plan, launcher)
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
        self._open()
        self._created = True
        self._runs(await self._launch.run(plan.command, stdio))

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
