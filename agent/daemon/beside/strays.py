"""Processes found beside the session that its confinement does not hold: `docker exec`, a platform's exec, a sidecar.

Whoever starts a program in the container without the agent (`parhelia-agent exec`) starts it outside of every wall: it
has the container's network and files. The agent does not hinder that, it says so: `agent.degraded`, once for each such
process. Rules kept here: nothing is ever signalled or stopped; a process is held to be inside by what the kernel says
of it (no_new_privs and as many seccomp filters as the session's first process has: both are inherited and cannot be
shed), never by its name or parent; it is told at the second look, so that what only starts is not taken for a stray; a
look is bounded however many processes there are. What lives for less than two looks is not seen.

What counts as beside the session: in a container (a PID namespace of its own) every process; on a machine, where most
processes are none of the agent's business, those of the session's account, if it is an account of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from agent.daemon.base import processes
from agent.daemon.base.processes import Standing
from agent.record.event import Action, Event, EventType, Json, RecordError, ResourceType, Result
from agent.session.levels import Point
from agent.values import dataclass, field

if TYPE_CHECKING:
    from agent.daemon.beside.companions import Company

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0
MAX_LOOKS: Final = 2000
"""Processes that one look asks /proc about."""
AGAIN: Final = 200
"""Known ones among them, in turn: their number may have become another process's."""
MAX_TOLD: Final = 256
_MACHINE: Final = "pid:[4026531836]"  # PROC_PID_INIT_INO, include/linux/proc_ns.h
_CONSOLE: Final = "parhelia-agent"


@dataclass(slots=True)
class Beside:
    """What tells strays: the account whose processes are looked at (None: all), the accounts of session and egress
    process (None where they are the agent's), the agent's first process."""

    only: int | None
    session: int | None
    egress: int | None
    keeper: int


@dataclass(slots=True)
class Finder:
    """Finds each stray once. Not for several threads at a time."""

    beside: Beside
    _inside: dict[int, None] = field(default_factory=dict)
    _suspects: dict[int, int] = field(default_factory=dict)
    _told: set[tuple[int, int]] = field(default_factory=set)

    def look(self, reference: Standing) -> list[tuple[int, Standing]]:
        """Those that were outside at the last look too, and were not given yet. `reference`: how the session's first
        process stands."""
        pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208
        spared = {*self._ancestors(), os.getpid()}
        suspects: dict[int, int] = {}
        found = []
        for pid in self._chosen(pids):
            now = processes.standing(pid)
            if now is None or now.zombie or now.kernel:
                continue
            if pid in spared or not self._outside(pid, now, reference):
                self._inside[pid] = None
                continue
            identity = (pid, processes.started(pid))
            suspects[pid] = identity[1]
            if self._suspects.get(pid) == identity[1] and identity not in self._told:
                self._told.add(identity)
                found.append((pid, now))
        self._suspects = suspects
        return found

    def _chosen(self, pids: list[int]) -> list[int]:
        """Suspects first, then those that nobody has looked at, then some of the known."""
        alive = set(pids)
        for gone in self._inside.keys() - alive:
            del self._inside[gone]
        self._told = {(pid, start) for pid, start in self._told if pid in alive}
        again = list(self._inside)[:AGAIN]
        for pid in again:
            del self._inside[pid]  # and to the end of the line, where it is still inside
        fresh = [pid for pid in pids if pid not in self._inside and pid not in self._suspects and pid not in set(again)]
        known = [pid for pid in self._suspects if pid in alive]
        return [*known[: MAX_LOOKS // 2], *again, *fresh][:MAX_LOOKS]

    def _outside(self, pid: int, now: Standing, reference: Standing) -> bool:
        if self.beside.only is not None and now.uid != self.beside.only:
            return False
        if confined(now, reference):
            return False
        return not self._agents(pid, now)

    def _agents(self, pid: int, now: Standing) -> bool:
        """A part of the agent, or an operator's call of one of its verbs: never of the session's account."""
        if self.beside.session is not None and now.uid == self.beside.session:
            return False
        if self.beside.egress is not None and now.uid == self.beside.egress and now.parent != 0:
            return True
        argv = processes.words(pid)
        return of_the_agent(argv) and processes.program(pid) in (None, processes.program(os.getpid()))

    def _ancestors(self) -> list[int]:
        found, pid = [], self.beside.keeper
        while pid > 0 and pid not in found:
            found.append(pid)
            above = processes.standing(pid)
            pid = 0 if above is None else above.parent
        return found


def confined(now: Standing, reference: Standing) -> bool:
    """Does all that confines the session's first process confine this one?"""
    return (
        now.no_new_privs >= reference.no_new_privs
        and now.seccomp == reference.seccomp
        and now.filters >= reference.filters
    )


def of_the_agent(argv: list[str]) -> bool:
    """Is it written as the agent's own programs are started?"""
    if "-m" in argv[:4]:
        return any(word.startswith("agent.") for word in argv[argv.index("-m") + 1 :][:1])
    return any(word.rpartition("/")[2] == _CONSOLE for word in argv[:2])


def contained() -> bool:
    """Does this process live in a PID namespace of its own? gVisor numbers its first one as it likes: there the agent's
    first process tells."""
    try:
        own = os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:
        own = ""
    return own != _MACHINE or os.getppid() == 1


class Strays:
    """A companion (`agent.daemon.beside.companions`)."""

    def __init__(self, company: Company, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._company = company
        self._look_seconds = look_seconds
        self._task: asyncio.Task[None] | None = None
        self._reference: Standing | None = None
        self._left = MAX_TOLD

    async def start(self) -> None:
        spec = self._company.spec
        separate = spec.egress_user is not None
        session = spec.session_user.uid if separate else None
        if not contained() and session is None:
            return  # everything here is the same account's, and nothing is the session's alone
        egress = None if spec.egress_user is None else spec.egress_user.uid
        only = None if contained() else session
        finder = Finder(Beside(only=only, session=session, egress=egress, keeper=os.getppid()))
        self._task = asyncio.get_running_loop().create_task(self._run(finder))

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, finder: Finder) -> None:
        own = processes.standing(os.getpid())
        while True:
            await asyncio.sleep(self._look_seconds)
            try:
                if self._reference is None:
                    pid = self._company.session_pid()
                    self._reference = processes.standing(pid) if pid else None
                if self._reference is None:
                    continue
                if own is None or confined(own, self._reference):
                    self._say(
                        "nothing in /proc tells the session's processes from others here: strays are not looked for"
                    )
                    return
                for pid, stray in await asyncio.to_thread(finder.look, self._reference):
                    self._tell(pid, stray)
            except Exception:  # the next look may work
                log.exception("processes outside the session could not be looked for")

    def _tell(self, pid: int, stray: Standing) -> None:
        if self._left == 0:
            return
        self._left -= 1
        if self._left == 0:
            self._say(f"{MAX_TOLD} processes outside the session were told: more of them are not")
            return
        argv: list[Json] = [*processes.shown(processes.words(pid))]
        details: dict[str, Json] = {"pid": pid, "ppid": stray.parent, "uid": stray.uid, "argv": argv}
        exe = processes.program(pid)
        if exe is not None:
            details["exe"] = exe
        self._say("a process beside the session is outside of its confinement", details, f"process:{pid}")

    def _say(self, reason: str, details: dict[str, Json] | None = None, resource: str = "processes") -> None:
        event = Event(
            type=EventType.AGENT_DEGRADED,
            actor="agent",
            action=Action.UPDATE,
            resource=resource,
            resource_type=ResourceType.AGENT,
            result=Result.SUCCESS,
            details={"reason": reason, "point": str(Point.AGENT), **(details or {})},
        )
        with suppress(RecordError):  # counted by the ledger, and told by an audit.gap event
            self._company.ledger.post(event)
