"""The exec ring behind ptrace where nobody answers in time: it is refused, on record, and the session goes on."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.gate import Gate
from agent.linux import bpf, seccomp
from agent.linux.notify import Notification
from agent.linux.syscalls import Arch, native
from agent.record.event import Event
from agent.session.tracer import GO_ON, LONGEST, Asks, Put, Question, answer, greet
from tests.conftest import require
from tests.enforce.commands.filtered import Finished
from tests.enforce.commands.test_supervisor import policy
from tests.enforce.commands.traced import Traced
from tests.enforce.ring import Recorded, build_request

pytestmark = pytest.mark.skipif(native() is not Arch.X86_64, reason="tracing is for x86-64 only")

GETPPID = 110  # asm/unistd_64.h
TWICE = "import os; print([os.getppid() < 0 for _ in range(2)], flush=True)"


@pytest.fixture(autouse=True)
def _needs_root() -> None:
    require(os.geteuid() == 0, "root, to give the session a uid of its own")


@pytest.fixture
def traced() -> Iterator[Callable[..., Traced]]:
    """Starts sessions that are traced, and wait for a guard; what a test leaves of them is ended."""
    sessions: list[Traced] = []

    def start(*argv: str, before_exec: Callable[[], None] | None = None, patience: float = 60.0) -> Traced:
        sessions.append(Traced(list(argv), before_exec=before_exec, patience=patience))
        sessions[-1].traced()
        return sessions[-1]

    yield start
    for session in sessions:
        session.close()


@pytest.fixture
def ways() -> Iterator[tuple[Path, Path]]:
    """Two FIFOs that the session's user can read; pytest's own directories are closed to others."""
    directory = Path(tempfile.mkdtemp(prefix="parhelia-trace-"))
    directory.chmod(0o755)
    made = directory / "first", directory / "second"
    for way in made:
        os.mkfifo(way)
        way.chmod(0o644)
    yield made
    shutil.rmtree(directory)


def own_filter() -> None:
    """A filter that sends getppid(2) to the tracer."""
    program = [
        bpf.load(bpf.NR_OFFSET),
        bpf.jump_equal(GETPPID, no="allow"),
        bpf.ret(seccomp.RET_TRACE),
        bpf.Label("allow"),
        bpf.ret(seccomp.RET_ALLOW),
    ]
    seccomp.install(bpf.assemble(program))


class Calls:
    """Answers for getppid(2) by `first` the first time, and lets it go on from then on."""

    def __init__(self, first: Callable[[], int] = lambda: 0) -> None:
        self.first: Callable[[], int] | None = first
        self.told: list[str] = []
        self.asked, self.late = threading.Event(), threading.Event()

    def answer(self, stopped: Notification) -> int:
        first, self.first = self.first, None
        self.asked.set()
        return GO_ON if first is None else first()

    def fault(self, stopped: Notification) -> None:
        self.told.append("fault")

    def overdue(self, stopped: Notification, seconds: float) -> None:
        self.told.append(f"overdue {seconds:g}")
        self.late.set()


def answered(session: Traced, calls: Calls, deadline: float = 60.0, *, successor: bool = False) -> Recorded:
    recorded = Recorded()
    others = {GETPPID: calls}
    gate = Gate(policy, recorded, "session:test")
    session.answer(gate, build_request, recorded.post, deadline, successor=successor, others=others)
    return recorded


def test_a_call_that_is_not_decided_in_time_is_refused_on_record_and_the_late_answer_counts_for_nothing(
    traced: Callable[..., Traced],
) -> None:
    calls = Calls(lambda: 0 if calls.late.wait(60) else errno.EIO)
    session = traced("/usr/bin/python3", "-c", TWICE, before_exec=own_filter)
    recorded = answered(session, calls, deadline=2.0)
    session.go()
    assert session.finish() == Finished(0, "[True, False]\n", "")
    assert (calls.told, recorded.rules()) == (["overdue 2"], [])


def test_a_call_whose_decision_raises_is_refused_and_recorded_as_what_it_is(traced: Callable[..., Traced]) -> None:
    def broken() -> int:
        raise RuntimeError("broken")

    calls = Calls(broken)
    session = traced("/usr/bin/python3", "-c", TWICE, before_exec=own_filter)
    recorded = answered(session, calls)
    session.go()
    assert session.finish() == Finished(0, "[True, False]\n", "")
    assert (calls.told, recorded.rules()) == (["fault"], [])


def test_a_call_that_a_dead_guard_had_in_hand_is_refused_and_recorded_as_what_it_is(
    traced: Callable[..., Traced],
) -> None:
    ends = threading.Event()
    dead, calls = Calls(lambda: 0 if ends.wait(60) else errno.EIO), Calls()
    calls.first = None
    session = traced("/usr/bin/python3", "-c", TWICE, before_exec=own_filter)
    answered(session, dead)
    session.go()
    assert dead.asked.wait(60)
    recorded = answered(session, calls, successor=True)
    finished = session.finish()
    ends.set()
    assert finished == Finished(0, "[True, False]\n", "")
    assert (calls.told, recorded.rules()) == (["fault"], [])


class Told(Recorded):
    """Tells the rule of each event in a pipe."""

    def __init__(self, pipe: int) -> None:
        super().__init__()
        self._pipe = pipe

    def post(self, event: Event) -> None:
        os.write(self._pipe, f"{event.details['rule']}\n".encode())

    accept = post


def guard_of_its_own(session: Traced) -> tuple[int, int]:
    """A process that answers, and a pipe of the rules that it records."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            recorded = Told(tell)
            session.answer(Gate(policy, recorded, "session:test"), build_request, recorded.post)
            session.go()
            session.ended.get()
        finally:
            os._exit(0)
    os.close(tell)
    return pid, told


def test_while_the_guard_is_stopped_an_exec_is_refused_and_on_record_when_it_goes_on(
    traced: Callable[..., Traced], ways: tuple[Path, Path]
) -> None:
    first, second = ways
    text = f"read x <{first}; /bin/echo ran; echo $?; read x <{second}; /bin/echo on"
    session = traced("/bin/sh", "-c", text, patience=3.0)
    guard, told = guard_of_its_own(session)
    try:
        with first.open("w") as go:  # the shell reads it
            os.kill(guard, signal.SIGSTOP)
            go.write("\n")
        with second.open("w") as go:  # and is here, though nobody answers
            os.kill(guard, signal.SIGCONT)
            assert os.read(told, 100) == b"exec-deadline\n"
            go.write("\n")
        finished = session.finish()
        assert (finished.status, finished.out) == (0, "126\non\n"), finished
    finally:
        os.kill(guard, signal.SIGKILL)
        os.waitpid(guard, 0)
        os.close(told)


@pytest.mark.parametrize("approved", [False, True])
def test_what_nobody_answers_is_settled_by_the_tracer_itself_and_told(
    traced: Callable[..., Traced], *, approved: bool
) -> None:
    """An exec is refused; a program that is loaded and has not run is killed."""
    session = traced("/bin/echo", "ran", patience=1.5)
    assert session.guards is not None
    guards = session.guards
    greet(guards, 1)
    session.go()
    asked = Question.parse(guards.recv(LONGEST))
    if approved:
        answer(guards, asked, GO_ON)
        asked = Question.parse(guards.recv(LONGEST))
    settled = Question.parse(guards.recv(LONGEST))
    assert (asked.what, asked.put) == (Asks.LOADED if approved else Asks.CALL, Put.FIRST)
    assert (settled.what, settled.put, settled.number) == (asked.what, Put.SETTLED, asked.number)
    finished = session.finish()
    assert (finished.status, finished.out) == (-signal.SIGKILL if approved else 126, "")
