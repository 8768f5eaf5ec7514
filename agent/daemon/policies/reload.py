"""The policy in force follows its files while the session runs.

Rules kept here: a new policy is taken whole or not at all; one with mistakes, or one that this session cannot follow,
leaves the last good one in force and is `policy.rejected` with every reason; what follows is the gate at once, and the
egress process in the order of its channel, so that nothing is ever more open than the old or the new policy. What a
running session cannot follow: what the kernel was given at its start (paths), what it was given (environment, secrets),
and interception that was not prepared. Narrowing is refused there as well: it would be believed and not enforced.
A file that the session's account could have written is not read.

The files are looked at once a second (names, inodes, sizes, times), and not watched by inotify(7): that says nothing of
changes on the far side of a bind mount in gVisor or of a network file system. A change is read when it has rested for a
second and no program has a file open for writing, and read again where it went on meanwhile, so that a directory of
several files is not read half written. SIGHUP to the keeper asks for it at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent.daemon.base import places as layout
from agent.daemon.base.journal import Journal
from agent.daemon.base.spec import RunSpec
from agent.daemon.base.trust import writable
from agent.daemon.policies.accounts import role_faults
from agent.daemon.policies.demands import run_levels
from agent.daemon.policies.store import Marks, PolicyStore, Reloaded
from agent.enforce.egress.identity import needs_engine
from agent.policy.canonical import changed
from agent.policy.detection import severities
from agent.policy.egress_match import intercepted
from agent.policy.hosts import covers_pattern
from agent.policy.model import Policy
from agent.record.ledger import Ledger
from agent.record.metrics import Metrics
from agent.session.levels import Level, Offer, shortfall
from agent.values import dataclass

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
PATIENT_LOOKS: Final = 10
"""So often files may be found unfinished before that is said."""
FILES: Final = "the policy's files changed"
ASKED: Final = "SIGHUP"
_FIXED: Final = {
    "layers": "the number of policy directories",
    "paths": "the session's paths, which the kernel was given at its start",
    "session_env": "the session's environment",
    "process_limits": "the limits of the session's processes",
    "secrets": "the session's secrets",
}


@dataclass(frozen=True, slots=True)
class Running:
    """What a session was started with. `follow` hands a policy to the egress process."""

    spec: RunSpec
    first: Policy
    offer: Offer
    ledger: Ledger
    metrics: Metrics
    journal: Journal
    follow: Callable[[Policy], object]


class Reloading:
    """Looks at the files and reloads, until stopped. Must be made inside the running loop."""

    def __init__(self, store: PolicyStore, running: Running, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._store = store
        self._running = running
        self._look_seconds = look_seconds
        self._asked = asyncio.Event()
        self._cause = ASKED
        self._moving = 0
        self._waiting: list[asyncio.Future[tuple[str, ...]]] = []
        self._task = asyncio.get_running_loop().create_task(self._run())

    def ask(self, cause: str = ASKED) -> asyncio.Future[tuple[str, ...]]:
        """Reload now, changed or not. The result: why the last good policy stays in force, empty where it does not."""
        answer: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._cause = cause
        self._asked.set()
        return answer

    async def stop(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        for answer in self._waiting:
            answer.cancel()

    async def _run(self) -> None:
        resting = self._store.marks
        taken: Marks | None = resting
        while True:
            asked = await self._wait()
            waiting, self._waiting = self._waiting, []
            faults: tuple[str, ...] = ()
            try:
                now = await asyncio.to_thread(self._store.look)
                if asked or (now != taken and now == resting):
                    faults = await self._reload(self._cause if asked else FILES, asked=asked)
                    taken = None if self._moving else now
                resting = now
            except Exception as error:  # the last good policy stays in force
                log.exception("the policy could not be reloaded")
                self._running.journal.policy_rejected(f"the agent could not reload: {type(error).__name__}")
                faults = (f"the agent could not reload: {type(error).__name__}",)
            finally:
                for answer in waiting:
                    if not answer.done():
                        answer.set_result(faults)

    async def _wait(self) -> bool:
        """True where somebody asks."""
        try:
            await asyncio.wait_for(self._asked.wait(), self._look_seconds)
        except TimeoutError:
            return False
        self._asked.clear()
        return True

    async def _reload(self, cause: str, *, asked: bool) -> tuple[str, ...]:
        """Why the last good policy stays in force, empty where it does not."""
        running = self._running
        before = self._store.current
        result = await asyncio.to_thread(self._checked)
        if result.unsettled:
            self._wait_for(result.unsettled)
            return (result.unsettled,)
        self._moving = 0
        if result.faults:
            running.journal.policy_rejected("; ".join(result.faults))
            return result.faults
        if not result.changed and not asked:
            return ()
        policy = self._store.current  # and not the one that was read: a lockdown may have closed it meanwhile
        running.follow(policy)  # first: commands are decided by it already, and what follows may fail on a full disk
        running.ledger.configure(policy.audit)
        running.metrics.set_policy(policy.digest, detectors=severities(policy))
        running.journal.policy_reloaded(cause, before.digest, policy.digest, changed(before, policy))
        self._announce(before, policy)
        return ()

    def _wait_for(self, moving: str) -> None:
        """Files that are being changed are read again; that is said, once, where it lasts."""
        self._moving += 1
        if self._moving == PATIENT_LOOKS:
            self._running.journal.policy_rejected(f"{moving}: the policy in force stays until that has ended")

    def _checked(self) -> Reloaded:
        """In a thread: everything that reads files."""
        running, current = self._running, self._store.current
        try:
            layout.check_own_paths(running.spec)
            mine = [text for directory in running.spec.policy_dirs for text in _sessions_own(directory, running.spec)]
        except (layout.Exposed, OSError) as error:
            mine = [str(error)]
        if mine:
            return Reloaded(current, changed=False, refused=tuple(mine))
        return self._store.reload(lambda policy: cannot_follow(running, current, policy))

    def _announce(self, before: Policy, policy: Policy) -> None:
        """A level that changes with the policy is said, as at the start."""
        running = self._running
        old, new = run_levels(before, running.offer), run_levels(policy, running.offer)
        for point, found in new.items():
            if found.level is not old[point].level:
                running.metrics.set_level(str(point), str(found.level))
                if found.level is not Level.ENFORCED:
                    running.journal.degraded(point, found.level, found.why)


def _sessions_own(directory: str, spec: RunSpec) -> list[str]:
    """What the session's account could have written itself, by ownership and mode, in one-uid mode too."""
    files = sorted(Path(directory).glob("*.yaml"))
    return [
        f"{file} could have been written by the session ({found}): give it to another account"
        for file in files
        if (found := writable(str(file), spec.session_user)) is not None
    ]


def cannot_follow(running: Running, current: Policy, policy: Policy) -> list[str]:
    """What this policy asks of the session that only a new one can have; empty where it can be followed."""
    reasons = [f"needs a new session: it changes {_FIXED[key]}" for key in changed(current, policy) if key in _FIXED]
    if policy.trust != current.trust:
        reasons.append("needs a new session: it changes the authorities that the session and its interception trust")
    reasons += role_faults(policy, running.spec)
    reasons += _not_intercepted(running.first, policy)
    if running.spec.require_contained:
        levels = run_levels(policy, running.offer)
        reasons += [f"--require contained: {point} would be {levels[point].level}" for point in shortfall(levels)]
    return reasons


def _not_intercepted(first: Policy, policy: Policy) -> list[str]:
    if not needs_engine(policy):
        return []
    if not needs_engine(first):
        return ["needs a new session: a rule looks into TLS, and the interception engine was not started"]
    known = intercepted(first)
    return [
        f"needs a new session: its interception CA does not vouch for {pattern}"
        for pattern in intercepted(policy)
        if not any(covers_pattern(each, pattern) for each in known)
    ]
