"""How long decisions take: counts by bucket and a sum, cheap enough for every decision and small enough to send.

The buckets are those of `parhelia_agent_decision_seconds`. A process that decides keeps its own and hands over what has
come since the last time.
"""

from __future__ import annotations

from bisect import bisect_left

BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Upper bounds, in seconds; one more bucket holds what took longer."""


class Timings:
    """One row of the histogram. Not for several threads without a lock of the caller's."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        """One decision."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    def add(self, counts: list[int], seconds: float) -> None:
        """What another process counted. Raises ValueError for a row of another shape."""
        for index, (ours, theirs) in enumerate(zip(self.counts, counts, strict=True)):
            self.counts[index] = ours + theirs
        self.seconds += seconds

    def take(self) -> tuple[list[int], float]:
        """Counts and seconds since the last time, and start again at zero."""
        taken = (self.counts, self.seconds)
        self.counts, self.seconds = [0] * (len(BUCKETS) + 1), 0.0
        return taken
