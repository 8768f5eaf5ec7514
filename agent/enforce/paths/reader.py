"""Where the watching hears of changes: watchdog's reader of the kernel's inotify queue (inotify(7)), made robust for a
session that does what it likes; and, where the kernel gives no queue, a thread that looks again and again."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Final

from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchCallback,
    WatchDescriptor,
)

POLL_SECONDS: Final = 10.0

logging.getLogger("watchdog").setLevel(logging.ERROR)  # an overflow is the watch's to say, and not on the terminal


class Reader(InotifyFD):
    """watchdog's reader of one inotify descriptor, which begins with `begin`. Nothing ends it but `stop`: what goes
    wrong is handed to `failed`. Raises OSError where the kernel gives no descriptor (fs.inotify.max_user_instances)."""

    def __init__(self, begin: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        super().__init__()
        os.set_inheritable(self._inotify_fd, False)
        self._begin = begin
        self._failed = failed
        self._bell = _Bell(self)
        self.daemon = True

    @property
    def ending(self) -> bool:
        return not self.should_keep_running()

    def ring(self, seconds: float) -> bool:
        """True where everything that happened before was handled within that time."""
        return self._bell.ring(seconds)

    def run(self) -> None:
        try:
            self._begin()
        except Exception as error:  # what is not watched is told
            self._failed(error)
        super().run()

    def handle_event(self, event: InotifyEvent) -> None:
        try:
            super().handle_event(event)
        except Exception as error:  # one change is not told, and that is; the next ones are
            self._failed(error)


class Poller(threading.Thread):
    """What can stand in for a reader: it calls `again` from time to time."""

    def __init__(
        self, begin: Callable[[], None], again: Callable[[], None], failed: Callable[[Exception], None]
    ) -> None:
        super().__init__(name="integrity-poll", daemon=True)
        self._begin = begin
        self._again = again
        self._failed = failed
        self._numbers = count(1)
        self._wake = threading.Event()
        self._looked = threading.Condition()
        self._looks = 0
        self.ending = False

    def add_callback(self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId) -> WatchDescriptor:
        """Nothing is to be done for one."""
        return WatchDescriptor(next(self._numbers))

    def remove_callbacks(self, callbacks: list[tuple[WatchDescriptor, CallbackId]]) -> None:
        """Nothing is to be done here either."""

    def ring(self, seconds: float) -> bool:
        """True where a look that began after this call ended within that time."""
        with self._looked:
            goal = self._looks + 2  # the one that is being taken may be past the change
            deadline = time.monotonic() + seconds
            while self._looks < goal and time.monotonic() < deadline:
                self._wake.set()
                self._looked.wait(0.1)
            return self._looks >= goal

    def stop(self) -> None:
        self.ending = True
        self._wake.set()

    def run(self) -> None:
        look = self._begin
        while not self.ending:
            try:
                look()
            except Exception as error:  # the next look may work
                self._failed(error)
            look = self._again
            with self._looked:
                self._looks += 1
                self._looked.notify_all()
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()


class _Bell:
    """A nameless file that is watched like all others: who rings it by a write hears when what came before was
    handled. (The kernel notifies nothing of one in memory, memfd_create(2).)"""

    def __init__(self, reader: InotifyFD) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (closed with the reader)
        self._rung = threading.Event()
        path = b"/proc/self/fd/%d" % self._file.fileno()
        reader.add_callback(path, InotifyConstants.IN_MODIFY, self, CallbackId(0))

    def ring(self, seconds: float) -> bool:
        """True where it was heard in time."""
        deadline = time.monotonic() + seconds
        self._rung.clear()
        while not self._rung.is_set() and time.monotonic() < deadline:
            os.pwrite(self._file.fileno(), b"!", 0)  # again and again: an overflow swallows it
            self._rung.wait(min(0.2, seconds))
        return self._rung.is_set()

    def on_event(self, event: InotifyEvent) -> None:
        self._rung.set()

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """Nothing to do."""

    def on_queue_overflow(self) -> None:
        """It is rung again."""
