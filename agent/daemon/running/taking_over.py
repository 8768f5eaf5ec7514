"""Taking a running session over from a guard that died: with its log, its policy, its secrets, its numbers.

What the session asked meanwhile waits: its notified calls in the kernel, its connections in the queues of the doors.
Rules kept here: nothing is answered before the log is open and the policy of before is in force; the policy's files are
not read again for it (whether they have changed is looked at afterwards, as ever); what cannot be taken over whole is
the end of the session. Not taken over, and said in docs/architecture.md: what only the dead guard's memory knew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agent.channel import Channel
from agent.daemon.control.events import ControlEvents
from agent.daemon.control.execs import hang_up_left
from agent.daemon.egress.peer import Counted, record_last_words
from agent.daemon.launch.launcher import LaunchLink
from agent.daemon.ring.limiting import placing
from agent.daemon.running.parts import Parts
from agent.enforce.commands.refusal import Given
from agent.gate import Gate
from agent.session.levels import Level, Point

DIED: Final = "the guard died; what the session asked waited for another one"
ENDED_WITH_IT: Final = "the egress process ended with the guard"
TAKEN: Final = "another guard has taken its place"


class TakeOver(Parts):
    """One session, from one guard to the next."""

    async def resume(self, init: Channel, held: Mapping[str, int], doors: list[str], listeners: list[int]) -> None:
        """All steps until the session goes on. `init`: to its init. `held`: what the guard before had the keeper hold,
        by name. `doors`, `listeners`: what the egress process is to serve. Raises LookupError, LaunchFailed,
        RecordError, OSError: then the session must end."""
        standing, counts = self._estate.standing, self._estate.counts
        ground, plan = standing.ground, standing.plan
        self._places = ground.places
        self._levels.update(standing.levels)
        ledger, journal = await self._opening.reopen(standing.store, counts, ground.secrets)
        record_last_words(held["last words"], ledger, self._spec.actor)
        journal.degraded(Point.AGENT, Level.OFF, DIED)
        journal.degraded(Point.EGRESS, Level.OFF, ENDED_WITH_IT)
        for point, reached in self._levels.items():
            self._opening.metrics.set_level(str(point), str(Level.OFF if point is Point.EGRESS else reached.level))
        gate = Gate(self._opening.current, ledger, self._spec.actor)
        link = self._make_link(ledger)
        counted = Counted(counts.up, counts.down, dict(counts.accounts))
        link.resume(standing.link, counted, self._opening.current(), ground.secrets)
        self._port = standing.port
        self._watch_jail(ground, gate)
        if self._reopening is not None:
            self._reopening.inherit(doors, listeners)
        link.serve(doors, listeners)
        if standing.forwarded is not None:
            from agent.daemon.ring.connecting import make_connector

            self._connector = make_connector(self._spec, ground, gate, (standing.port, standing.forwarded), link.token)
        await self._start_hooks(ground, ledger)
        stderr = Given(standing.stderr.identity, held.get("stderr"))
        ring = self._make_ring(ground, gate, stderr, successor=True)
        place = placing(self._spec)
        self._launch = LaunchLink(self._serve, ring.supervise, ring.trace, self._lost, place)
        was = standing.launched
        if "tracer" in held:
            ring.follow(held["tracer"])  # the init's own words stand still until they are decided
        self._runs(await self._launch.adopt(init, was.init, was.first, was.pid, own_pids=was.own_pids))
        if "reads" in held:
            self._watch_reads(gate, held["reads"], successor=True)
        self._open()
        if "listener" in held:
            await ring.supervise(held["listener"])
        if self._launch.left:
            hang_up_left(self._launch.left, ControlEvents(ledger, self._spec.session_id))
        self._leave(ground, plan, (standing.port, standing.forwarded), stderr)
        self._opening.metrics.restarted("guard")
        journal.recovered(Point.AGENT, self._levels[Point.AGENT].level, "guard", TAKEN)
        await self._start_companions(ground, plan, gate, ledger, journal)
