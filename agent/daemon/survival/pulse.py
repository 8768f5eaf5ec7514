"""Notices that the whole agent stood still: what a process restored from a checkpoint can see of it.

A restored process finds its memory as it was: gVisor keeps even /proc/sys/kernel/random/boot_id, the mounts' device
numbers and the offset between its clocks (tried on runsc 2022-12 and 2024-07: its monotonic clock goes on by the time
that has passed outside). What cannot be hidden is that time has passed and nobody counted it. CRIU and snapshots of
machines may keep the monotonic clocks too (time_namespaces(7)); then the wall clock leaves them behind. In gVisor a
restore also shows by the session's network (`agent.enforce.egress.left_behind`), at once: that is `moved`.

Rules kept here: a gap in either is a pause; a pause that was no restore (SIGSTOP, a frozen cgroup, a suspended machine,
a wall clock set forward) is taken for one, since that costs a new stream and nothing else; after a pause `steady` says
no until somebody says `settled`, whoever notices first. Where nothing but time shows it, a restore within `LIMIT` of
its checkpoint is not noticed here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

BEAT_SECONDS: Final = 0.5
LIMIT: Final = 10.0
"""Seconds without a beat that are a pause. A busy machine delays a beat; this is twenty in a row."""

type Clocks = tuple[float, float]


def clocks() -> Clocks:
    """Seconds since boot, suspension included, and the wall clock (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME), time.time()


class Pulse:
    """A thread that beats. `paused` is called on it with the length of the pause (seconds), once for each.
    `moved`: grows where a restore shows by itself."""

    def __init__(
        self,
        paused: Callable[[float], None],
        read: Callable[[], Clocks] = clocks,
        moved: Callable[[], int] = lambda: 0,
    ) -> None:
        self._paused = paused
        self._moved = moved
        self._seen = moved()
        self._read = read
        self._lock = threading.Lock()
        self._last = read()
        self._held = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join()

    def steady(self) -> bool:
        """False from a pause on until `settled`. From any thread."""
        with self._lock:
            return not self._held and self._gap() < LIMIT and self._moved() == self._seen

    def settled(self) -> None:
        """Whatever a pause asks for is done."""
        with self._lock:
            self._held = False
            self._last = self._read()
            self._seen = self._moved()

    def beat(self) -> None:
        """Still here: a pause before it is told."""
        with self._lock:
            gap = self._gap()
            self._last = self._read()
            if self._held or (gap < LIMIT and self._moved() == self._seen):
                return
            self._held = True
        self._paused(gap)

    def _gap(self) -> float:
        now = self._read()
        return max(now[0] - self._last[0], now[1] - self._last[1])

    def _run(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            self.beat()
