"""The exec ring where the kernel has no seccomp user notification (gVisor): the same judge, asked by the tracer.

The session's filter answers execs with RET_TRACE, and a process of its own (agent.session.tracer) stops them. Rules
kept here:
- An exec is decided while its task stands still, and the new program is compared with what was approved before it runs
  (other threads may have rewritten the arguments): what is no approved one, or nobody approved, is killed.
- Whatever goes wrong in a decision is EACCES, and where no call can be refused the end of that process; so is what
  takes longer than the deadline. What then is in hand for another deadline ends the session.
- What a guard before this one had in hand and did not answer is refused, never decided: it may be on record already.
  What no guard answered in time the tracer has refused, and it is put on record here.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Protocol

from agent.enforce.commands.executable import Executables
from agent.enforce.commands.judge import BuildRequest, CommandGate, ExecJudge, bare_request, own_decision
from agent.enforce.commands.programs import Programs
from agent.enforce.commands.refusal import Given
from agent.enforce.commands.supervisor import DEADLINE_S, FAULT
from agent.linux import process
from agent.linux.notify import Notification
from agent.linux.syscalls import number
from agent.policy.decision import Severity
from agent.policy.request import CommandRequest
from agent.policy.rule_ids import AGENT_FAULT
from agent.record.event import Event
from agent.session.tracer import GO_ON, KILL, LONGEST, PATIENCE_S, Asks, Put, Question, answer, greet

log = logging.getLogger(__name__)

RACE: Final = "what ran is not what was approved; killed"
_LOOKS: Final = 4
"""So often the clock sees a call in hand before it is overdue: a time in which this process itself did not run, or a
clock that jumped, is none of it."""


class Other(Protocol):
    """Answers for further calls. On the answering thread; `fault` and `overdue` on the clock's too."""

    def answer(self, stopped: Notification) -> int:
        """0: it goes on, else the errno by which it fails. May raise: it is refused, and `fault` is called."""

    def fault(self, stopped: Notification) -> None:
        """The call was refused because nobody could decide it: put it on record."""

    def overdue(self, stopped: Notification, seconds: float) -> None:
        """The call was refused because no answer came within `seconds`: put it on record."""


class _InHand:
    """A question that is being decided. Told apart by identity."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.answered = False


class ExecTracer:
    """Answers for one session's execs, which a tracer has stopped.

    `tracer`: the socket to it, owned from `start` on. `session_uid` and `session_gid`: whose file accesses are judged;
    None, or a kernel without setfsuid(2) (gVisor): the agent's own. `post` takes the events that are not the gate's;
    `observe` gets the seconds each exec took to decide. `ended` is called once at the end, with the reason where it was
    a fault. `others`: who answers for further calls, by number. All of them are called on this object's threads.
    `successor`: of another guard's, whose approvals are not known.
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
        others: Mapping[int, Other] | None = None,
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
        self._in_hand: _InHand | None = None
        self._answering = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracer", daemon=True)
        self._clock = threading.Thread(target=self._watch, name="tracer-deadline", daemon=True)

    def start(self) -> None:
        """Start answering. Raises OSError where the tracer is gone."""
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
        self._programs.prepare()
        while data := self._receive():
            question = Question.parse(data)
            if question.put is Put.SETTLED:
                self._overdue(question, PATIENCE_S)
            elif question.greeting != self._greeting:  # put to the guard before this one, which died before it read it
                self._unread = question.number  # it will come again
            elif not self._settled(question):
                hand = self._in_hand = _InHand(question)
                value = self._answer(question)
                self._settle(hand, value)
                self._in_hand = None

    def _receive(self) -> bytes:
        try:
            return self._tracer.recv(LONGEST)
        except ConnectionError:
            return b""

    def _settled(self, question: Question) -> bool:
        """True where the tracer has given this question up: it says no more before it has an answer, and has said
        more."""
        poller = select.poll()
        poller.register(self._tracer, select.POLLIN)
        return question.put is Put.FIRST and bool(poller.poll(0))

    def _settle(self, hand: _InHand, value: int) -> bool:
        """Give the answer, once. False: it was given before."""
        with self._answering:
            if hand.answered:
                return False
            hand.answered = True
            with suppress(OSError):  # gone: the end is read next
                answer(self._tracer, hand.question, value)
            return True

    def _answer(self, question: Question) -> int:
        tid = question.stopped.tid
        try:
            unread = question.put is Put.FIRST or question.number == self._unread
            if question.what is not Asks.LOST and unread:
                return self._decide(question.stopped) if question.what is Asks.CALL else self._compare(tid)
            log.error("task %d was not supervised, or the guard before was asked for it: refused, or killed", tid)
        except Exception:
            log.exception("task %d was not supervised: its call is refused, or it is killed", tid)
        if self._is_exec(question):
            self._judge.record(own_decision(AGENT_FAULT, FAULT, Severity.HIGH), bare_request(tid))
        elif (other := self._others.get(question.stopped.number)) is not None:
            other.fault(question.stopped)
        return _refusal(question)

    def _is_exec(self, question: Question) -> bool:
        return question.what is not Asks.CALL or question.stopped.number in self._execs

    def _decide(self, stopped: Notification) -> int:
        if stopped.number not in self._execs:  # a filter of the session's own may send any call here
            other = self._others.get(stopped.number)
            return errno.EACCES if other is None else other.answer(stopped)
        started = time.monotonic()
        value = self._judge.answer(stopped)
        if self._observe is not None:
            self._observe(time.monotonic() - started)
        return value

    def _compare(self, pid: int) -> int:
        if self._judge.approved(pid):
            return GO_ON
        self._judge.record(own_decision("exec-race", RACE, Severity.CRITICAL), bare_request(pid))
        return KILL

    # --- the clock's thread

    def _watch(self) -> None:
        seen: _InHand | None = None
        looks = 0
        while not self._stopping.wait(self._deadline / _LOOKS):
            hand = self._in_hand
            looks = looks + 1 if hand is seen and hand is not None else 0
            seen = hand
            if hand is not None and looks == _LOOKS:
                shown = bare_request(hand.question.stopped.tid)
                if self._settle(hand, _refusal(hand.question)):
                    self._overdue(hand.question, self._deadline, shown)
            elif looks == 2 * _LOOKS:
                if self._ended is not None:
                    self._ended("a call could not be decided")
                return

    def _overdue(self, question: Question, seconds: float, shown: CommandRequest | None = None) -> None:
        """It was refused, or its process killed, since nobody answered in time: put it on record. `shown`: what /proc
        showed of the process before."""
        stopped = question.stopped
        log.error("call %d of task %d was not decided within %g s", stopped.number, stopped.tid, seconds)
        if self._is_exec(question):
            late = own_decision("exec-deadline", f"not decided within {seconds:g} s", Severity.HIGH)
            self._judge.record(late, shown or bare_request(stopped.tid))
        elif (other := self._others.get(stopped.number)) is not None:
            other.overdue(stopped, seconds)


def _refusal(question: Question) -> int:
    return errno.EACCES if question.what is Asks.CALL else KILL
