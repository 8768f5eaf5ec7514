"""The loop behind every notified system call of the session: receive, ask the handler of that call, answer.

Rules kept here:
- Whatever goes wrong is EACCES: an exception, a deadline, a call that nobody handles. A task is never left waiting.
- When the listener is closed everywhere (`stop`, a fault), notified calls of the session answer ENOSYS. While another
  process holds it, they wait for a successor; what this one had in hand is in its journal, and the successor denies it.

One dedicated thread, because handlers look at the session *as the session's user* (setfsuid(2) is per thread; root in
Docker has no CAP_SYS_PTRACE, and with it the answers are to be the same). Handlers are called on it. A second thread
only watches the clock.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Protocol

from agent.enforce.notify_journal import NotifyJournal
from agent.linux import notify, process
from agent.values import dataclass

log = logging.getLogger(__name__)

_STUCK_POLL_S = 0.05
_LOOP, _CLOCK = range(2)
"""The slots of the journal."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of a stopped call: it fails with `error`, else the kernel runs it (`proceed`), else it was answered
    already (`given`), else it returns `value` without being run."""

    error: int = 0
    value: int = 0
    proceed: bool = False
    given: bool = False


PROCEED = Answer(proceed=True)
GIVEN = Answer(given=True)
DENIED = Answer(errno.EACCES)


class Handler(Protocol):
    """Answers for some of the system calls. All on the loop's thread, except `overdue`, which is the clock's."""

    def answer(self, stopped: notify.Notification, listener: int) -> Answer:
        """The answer; may raise: the call is then denied, and `fault` is called."""

    def fault(self, stopped: notify.Notification) -> None:
        """The call was denied because `answer` raised: put it on record."""

    def overdue(self, stopped: notify.Notification, seconds: float) -> None:
        """The call was denied because no answer came within `seconds`: put it on record."""

    def took(self, stopped: notify.Notification, seconds: float) -> None:
        """How long the answer took."""


class NotifyLoop:
    """Answers the notifications of one listener until `stop`, or until no task is left under the filter.

    Owns `listener` from `start` on. `handlers`: system call number -> who answers. `eyes`: the file-system identity
    that the handlers take on, tried once at the start. `prepare` is called before the first answer, in the thread that
    answers, so that whoever starts this need not wait for it. `ended` is called once at the end, with the reason where
    it was a fault. `deadline`: seconds that one call may wait. `journal`: where what is in hand is kept; of what it
    holds already, every call is denied first.
    """

    def __init__(
        self,
        listener: int,
        handlers: Mapping[int, Handler],
        eyes: process.FilesystemIdentity,
        *,
        prepare: Callable[[], None] = lambda: None,
        deadline: float,
        ended: Callable[[str | None], None] | None = None,
        journal: NotifyJournal | None = None,
    ) -> None:
        self._listener = listener
        self._kept = journal or NotifyJournal()
        self._handlers = dict(handlers)
        self._eyes = eyes
        self._prepare = prepare
        self._ended = ended
        self._deadline = deadline
        self._stopping = threading.Event()
        self._busy = threading.Event()
        self._in_hand: tuple[notify.Notification, float] | None = None
        self._listening = threading.Lock()  # held to receive, and to close
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        weakref.finalize(self, os.close, self._wake)
        self._ready = threading.Event()
        self._refused: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._clock = threading.Thread(target=self._watch, name="supervisor-deadline", daemon=True)

    def start(self) -> None:
        """Start answering. Raises OSError where the session's file-system identity cannot be taken."""
        notify.prefer_sync_wake_up(self._listener)
        self._thread.start()
        self._ready.wait()
        if self._refused is not None:
            raise self._refused
        self._clock.start()

    def stop(self) -> None:
        """End supervision: later calls of the session answer ENOSYS. Waits for the one in hand, at most a deadline."""
        self._stopping.set()
        self._busy.set()
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(self._deadline)
        if self._clock.ident is not None and self._clock is not threading.current_thread():
            self._clock.join(self._deadline)

    # --- the loop's thread

    def _run(self) -> None:
        try:
            with self._eyes:
                pass
        except OSError as error:
            self._refused = error
            os.close(self._listener)
            return
        finally:
            self._ready.set()
        fault: str | None = "supervision died"
        try:
            self._serve()
            fault = None
        finally:
            self._stopping.set()
            self._busy.set()
            with self._listening:
                os.close(self._listener)
            if self._ended is not None:
                self._ended(fault)

    def _serve(self) -> None:
        self._deny_left()
        self._prepare()
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        usual = [(self._listener, select.POLLIN)]
        while not self._stopping.is_set():
            ready = poller.poll()
            if ready == usual or dict(ready).get(self._listener, 0) & select.POLLIN:
                with self._listening:
                    stopped = notify.receive(self._listener, self._kept.slot(_LOOP))
                if stopped is not None:
                    self._handle(stopped)
                    self._kept.wipe(_LOOP)
            elif self._listener in dict(ready):  # POLLHUP: no task is left under the filter
                return

    def _deny_left(self) -> None:
        """Calls that a predecessor had received; those that it had answered are over, and nothing is said of them."""
        for slot, stopped in self._kept.left():
            handler = self._handlers.get(stopped.number)
            if notify.send_errno(self._listener, stopped.id, errno.EACCES) and handler is not None:
                handler.fault(stopped)
            self._kept.wipe(slot)

    def _handle(self, stopped: notify.Notification) -> None:
        handler = self._handlers.get(stopped.number)
        started = time.monotonic()
        self._in_hand = (stopped, started)
        if not self._busy.is_set():
            self._busy.set()
        fault = False
        try:
            answer = DENIED if handler is None else handler.answer(stopped, self._listener)
        except Exception:
            log.exception("call %d not decided; denied", stopped.number)
            answer, fault = DENIED, True
        self._in_hand = None
        elapsed = time.monotonic() - started
        self._send(stopped, answer)
        if handler is None:
            log.error("no handler for call %d; denied", stopped.number)
            return
        if fault:
            handler.fault(stopped)
        handler.took(stopped, elapsed)

    def _send(self, stopped: notify.Notification, answer: Answer) -> None:
        if answer.error:
            notify.send_errno(self._listener, stopped.id, answer.error)
        elif answer.proceed:
            notify.send_continue(self._listener, stopped.id)
        elif not answer.given:
            notify.send_value(self._listener, stopped.id, answer.value)

    # --- the clock's thread

    def _watch(self) -> None:
        """Sleeps while no call comes; looks four times per deadline while they do."""
        while not self._stopping.is_set():
            self._busy.wait()
            self._stopping.wait(self._deadline / 4)
            self._busy.clear()
            held = self._in_hand
            if held is None:
                continue
            self._busy.set()
            stopped, started = held
            if time.monotonic() - started >= self._deadline:
                self._overdue(stopped)

    def _overdue(self, stopped: notify.Notification) -> None:
        """Deny the call that is stuck, and all that come while it is: the kernel takes only the first answer."""
        log.error("call %d not decided within %s s; denied", stopped.id, self._deadline)
        self._deny(stopped)
        self._tell(stopped)
        poller = select.poll()
        while self._in_hand is not None and self._in_hand[0] is stopped and not self._stopping.is_set():
            with self._listening:
                if self._stopping.is_set():
                    return
                poller.register(self._listener, select.POLLIN)
                ready = dict(poller.poll(0)).get(self._listener, 0) & select.POLLIN
                other = notify.receive(self._listener, self._kept.slot(_CLOCK)) if ready else None
            if other is None:
                self._stopping.wait(_STUCK_POLL_S)
            else:
                self._deny(other)
                self._kept.wipe(_CLOCK)
                self._tell(other)

    def _tell(self, stopped: notify.Notification) -> None:
        handler = self._handlers.get(stopped.number)
        if handler is not None:
            handler.overdue(stopped, self._deadline)

    def _deny(self, stopped: notify.Notification) -> None:
        with self._listening:
            if not self._stopping.is_set():
                notify.send_errno(self._listener, stopped.id, errno.EACCES)
