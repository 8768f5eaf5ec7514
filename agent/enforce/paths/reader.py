"""watchdog's reader of the kernel's inotify queue (inotify(7)), made robust for a session that does what it likes."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable

from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyEvent, InotifyFD, WatchDescriptor


class Reader(InotifyFD):
    """watchdog's reader of one inotify descriptor, which begins with `begin`. Nothing ends it but `stop`: what goes
    wrong is handed to `failed`."""

    def __init__(self, begin: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        super().__init__()
        os.set_inheritable(self._inotify_fd, False)
        self._begin = begin
        self._failed = failed
        self.daemon = True

    @property
    def ending(self) -> bool:
        return not self.should_keep_running()

    def run(self) -> None:
        try:
            self._begin()
        except Exception as error:  # likewise
            self._failed(error)
        super().run()

    def handle_event(self, event: InotifyEvent) -> None:
        try:
            super().handle_event(event)
        except Exception as error:  # one change is not told, and that is; the next ones are
            self._failed(error)


class Bell:
    """A nameless file that is watched like all others: who rings it by a write hears when what came before was
    handled. (The kernel notifies nothing of one in memory, memfd_create(2).)"""

    def __init__(self, reader: InotifyFD) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (until `close`)
        self._rung = threading.Event()
        reader.add_callback(b"/proc/self/fd/%d" % self._file.fileno(), InotifyConstants.IN_MODIFY, self, CallbackId(0))

    def ring(self, seconds: float) -> bool:
        """True where it was heard in time."""
        deadline = time.monotonic() + seconds
        self._rung.clear()
        while not self._rung.is_set() and time.monotonic() < deadline:
            os.pwrite(self._file.fileno(), b"!", 0)  # again and again: an overflow swallows it
            self._rung.wait(min(0.2, seconds))
        return self._rung.is_set()

    def close(self) -> None:
        self._file.close()

    def on_event(self, event: InotifyEvent) -> None:
        self._rung.set()

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """Nothing to do."""

    def on_queue_overflow(self) -> None:
        """It is rung again."""
