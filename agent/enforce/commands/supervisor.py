"""The exec ring: every exec of the session stops here and is answered.

Rules:
- Whatever goes wrong is EACCES: an exception, a deadline, memory that cannot be read. A task is never left waiting.
- When the listener is closed (`stop`, a fault, the end of this process), execs of the session answer ENOSYS.

One dedicated thread, because it looks at the session *as the session's user* (setfsuid(2) is per thread; root in Docker
has no CAP_SYS_PTRACE, and with it the answers are to be the same). `gate.check`, `build_request`, `post`, `observe` and
`ended` are called on it, so they must be safe to call off the event loop. A second thread only watches the clock.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
import time
from collections.abc import Callable

from agent.enforce.commands.judge import (
    CONTINUE,
    BuildRequest,
    CommandGate,
    ExecJudge,
    bare_request,
    own_decision,
)
from agent.linux import notify, process
from agent.linux.syscalls import number
from agent.policy.decision import Severity
from agent.record.event import Event

log = logging.getLogger(__name__)

DEADLINE_S = 5.0
"""How long one exec may wait for its answer before it is EACCES."""
FAULT = "the agent could not decide; see its log"
_STUCK_POLL_S = 0.05


class ExecSupervisor:
    """Answers the notifications of one listener until `stop`, or until no task is left under the filter.

    Owns `listener` from `start` on. `session_uid` and `session_gid`: whose memory is read; None where the session has
    the agent's own. `post` takes the events that are not the gate's (a race, unreadable memory, a deadline). `observe`
    gets the seconds each exec took to decide. `ended` is called once at the end, with the reason where it was a fault.
    """

    def __init__(
        self,
        listener: int,
        gate: CommandGate,
        build_request: BuildRequest,
        *,
        session_uid: int | None,
        session_gid: int | None,
        actor: str,
        post: Callable[[Event], None],
        observe: Callable[[float], None] | None = None,
        ended: Callable[[str | None], None] | None = None,
        deadline: float = DEADLINE_S,
        stderr: int | None = None,
    ) -> None:
        self._listener = listener
        self._eyes = process.FilesystemIdentity(session_uid, session_gid)
        self._observe = observe
        self._ended = ended
        self._deadline = deadline
        self._judge = ExecJudge(
            gate, build_request, actor=actor, post=post, is_valid=self._is_valid, eyes=self._eyes, stderr=stderr
        )
        self._stopping = threading.Event()
        self._busy = threading.Event()
        self._arch_prctl = number("arch_prctl")
        self._in_hand: tuple[notify.Notification, float] | None = None
        self._listening = threading.Lock()  # held to receive, and to close
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ready = threading.Event()
        self._refused: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="exec-supervisor", daemon=True)
        self._clock = threading.Thread(target=self._watch, name="exec-deadline", daemon=True)

    def start(self) -> None:
        """Start answering. Raises OSError where the session's file-system identity cannot be taken."""
        notify.prefer_sync_wake_up(self._listener)
        self._thread.start()
        self._ready.wait()
        if self._refused is not None:
            raise self._refused
        self._clock.start()

    def stop(self) -> None:
        """End supervision: later execs of the session answer ENOSYS. Waits for the exec in hand, at most a deadline."""
        self._stopping.set()
        self._busy.set()
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(self._deadline)
        if self._clock.ident is not None and self._clock is not threading.current_thread():
            self._clock.join(self._deadline)

    # --- the supervisor's thread

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
        fault: str | None = "exec supervision died"
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
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        while not self._stopping.is_set():
            seen = dict(poller.poll()).get(self._listener, 0)
            if seen & select.POLLIN:
                with self._listening:
                    stopped = notify.receive(self._listener)
                if stopped is not None:
                    self._handle(stopped)
            elif seen:  # POLLHUP: no task is left under the filter
                return

    def _handle(self, stopped: notify.Notification) -> None:
        started = time.monotonic()
        self._in_hand = (stopped, started)
        if not self._busy.is_set():
            self._busy.set()
        fault = False
        try:
            answer = self._judge.answer(stopped)
        except Exception:
            log.exception("exec not decided; denied")
            answer, fault = errno.EACCES, True
        self._in_hand = None
        elapsed = time.monotonic() - started
        if answer == CONTINUE:
            notify.send_continue(self._listener, stopped.id)
        else:
            notify.send_errno(self._listener, stopped.id, answer)
        if fault:
            self._judge.record(own_decision("agent-fault", FAULT, Severity.HIGH), bare_request(stopped.tid))
        if self._observe is not None and stopped.number != self._arch_prctl:
            self._observe(elapsed)

    def _is_valid(self, ident: int) -> bool:
        return notify.is_valid(self._listener, ident)

    # --- the clock's thread

    def _watch(self) -> None:
        """Sleeps while no exec comes; looks four times per deadline while they do."""
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
        """Deny the exec that is stuck, and all that come while it is: the kernel takes only the first answer."""
        log.error("exec %d not decided within %s s; denied", stopped.id, self._deadline)
        late = own_decision("exec-deadline", f"not decided within {self._deadline:g} s", Severity.HIGH)
        self._deny(stopped)
        self._judge.record(late, bare_request(stopped.tid))
        poller = select.poll()
        while self._in_hand is not None and self._in_hand[0] is stopped and not self._stopping.is_set():
            with self._listening:
                if self._stopping.is_set():
                    return
                poller.register(self._listener, select.POLLIN)
                ready = dict(poller.poll(0)).get(self._listener, 0) & select.POLLIN
                other = notify.receive(self._listener) if ready else None
            if other is None:
                self._stopping.wait(_STUCK_POLL_S)
            else:
                self._deny(other)
                self._judge.record(late, bare_request(other.tid))

    def _deny(self, stopped: notify.Notification) -> None:
        with self._listening:
            if not self._stopping.is_set():
                notify.send_errno(self._listener, stopped.id, errno.EACCES)
