"""How often a process of the agent's may die before the session ends with it.

Rule kept here: `MOST` deaths of one process within `WINDOW_SECONDS` are survived, the next one is not. Whoever can make
a process die at will gets the end of the session from it, and no endless row of half seconds without a record.
"""

from __future__ import annotations

from collections import deque
from typing import Final

MOST: Final = 3
WINDOW_SECONDS: Final = 60.0


class Deaths:
    """Those of one process and its successors."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MOST + 1)

    def survived(self, now: float) -> bool:
        """One more death, at `now` (seconds of a clock that never goes back): may there be a successor?"""
        self._times.append(now)
        return len(self._times) <= MOST or now - self._times[0] > WINDOW_SECONDS
