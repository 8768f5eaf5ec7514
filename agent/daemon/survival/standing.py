"""What a guard leaves to a successor: all that a running session stands on, and the numbers of the last second.

Rules kept here: what is left is whole before the session's first instruction, and is left again before a change of
policy takes effect anywhere; it is in the guard's and the keeper's memory only (`agent.daemon.survival.kept`), since it
holds the values of the secrets. Numbers are left four times a second (the egress process tells its own once a second);
what a log's lines say is counted again from the log.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agent.channel import Message
from agent.daemon.egress.link import LinkState
from agent.daemon.launch.planning import Ground
from agent.daemon.policies.store import StoreState
from agent.daemon.survival.kept import Kept
from agent.enforce.commands.refusal import Given
from agent.enforce.notify_journal import NotifyJournal
from agent.linux.memory import nameless
from agent.record.metrics import Numbers
from agent.record.unwritten import Unkept, Unwritten
from agent.session.levels import Point, Reached
from agent.session.plan import Plan
from agent.values import dataclass, field

NUMBERS_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Launched:
    """The session's init, and its first command: process ids, and the number that init knows the command by."""

    init: int
    own_pids: bool
    first: int
    pid: int


@dataclass(frozen=True, slots=True)
class Standing:
    """`forwarded`, `port`: the doors of a session without a jail. `stderr`: the session's, for refusal lines; its copy,
    where it has one, is kept as ``stderr``."""

    ground: Ground
    plan: Plan
    levels: Mapping[Point, Reached]
    port: int
    forwarded: int | None
    launched: Launched
    stderr: Given
    store: StoreState
    link: LinkState


@dataclass(frozen=True, slots=True)
class Counts:
    """`boot`, `directory`: of the log, where it is not the specification's (agent.record.branch). `seq`: of the last
    event that `metrics` has counted. `accounts`, `up`, `down`: see `peer.Counted`."""

    boot: str = ""
    directory: str = ""
    seq: int = 0
    metrics: Numbers = field(default_factory=dict)
    up: int = 0
    down: int = 0
    accounts: Mapping[str, tuple[int, int, int, float]] = field(default_factory=dict)


class Estate:
    """Leaves it, from `open` on. `descriptors`: those of a predecessor's, by name (now its own). `heirs`: whether there
    can be a successor; there is none where the session could open this memory (in gVisor by /proc/PID/fd, where it has
    the agent's uid: agent.linux.memory)."""

    def __init__(self, descriptors: Mapping[str, int] | None = None, *, heirs: bool = True) -> None:
        given = descriptors or {}
        self.heirs = heirs
        self._standing = Kept([given["standing0"], given["standing1"]] if given else None)
        self._counts = Kept([given["counts0"], given["counts1"]] if given else None)
        self.journal = NotifyJournal(given.get("journal"))
        self.unwritten: Unkept = Unkept()
        if heirs:
            self.unwritten = Unwritten(given["unwritten"] if given else nameless("parhelia-unwritten"))
        self._counts_of: Callable[[], Counts] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def standing(self) -> Standing:
        """A predecessor's last. Raises LookupError where it left none."""
        found = pickle.loads(self._standing.data) if self._standing.data else None  # noqa: S301  (our predecessor's)
        if not isinstance(found, Standing):
            raise LookupError("the guard before left nothing")
        return found

    @property
    def counts(self) -> Counts:
        """A predecessor's last numbers."""
        found = pickle.loads(self._counts.data) if self._counts.data else None  # noqa: S301  (our predecessor's)
        return found if isinstance(found, Counts) else Counts()

    def hand_over(
        self, tell_keeper: Callable[[Message, Sequence[int]], None], others: Mapping[str, int | None]
    ) -> None:
        """Have the keeper hold all this, and those of the `others` that there are."""
        held = {"journal": self.journal.descriptor}
        if isinstance(self.unwritten, Unwritten):
            held["unwritten"] = self.unwritten.descriptor
        for name, kept in (("standing", self._standing), ("counts", self._counts)):
            held |= {f"{name}{index}": descriptor for index, descriptor in enumerate(kept.descriptors)}
        held |= {name: descriptor for name, descriptor in others.items() if descriptor is not None}
        tell_keeper({"type": "keep", "names": [*held]}, [*held.values()])

    def leave(self, standing: Standing) -> None:
        """Raises OSError."""
        self._standing.save(pickle.dumps(standing))

    def count(self, counts: Callable[[], Counts]) -> None:
        """Leave these numbers again and again, from now on."""
        self._counts_of = counts
        self._task = asyncio.get_running_loop().create_task(self._keep_counting())

    def count_now(self) -> None:
        """Leave them at once: another boot has begun. Raises OSError."""
        if self._counts_of is not None:
            self._counts.save(pickle.dumps(self._counts_of()))

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _keep_counting(self) -> None:
        while True:
            self.count_now()
            await asyncio.sleep(NUMBERS_SECONDS)
