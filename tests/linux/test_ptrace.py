"""What a wait status means, and reading, refusing and resuming a stopped call of a real child."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable

import pytest

from agent.linux import bpf, process, ptrace, seccomp
from agent.linux.ptrace import Kind
from agent.linux.syscalls import Arch, native

pytestmark = pytest.mark.skipif(native() is not Arch.X86_64, reason="tracing is for x86-64 only")

GETPPID = 110  # asm/unistd_64.h


def stopped(signal_number: int, event: int) -> int:
    return event << 16 | signal_number << 8 | 0x7F


@pytest.mark.parametrize(
    ("status", "kind", "number"),
    [
        (0, Kind.ENDED, 0),
        (3 << 8, Kind.ENDED, 0),
        (signal.SIGKILL, Kind.ENDED, 0),
        (stopped(signal.SIGTERM, 0), Kind.SIGNAL, signal.SIGTERM),
        (stopped(signal.SIGTRAP, 0), Kind.SIGNAL, signal.SIGTRAP),
        (stopped(signal.SIGSTOP, 0), Kind.SIGNAL, signal.SIGSTOP),
        (stopped(signal.SIGTRAP, 1), Kind.NEW, 0),
        (stopped(signal.SIGTRAP, 2), Kind.NEW, 0),
        (stopped(signal.SIGTRAP, 3), Kind.NEW, 0),
        (stopped(signal.SIGTRAP, 4), Kind.EXECUTED, 0),
        (stopped(signal.SIGTRAP, 7), Kind.CALL, 0),
        (stopped(signal.SIGTRAP, 128), Kind.NEW, signal.SIGTRAP),
        (stopped(signal.SIGTSTP, 128), Kind.GROUP_STOP, signal.SIGTSTP),
        (stopped(signal.SIGSTOP, 128), Kind.GROUP_STOP, signal.SIGSTOP),
        (stopped(signal.SIGTRAP, 6), Kind.UNKNOWN, 0),
    ],
)
def test_a_status_means(status: int, kind: Kind, number: int) -> None:
    assert ptrace.report(7, status) == ptrace.Report(7, kind, status, number)


class Child:
    """Waits to be traced, then calls getppid with arguments under a filter that stops it, and ends with its result."""

    def __init__(self) -> None:
        read, self._go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.read(read, 1)
                process.set_no_new_privs()
                nr = bpf.jump_equal(GETPPID, no="allow")
                source = [bpf.load(bpf.NR_OFFSET), nr, bpf.ret(seccomp.RET_TRACE), bpf.Label("allow")]
                seccomp.install(bpf.assemble([*source, bpf.ret(seccomp.RET_ALLOW)]))
                os._exit(abs(os.getppid()) % 251)
            finally:
                os._exit(252)
        os.close(read)

    def go(self) -> None:
        os.write(self._go, b"g")


def until(kind: Kind) -> ptrace.Report:
    while (found := ptrace.wait()) is not None:
        if found.kind is kind:
            return found
        ptrace.go_on(found.tid, found.signal if found.kind is Kind.SIGNAL else 0)
    raise AssertionError(f"no {kind}")


def in_thread(piece: Callable[[], None]) -> None:
    """Run it on a thread of its own, which is then the tracer; its end is the end of what it traced."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            piece()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(120)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


def test_a_stopped_call_is_read_refused_and_never_run() -> None:
    def piece() -> None:
        child = Child()
        ptrace.seize(child.pid)
        child.go()
        report = until(Kind.CALL)
        call = ptrace.stopped_call(report.tid)
        assert (call.number, call.tid, call.id) == (GETPPID, child.pid, child.pid)
        assert ptrace.refuse_call(report.tid, errno.EXDEV)
        assert os.WEXITSTATUS(until(Kind.ENDED).status) == errno.EXDEV
        assert ptrace.wait() is None, "nothing is traced any more"

    in_thread(piece)


def test_a_call_that_goes_on_is_run() -> None:
    def piece() -> None:
        child = Child()
        ptrace.seize(child.pid)
        child.go()
        ptrace.go_on(until(Kind.CALL).tid)
        assert os.WEXITSTATUS(until(Kind.ENDED).status) == os.getpid() % 251

    in_thread(piece)


def test_what_is_gone_is_said_and_not_raised() -> None:
    def piece() -> None:
        child = Child()
        ptrace.seize(child.pid)
        child.go()
        report = until(Kind.CALL)
        os.kill(child.pid, signal.SIGKILL)
        assert until(Kind.ENDED).status == signal.SIGKILL
        assert not ptrace.go_on(report.tid)
        assert not ptrace.stay_stopped(report.tid)
        assert not ptrace.refuse_call(report.tid, errno.EACCES)
        with pytest.raises(ProcessLookupError):
            ptrace.stopped_call(report.tid)

    in_thread(piece)


def test_the_end_of_the_tracing_thread_kills_what_it_traced() -> None:
    child = Child()

    def piece() -> None:
        ptrace.seize(child.pid)
        child.go()
        until(Kind.CALL)

    in_thread(piece)
    assert os.waitpid(child.pid, 0)[1] == signal.SIGKILL


def test_only_the_tracing_thread_may_ask() -> None:
    child = Child()

    def piece() -> None:
        ptrace.seize(child.pid)
        child.go()
        until(Kind.CALL)
        told: list[bool] = []
        other = threading.Thread(target=lambda: told.append(ptrace.go_on(child.pid)))
        other.start()
        other.join()
        assert told == [False]

    in_thread(piece)
    os.waitpid(child.pid, 0)
