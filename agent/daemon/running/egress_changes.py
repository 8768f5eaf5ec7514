"""What the guard says and does when the egress process is gone, and when another one serves in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agent.channel import Channel, Message
from agent.daemon.base.spec import RunSpec
from agent.daemon.egress.attribution import Attribution
from agent.daemon.egress.link import EgressLink
from agent.daemon.running.opening import Opening
from agent.record.ledger import Ledger
from agent.session.levels import Level, Point, Reached

SERVES: Final = "another egress process serves"

type TellKeeper = Callable[[Message, Sequence[int]], None]


class EgressChanges:
    """`levels`: those that the session has while everything works. `tell_keeper` sends it a message."""

    def __init__(self, opening: Opening, levels: Mapping[Point, Reached], tell_keeper: TellKeeper) -> None:
        self._opening = opening
        self._levels = levels
        self._tell_keeper = tell_keeper
        self._link: EgressLink | None = None

    def make_link(
        self,
        spec: RunSpec,
        channel: Channel,
        ledger: Ledger,
        attribution: Attribution,
        on_fault: Callable[[Point, str], None],
    ) -> EgressLink:
        """The link whose changes are told. To be made on the guard's loop."""
        self._link = EgressLink(
            channel,
            ledger,
            self._opening.metrics,
            spec.actor,
            on_fault=lambda reason: on_fault(Point.EGRESS, reason),
            attribution=attribution,
            on_lost=self._lost,
            on_back=self._back,
            hold=lambda doors, listeners: self._tell_keeper({"type": "hold", "doors": doors}, listeners),
        )
        return self._link

    def _lost(self, reason: str) -> None:
        """Until another one serves, no connection is made, and nothing is allowed."""
        if self._link is not None and self._opening.journal is not None:
            self._opening.metrics.set_level(str(Point.EGRESS), str(Level.OFF))
            self._opening.journal.degraded(Point.EGRESS, Level.OFF, reason)
            self._tell_keeper({"type": "egress_lost", "number": self._link.generation}, ())

    def _back(self) -> None:
        level = self._levels[Point.EGRESS].level
        self._opening.metrics.set_level(str(Point.EGRESS), str(level))
        self._opening.metrics.restarted("egress")
        if self._opening.journal is not None:
            self._opening.journal.recovered(Point.EGRESS, level, "egress", SERVES)
