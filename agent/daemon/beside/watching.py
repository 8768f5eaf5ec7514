"""Integrity watching of one session: what is watched, and how a change reads in the log.

Rules kept here: a change is `integrity.changed`, whoever made it (inotify does not say); changes of one moment are one
line with their count; what is not watched is `agent.degraded`; what is read and written happens on threads of its own,
and the last changes are in the log when `stop` returns.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import sysconfig
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.enforce.paths.areas import Area, named, whole
from agent.enforce.paths.changes import Change, Changes, Seen
from agent.enforce.paths.sight import digest
from agent.policy.model import Policy
from agent.policy.paths import HOOK_SETTINGS, POINTERS, covered, outermost
from agent.policy.watched import Patterns
from agent.record.event import Action, Event, EventType, Integrity, Json, RecordError, ResourceType, Result
from agent.session.levels import Level, Point

if TYPE_CHECKING:
    from agent.daemon.beside.companions import Company
    from agent.enforce.paths.watch import Watch

log = logging.getLogger(__name__)

WINDOW_SECONDS: Final = 0.25
SLOW_SECONDS: Final = 1.0
"""How long changes are gathered, and how long after there were many."""
MANY_CHANGES: Final = 64
_SETTLE_SECONDS: Final = 4.0
_MAX_TOLD: Final = 4096
_ACTION: Final = {Change.CREATED: Action.CREATE, Change.DELETED: Action.DELETE}
_REASON: Final = {
    Integrity.PROTECTED: "a protected or watched place changed",
    Integrity.POLICY: "the policy's files changed",
    Integrity.AGENT: "the agent's own files changed",
    Integrity.SETTINGS: "managed settings changed",
}
PACKAGE: Final = Path(__file__).resolve().parents[2]


class IntegrityWatch:
    """A companion (`agent.daemon.beside.companions`)."""

    def __init__(self, company: Company) -> None:
        self._company = company
        self._changes = Changes()
        self._watch: Watch | None = None
        self._told: OrderedDict[str, str] = OrderedDict()
        self._stopping = False
        self._thread = threading.Thread(target=self._report, name="integrity", daemon=True)

    async def start(self) -> None:
        await asyncio.to_thread(self._begin)

    async def stop(self) -> None:
        if self._watch is not None:
            await asyncio.to_thread(self._end, self._watch)

    def _begin(self) -> None:
        from agent.enforce.paths.watch import Watch  # watchdog: 30 ms, while the session runs already

        areas = [*protected_areas(self._company), *own_areas(self._company)]  # a session may be over soon
        self._watch = Watch(areas, self._changes, self._say)
        self._watch.start()
        self._thread.start()

    def _end(self, watch: Watch) -> None:
        watch.hurry()
        if not watch.settle(_SETTLE_SECONDS):
            self._say("the session ended before all of its changes were looked at")
        watch.stop()
        self._stopping = True
        self._changes.waiting.set()
        self._thread.join()

    def _say(self, text: str) -> None:
        self._company.journal.degraded(Point.PATHS, Level.PARTIAL, f"integrity watching: {text}")

    # --- the reporting thread

    def _report(self) -> None:
        window = WINDOW_SECONDS
        while not self._stopping:  # set before it is woken the last time
            self._changes.waiting.wait()
            time.sleep(0 if self._stopping else window)
            window = WINDOW_SECONDS if self._tell() < MANY_CHANGES else SLOW_SECONDS

    def _tell(self) -> int:
        """How many lines it took."""
        taken = self._changes.take()
        for seen in taken:
            try:
                self._company.ledger.post(self._event(seen))
            except RecordError:
                continue  # counted by the ledger, and told by an audit.gap event
        return len(taken)

    def _event(self, seen: Seen) -> Event:
        before = self._told.pop(seen.path, seen.before)
        after = digest(seen.path) if seen.path.startswith("/") else None
        if after is not None:
            self._told[seen.path] = after
            if len(self._told) > _MAX_TOLD:
                self._told.popitem(last=False)
        details: dict[str, Json] = {"reason": _REASON[seen.kind], "kind": str(seen.kind), "change": str(seen.change)}
        details |= {key: sum_ for key, sum_ in (("sha256_before", before), ("sha256_after", after)) if sum_ is not None}
        if seen.count > 1:
            details["count"] = seen.count
        return Event(
            type=EventType.INTEGRITY_CHANGED,
            actor="agent",
            action=_ACTION.get(seen.change, Action.UPDATE),
            resource=os.fsencode(seen.path).decode("utf-8", "backslashreplace"),
            resource_type=ResourceType.PATH,
            result=Result.SUCCESS,
            details=details,
        )


def own_areas(company: Company) -> Iterator[Area]:
    """The policy, the program, what the session reads of the agent's, and the settings that register its hook."""
    yield from whole(Integrity.POLICY, company.spec.policy_dirs, depth=2, digests=True)
    yield from whole(Integrity.AGENT, [str(PACKAGE), company.places.public], digests=True)
    libraries = sysconfig.get_paths()["purelib"]
    yield from whole(Integrity.AGENT, [libraries])
    yield from named(Integrity.AGENT, [str(Path(sys.executable).with_name("parhelia-agent"))])
    yield from named(Integrity.SETTINGS, HOOK_SETTINGS)


def protected_areas(company: Company) -> Iterator[Area]:
    """The trees that the session may write, for the places in them that the policy protects or has watched."""
    patterns = watched_patterns(company.policy())
    if not patterns:
        return
    owner = company.spec.session_user.uid
    since = _began(company.places.hook_socket)
    compiled = Patterns(patterns, company.places.home)
    own = (company.plan.workdir, company.places.home, company.places.tmpdir)
    granted = outermost(os.path.realpath(root) for root in company.grants.write)
    first = (root for root in map(os.path.realpath, own) if covered(granted, root))
    for root in dict.fromkeys((*first, *granted)):  # where the work is, first: the watches have a bound
        yield Area(
            Integrity.PROTECTED, root, compiled, contents=True, digests=True, since=since, owner=owner, files=POINTERS
        )


def watched_patterns(policy: Policy) -> tuple[str, ...]:
    """Of all layers: `paths.protect`, and `paths.watch`."""
    sections = [layer.paths for layer in policy.layers if layer.paths is not None]
    return tuple(dict.fromkeys(rule.path for section in sections for rule in (*section.protect, *section.watch)))


def _began(hook_socket: str) -> int:
    """The kernel's file clock (ns) just before the launch: the hook's socket is the last thing the agent makes."""
    try:
        return os.lstat(hook_socket).st_ctime_ns
    except OSError:
        return time.time_ns()
