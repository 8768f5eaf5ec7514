"""The tracer of a session's execs, where the kernel has no seccomp user notification (gVisor): ptrace(2), no more.

A small process of its own: the launcher forks what becomes the session's init, and stays outside as its tracer. Rules
kept here:
- It seizes that child before its first step, and the kernel attaches whatever is started from then on, before its first
  instruction.
- It decides nothing, and reads nothing of the session's but the registers of a stopped call. Each exec, and each
  program that is loaded and has not run, stands still until the guard has answered (agent.enforce.commands.tracer).
- It outlives the guard, whose end of the socket the keeper holds too: what is stopped waits for the next guard, and
  the question that the last one was asked is put to that one, marked.
- Nothing waits for ever: what no guard answers in `PATIENCE_S` (one that hangs, or is stopped) is refused, or killed
  where no call can be; whichever guard reads on is told, and puts it on record.
- Its end is the end of all that it traces (PTRACE_O_EXITKILL), and it ends when nobody is left at the other end.
- Signals, stops and continues pass unchanged: the session's job control is its own.
"""

from __future__ import annotations

import _thread
import errno
import os
import select
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from typing import Final, NoReturn

from agent.linux import process, ptrace
from agent.linux.notify import Notification
from agent.linux.process import Capability
from agent.linux.ptrace import Kind
from agent.linux.syscalls import AUDIT_ARCH, Arch
from agent.values import dataclass

GO_ON: Final = 0
"""The answer that lets a task run."""
KILL: Final = -1
"""The answer that ends its process; any other is the errno by which its call fails."""


_QUESTION = struct.Struct("=BQQBiIQ6Q")
_TOLD = struct.Struct("=BQi")  # which, number, answer
_GREETING, _ANSWER = 1, 2
LONGEST: Final = 256
"""Bytes: more than a message of either side has."""
PATIENCE_S: Final = 20.0
"""Seconds: more than a guard takes to decide, or another one to take its place."""
_LOOKS: Final = 20
"""In so many parts: a clock that jumps, as in a restored sandbox, takes one of them away and not all."""


class Asks(IntEnum):
    """What a question is about: a call that stands still; a program that is loaded and has not run; a task of which
    nothing can be known, and which is killed whatever the answer is."""

    CALL = 1
    LOADED = 2
    LOST = 3


class Put(IntEnum):
    """How a question is put: for the first time; again, since a predecessor was asked it and has not answered; or not
    at all: nobody has answered in time, so it is settled, and told for the record."""

    FIRST = 0
    AGAIN = 1
    SETTLED = 2


@dataclass(frozen=True, slots=True)
class Question:
    """One question. `greeting`: the last that came, so that a guard knows what its predecessor was asked. `stopped`:
    the call, of which only `tid` counts where it is none."""

    what: Asks
    greeting: int
    number: int
    put: Put
    stopped: Notification

    def pack(self) -> bytes:
        stopped = self.stopped
        return _QUESTION.pack(
            self.what,
            self.greeting,
            self.number,
            self.put,
            stopped.tid,
            stopped.number,
            stopped.instruction_pointer,
            *stopped.arguments,
        )

    @classmethod
    def parse(cls, data: bytes) -> Question:
        """The inverse. Raises struct.error, ValueError."""
        what, greeting, count, put, tid, call, instruction, a, b, c, d, e, f = _QUESTION.unpack(data)
        stopped = Notification(tid, tid, call, AUDIT_ARCH[Arch.X86_64], instruction, (a, b, c, d, e, f))
        return cls(Asks(what), greeting, count, Put(put), stopped)


def pair() -> tuple[socket.socket, socket.socket]:
    """A connected pair whose messages are whole or not there, whenever an end dies; both close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def greet(tracer: socket.socket, greeting: int) -> None:
    """A guard's first word. `greeting`: its own number, and no other guard's. Raises OSError."""
    tracer.send(_TOLD.pack(_GREETING, greeting, 0), socket.MSG_NOSIGNAL)


def answer(tracer: socket.socket, question: Question, value: int) -> None:
    """Raises OSError."""
    tracer.send(_TOLD.pack(_ANSWER, question.number, value), socket.MSG_NOSIGNAL)


class Tracer:
    """Traces on the thread that calls `run`. `guard`: the socket to whoever answers. `patience`: seconds."""

    def __init__(self, guard: socket.socket, patience: float = PATIENCE_S) -> None:
        self._guard = guard
        self._slice_ms = patience / _LOOKS * 1000
        self._poller = select.poll()
        self._poller.register(guard, select.POLLIN)
        self._greeting = 0
        self._asked = 0

    def run(self, first: int, seized: Callable[[], None]) -> None:
        """Until nothing is left of `first` and all that came of it; `seized` is called when it is held. Raises OSError
        where it cannot be."""
        ptrace.seize(first)
        seized()
        _thread.start_new_thread(self._watch, ())
        while (report := ptrace.wait()) is not None:
            self._take(report)

    def _watch(self) -> None:
        """A session that asks for nothing ends with its agent too."""
        poller = select.poll()
        poller.register(self._guard, 0)  # POLLHUP and POLLERR are told unasked
        poller.poll()
        os._exit(1)

    def _take(self, report: ptrace.Report) -> None:
        try:
            self._deal(report)
        except ProcessLookupError:
            return  # killed meanwhile; its end is still to be reported
        except OSError:
            self._lose(report.tid)

    def _deal(self, report: ptrace.Report) -> None:
        match report.kind:
            case Kind.CALL:
                self._call(report.tid)
            case Kind.EXECUTED:
                if self._ask(Asks.LOADED, _only(report.tid)) == GO_ON:
                    ptrace.go_on(report.tid)
                else:
                    _kill(report.tid)
            case Kind.GROUP_STOP:
                ptrace.stay_stopped(report.tid)
            case Kind.NEW | Kind.SIGNAL:
                ptrace.go_on(report.tid, report.signal if report.kind is Kind.SIGNAL else 0)
            case Kind.UNKNOWN:
                self._lose(report.tid)

    def _call(self, tid: int) -> None:
        stopped = ptrace.stopped_call(tid)
        value = self._ask(Asks.CALL, stopped)
        if value == GO_ON:
            ptrace.go_on(tid)
        elif value == KILL:
            _kill(tid)
        else:
            ptrace.refuse_call(tid, value)

    def _lose(self, tid: int) -> None:
        self._ask(Asks.LOST, _only(tid))
        _kill(tid)

    def _ask(self, what: Asks, stopped: Notification) -> int:
        """Ask, and wait for the answer, from whichever guard it comes; a refusal where none comes in time."""
        while self._poller.poll(0):
            self._heed(self._told())
        self._asked += 1
        self._send(Question(what, self._greeting, self._asked, Put.FIRST, stopped))
        looks = 0
        while looks < _LOOKS:
            if not self._poller.poll(self._slice_ms):
                looks += 1
                continue
            word = self._told()
            if word[0] == _GREETING:
                looks = 0
                self._heed(word)
                self._send(Question(what, self._greeting, self._asked, Put.AGAIN, stopped))
            elif word[1] == self._asked:
                return word[2]
        self._send(Question(what, self._greeting, self._asked, Put.SETTLED, stopped))
        return errno.EACCES if what is Asks.CALL else KILL

    def _heed(self, word: tuple[int, int, int]) -> None:
        if word[0] == _GREETING:
            self._greeting = word[1]

    def _send(self, question: Question) -> None:
        try:
            self._guard.send(question.pack(), socket.MSG_NOSIGNAL)
        except OSError:
            _end()

    def _told(self) -> tuple[int, int, int]:
        """The next word, which is there."""
        try:
            return _TOLD.unpack(self._guard.recv(LONGEST) or _end())
        except OSError:
            _end()


def split(guard: socket.socket) -> None:
    """Fork. The caller goes on as the child, which is traced from here on; this process becomes its tracer and does not
    return. `guard`: the tracer's socket, closed in the child. Raises OSError, in the child, where it is not traced."""
    with suppress(PermissionError):  # it leads a group already
        os.setsid()  # before there is a child: gVisor does not come back from it else
    told, tell = os.pipe()
    child = os.fork()
    if child:
        try:
            _become(guard, child, tell)
        finally:
            os._exit(1)
    os.close(tell)
    guard.close()
    held = os.read(told, 1)
    os.close(told)
    if not held:
        raise PermissionError(errno.EPERM, "this process cannot be traced")


def _become(guard: socket.socket, child: int, tell: int) -> NoReturn:
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for stream in (0, 1, 2):  # the operator's may be among them; gVisor lets anybody open what root has open
        os.dup2(null, stream)
    low, high = sorted((guard.fileno(), tell))
    for first, last in ((3, low - 1), (low + 1, high - 1), (high + 1, process.LAST_DESCRIPTOR)):
        if first <= last:
            process.close_range(first, last)

    def seized() -> None:
        process.keep_capabilities((Capability.KILL,))
        process.set_dumpable(False)
        os.write(tell, b"s")
        os.close(tell)

    Tracer(guard).run(child, seized)
    os._exit(0)


def _only(tid: int) -> Notification:
    return Notification(tid, tid, 0, AUDIT_ARCH[Arch.X86_64], 0, (0, 0, 0, 0, 0, 0))


def _kill(tid: int) -> None:
    """The whole process of `tid`. It is traced and its end not taken, so the number is still its own."""
    with suppress(ProcessLookupError):
        os.kill(tid, signal.SIGKILL)


def _end() -> NoReturn:
    """Nobody is left to answer: the kernel kills whatever is traced."""
    os._exit(1)
