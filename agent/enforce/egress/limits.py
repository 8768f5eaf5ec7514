"""The bounds of time and number that hold for every connection of the session.

Rules kept here: what no policy gives has a default; no policy makes more connections than there are descriptors for.
"""

from __future__ import annotations

from agent.policy.model import EgressLimits
from agent.values import dataclass


@dataclass(slots=True)
class Limits:
    """Seconds, and how many connections are served at once; one object for all who ask, for it follows the policy."""

    head: float = 30
    dial: float = 10
    idle: float = 3600
    keep: float = 60
    connections: int = 4096

    def follow(self, given: EgressLimits, defaults: Limits) -> None:
        """What the policy gives, else the default; never more connections than there are descriptors for."""
        self.head = defaults.head if given.head is None else given.head
        self.idle = defaults.idle if given.idle is None else given.idle
        self.keep = min(defaults.keep, self.idle)
        self.connections = defaults.connections
        if given.connections is not None:
            self.connections = min(defaults.connections, given.connections)
