"""The exec ring where the kernel has no seccomp user notification (gVisor): the same judge, asked by the tracer.

The session's filter answers execs with RET_TRACE, and a process of its own (agent.session.tracer) stops them. Rules
kept here:
- An exec is decided while its task stands still, and the new program is compared with what was approved before it runs
  (other threads may have rewritten the arguments): what is no approved one, or nobody approved, is killed.
- Whatever goes wrong in a decision is EACCES, and where no call can be refused the end of that process.
- What a guard before this one had in hand and did not answer is refused, never decided: it may be on record already.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from agent.enforce.commands.executable import Executables
from agent.enforce.commands.judge import BuildRequest, CommandGate, ExecJudge, bare_request, own_decision
from agent.enforce.commands.programs import Programs
from agent.enforce.commands.refusal import Given
from agent.enforce.commands.supervisor import DEADLINE_S, FAULT
from agent.linux import process
from agent.linux.notify import Notification
from agent.linux.syscalls import number
from agent.policy.decision import Severity
from agent.policy.rule_ids import AGENT_FAULT
from agent.record.event import Event
from agent.session.tracer import GO_ON, KILL, LONGEST, Asks, Question, answer, greet

log = logging.getLogger(__name__)

RACE: Final = "what ran is not what was approved; killed"


class ExecTracer:
    """Answers for one session's execs, which a tracer has stopped.

    `tracer`: the socket to it, owned from `start` on. `session_uid` and `session_gid`: whose file accesses are judged;
    None, or a kernel without setfsuid(2) (gVisor): the agent's own. `post` takes the events that are not the gate's;
    `observe` gets the seconds each exec took to decide. `ended` is called once at the end, with the reason where it was
    a fault. `others`: who answers for further calls, by number (0: it goes on, else the errno). All of them are called
    on this object's threads. `successor`: of another guard's, whose approvals are not known.
    """

    def __init__(
        self,
        tracer: socket.socket,
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
        stderr: Given | None = None,
        in_force: Callable[[], object] | None = None,
        executables: Executables | None = None,
        others: Mapping[int, Callable[[Notification], int]] | None = None,
        successor: bool = False,
    ) -> None:
        self._tracer = tracer
        self._greeting = int.from_bytes(os.urandom(8)) | 1  # never that of a tracer that was not greeted yet
        self._programs = Programs(session_uid)
        self._judge = ExecJudge(
            gate,
            build_request,
            actor=actor,
            post=post,
            is_valid=lambda ident: True,  # a traced task keeps its number until the tracer has taken its end
            eyes=process.session_eyes(session_uid, session_gid),
            stderr=stderr,
            programs=self._programs,
            in_force=in_force,
            executables=executables,
            successor=successor,
        )
        self._unread = 0
        self._execs = {found for name in ("execve", "execveat") if (found := number(name)) is not None}
        self._others = others or {}
        self._observe = observe
        self._ended = ended
        self._deadline = deadline
        self._in_hand: tuple[int, float] | None = None
        self._letting_go = threading.Lock()  # what is in hand is traced and stands still: its number is its own
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracer", daemon=True)
        self._clock = threading.Thread(target=self._watch, name="tracer-deadline", daemon=True)

    def start(self) -> None:
        """Start answering. Raises OSError where the tracer is gone."""
        self._programs.prepare()
        greet(self._tracer, self._greeting)
        self._thread.start()
        self._clock.start()

    def stop(self) -> None:
        """End the tracing, and with it all that is traced. Waits for the exec in hand, at most a deadline."""
        self._stopping.set()
        with suppress(OSError):  # closed, or the tracer is gone
            self._tracer.shutdown(socket.SHUT_RDWR)
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(self._deadline)

    # --- the thread that answers

    def _run(self) -> None:
        fault: str | None = "the answering thread died"
        try:
            self._serve()
            fault = None
        finally:
            self._stopping.set()
            self._tracer.close()
            if self._ended is not None:
                self._ended(fault)

    def _serve(self) -> None:
        """Until the tracer has ended, which is with the last traced task, and the end of them all."""
        while data := self._receive():
            question = Question.parse(data)
            if question.greeting != self._greeting:  # put to the guard before this one, which died before it read it
                self._unread = question.number
                continue  # it will come again
            value = self._answer(question)
            with suppress(OSError):  # gone: the end is read next
                answer(self._tracer, question, value)

    def _receive(self) -> bytes:
        try:
            return self._tracer.recv(LONGEST)
        except ConnectionError:
            return b""

    def _answer(self, question: Question) -> int:
        tid = question.stopped.tid
        try:
            if question.what is not Asks.LOST and (not question.again or question.number == self._unread):
                return self._decide(question) if question.what is Asks.CALL else self._compare(tid)
            log.error("task %d was not supervised, or the guard before was asked for it: refused, or killed", tid)
        except Exception:
            log.exception("task %d was not supervised: its call is refused, or it is killed", tid)
        self._judge.record(own_decision(AGENT_FAULT, FAULT, Severity.HIGH), bare_request(tid))
        return errno.EACCES if question.what is Asks.CALL else KILL

    def _decide(self, question: Question) -> int:
        stopped = question.stopped
        if stopped.number not in self._execs:  # a filter of the session's own may send any call here
            other = self._others.get(stopped.number)
            return errno.EACCES if other is None else other(stopped)
        started = time.monotonic()
        with self._held(stopped.tid):
            value = self._judge.answer(stopped)
        if self._observe is not None:
            self._observe(time.monotonic() - started)
        return value

    def _compare(self, pid: int) -> int:
        with self._held(pid):
            approved = self._judge.approved(pid)
        if approved:
            return GO_ON
        self._judge.record(own_decision("exec-race", RACE, Severity.CRITICAL), bare_request(pid))
        return KILL

    @contextmanager
    def _held(self, tid: int) -> Iterator[None]:
        """Under the deadline."""
        self._in_hand = (tid, time.monotonic())
        try:
            yield
        finally:
            with self._letting_go:
                self._in_hand = None

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
            with suppress(ProcessLookupError):
                os.kill(held[0], signal.SIGKILL)
        log.error("the exec of task %d was not decided within %s s; killed", held[0], self._deadline)
        late = own_decision("exec-deadline", f"not decided within {self._deadline:g} s; killed", Severity.HIGH)
        self._judge.record(late, request)
