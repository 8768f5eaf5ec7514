"""The exec ring where the kernel has no seccomp user notification (gVisor): the same judge, behind ptrace(2).

The session's filter answers execs with RET_TRACE. Rules kept here:
- One thread traces everything: it seizes the launcher before it gives up its rights, and the kernel attaches whatever
  is started from then on, before its first instruction.
- An exec is decided while its task stands still, and the new program is compared with what was approved before it runs
  (other threads may have rewritten the arguments): what is no approved one, or nobody approved, is killed.
- Whatever goes wrong in a decision is EACCES, and where no call can be refused the end of that process; the end of
  this thread is the end of all (PTRACE_O_EXITKILL).
- Signals, stops and continues pass unchanged: the session's job control is its own.

Nobody else of this process may wait(2) for "any child" meanwhile: it would take the reports of tasks whose parent this
process is. So the end of what was seized first is told to `exited`.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum, auto

from agent.enforce.commands.executable import Executables
from agent.enforce.commands.judge import (
    CONTINUE,
    BuildRequest,
    CommandGate,
    ExecJudge,
    bare_request,
    own_decision,
)
from agent.enforce.commands.programs import Programs
from agent.enforce.commands.refusal import Given
from agent.enforce.commands.supervisor import DEADLINE_S, FAULT
from agent.linux import process, ptrace
from agent.linux.notify import Notification
from agent.linux.ptrace import Kind
from agent.linux.syscalls import number
from agent.policy.decision import Severity
from agent.policy.rule_ids import AGENT_FAULT
from agent.record.event import Event

log = logging.getLogger(__name__)

RACE = "what ran is not what was approved; killed"
_ATTACH_SECONDS = 10.0


class _After(Enum):
    """What becomes of a task once its report is dealt with."""

    GO_ON = auto()
    STAY = auto()
    KILLED = auto()


class ExecTracer:
    """Traces one session's processes and answers for their execs.

    `session_uid` and `session_gid`: whose file accesses are judged; None, or a kernel without setfsuid(2) (gVisor): the
    agent's own. `post` takes the events that are not the gate's; `observe` gets the seconds each exec took to decide.
    `exited` gets the wait status of the first process. `ended` is called once at the end, with the reason where it was
    a fault. `others`: who answers for further calls, by number (0: it goes on, else the errno). All of them are called
    on the tracer's threads.
    """

    def __init__(
        self,
        gate: CommandGate,
        build_request: BuildRequest,
        *,
        session_uid: int | None,
        session_gid: int | None,
        actor: str,
        post: Callable[[Event], None],
        exited: Callable[[int], None] = lambda status: None,
        observe: Callable[[float], None] | None = None,
        ended: Callable[[str | None], None] | None = None,
        deadline: float = DEADLINE_S,
        stderr: Given | None = None,
        in_force: Callable[[], object] | None = None,
        executables: Executables | None = None,
        others: Mapping[int, Callable[[Notification], int]] | None = None,
    ) -> None:
        self._programs = Programs(session_uid)
        self._judge = ExecJudge(
            gate,
            build_request,
            actor=actor,
            post=post,
            is_valid=lambda ident: True,  # a traced task keeps its number until this thread has taken its end
            eyes=process.session_eyes(session_uid, session_gid),
            stderr=stderr,
            programs=self._programs,
            in_force=in_force,
            executables=executables,
        )
        self._exited = exited
        self._observe = observe
        self._ended = ended
        self._deadline = deadline
        self._execs = {found for name in ("execve", "execveat") if (found := number(name)) is not None}
        self._others = others or {}
        self._first = 0
        self._attached = threading.Event()
        self._refused: OSError | None = None
        self._in_hand: tuple[int, float] | None = None
        self._letting_go = threading.Lock()  # what is in hand is traced and stands still: its number is its own
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracer", daemon=True)
        self._clock = threading.Thread(target=self._watch, name="tracer-deadline", daemon=True)

    @property
    def running(self) -> bool:
        """True while tasks are traced, and their reports nobody else's to take."""
        return self._first != 0 and not self._stopping.is_set()

    def start(self, pid: int) -> None:
        """Trace `pid`, a child of this process, and all that comes of it. Raises OSError where it cannot be."""
        self._first = pid
        self._programs.prepare()
        self._thread.start()
        if not self._attached.wait(_ATTACH_SECONDS):
            raise OSError(errno.ETIMEDOUT, f"process {pid} could not be traced")
        if self._refused is not None:
            raise self._refused
        self._clock.start()

    def stop(self) -> None:
        """Wait, at most a deadline, for the end of the tracing: it comes with the end of the last traced task."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(self._deadline)

    # --- the tracer's thread

    def _run(self) -> None:
        try:
            ptrace.seize(self._first)
        except OSError as error:
            self._refused = error
            self._stopping.set()
            return
        finally:
            self._attached.set()
        fault: str | None = "tracing died"
        try:
            while (report := ptrace.wait()) is not None:
                self._take(report)
            fault = None
        finally:
            self._stopping.set()
            if self._ended is not None:
                self._ended(fault)

    def _take(self, report: ptrace.Report) -> None:
        """Deal with one report. What a fault in it leaves standing is refused or killed."""
        try:
            after = self._answer(report)
            if after is _After.GO_ON:
                ptrace.go_on(report.tid, report.signal if report.kind is Kind.SIGNAL else 0)
            elif after is _After.STAY:
                ptrace.stay_stopped(report.tid)
        except Exception:
            log.exception("task %d was not supervised: its call is refused, or it is killed", report.tid)
            request = bare_request(report.tid)
            if report.kind is not Kind.CALL or not self._refuse(report.tid):
                self._kill(report.tid)
            self._judge.record(own_decision(AGENT_FAULT, FAULT, Severity.HIGH), request)

    def _refuse(self, tid: int) -> bool:
        try:
            return ptrace.refuse_call(tid, errno.EACCES)
        except OSError:
            return False

    def _answer(self, report: ptrace.Report) -> _After:
        match report.kind:
            case Kind.ENDED:
                if report.tid == self._first:
                    self._exited(report.status)
                return _After.KILLED
            case Kind.CALL:
                return self._decide(report.tid)
            case Kind.EXECUTED:
                return self._compare(report.tid)
            case Kind.GROUP_STOP:
                return _After.STAY
            case Kind.NEW | Kind.SIGNAL:
                return _After.GO_ON
            case Kind.UNKNOWN:
                raise ValueError(f"status {report.status:#x} means nothing known")

    def _decide(self, tid: int) -> _After:
        try:
            stopped = ptrace.stopped_call(tid)
        except ProcessLookupError:
            return _After.KILLED
        answer = errno.EACCES
        if stopped.number in self._execs:  # a filter of the session's own may send other calls here
            started = time.monotonic()
            with self._held(tid):
                answer = self._judge.answer(stopped)
            if self._observe is not None:
                self._observe(time.monotonic() - started)
        elif (other := self._others.get(stopped.number)) is not None:
            answer = other(stopped)
        if answer == CONTINUE:
            return _After.GO_ON
        ptrace.refuse_call(tid, answer)
        return _After.KILLED

    def _compare(self, pid: int) -> _After:
        with self._held(pid):
            approved = self._judge.approved(pid)
        if approved:
            return _After.GO_ON
        request = bare_request(pid)
        self._kill(pid)
        self._judge.record(own_decision("exec-race", RACE, Severity.CRITICAL), request)
        return _After.KILLED

    @contextmanager
    def _held(self, tid: int) -> Iterator[None]:
        """Under the deadline."""
        self._in_hand = (tid, time.monotonic())
        try:
            yield
        finally:
            with self._letting_go:
                self._in_hand = None

    def _kill(self, tid: int) -> None:
        """The whole process of `tid`. It is traced and its end not taken, so the number is still its own."""
        with suppress(ProcessLookupError):
            os.kill(tid, signal.SIGKILL)

    # --- the clock's thread

    def _watch(self) -> None:
        """An exec that is not decided in time dies; one that is still in hand a deadline later ends the session."""
        told: tuple[int, float] | None = None
        while not self._stopping.wait(self._deadline / 4):
            held = self._in_hand
            if held is None or time.monotonic() - held[1] < self._deadline:
                continue
            if held is not told:
                told = held
                self._overdue(held)
            elif time.monotonic() - held[1] >= 2 * self._deadline:
                if self._ended is not None:
                    self._ended("an exec could not be decided")
                return

    def _overdue(self, held: tuple[int, float]) -> None:
        with self._letting_go:
            if self._in_hand is not held:
                return
            request = bare_request(held[0])
            self._kill(held[0])
        log.error("the exec of task %d was not decided within %s s; killed", held[0], self._deadline)
        late = own_decision("exec-deadline", f"not decided within {self._deadline:g} s; killed", Severity.HIGH)
        self._judge.record(late, request)
