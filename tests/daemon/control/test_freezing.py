"""Processes held still: each of them, with threads and without a first one, and let go again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from agent.daemon.control.freezing import Freezer
from tests.conftest import require

COUNT = """
import ctypes, os, sys, threading, time
def count(path):
    n = 0
    while True:
        n += 1
        with open(path, "w") as file: file.write(str(n))
        time.sleep(0.001)
"""
KINDS = {
    "alone": "count(sys.argv[1])",
    "two forks away": "os.fork() or os.setsid() or os.fork() or count(sys.argv[1])\ntime.sleep(99)",
    "a thread": "threading.Thread(target=count, args=sys.argv[1:]).start()\ntime.sleep(99)",
    "without a first thread": (
        "threading.Thread(target=count, args=sys.argv[1:]).start()\nctypes.CDLL(None).syscall(60, 0)"  # exit(2)
    ),
}


WOKEN = """
import signal, time
def count(path):
    libc = ctypes.CDLL(None)
    signal.signal(signal.SIGCONT, lambda *_: None)  # an ignored one would not be sent again
    event = (ctypes.c_int * 16)(0, 0, signal.SIGCONT, 0)
    timers = [ctypes.c_void_p() for _ in range(64)]
    for timer in timers:
        libc.timer_create(1, event, ctypes.byref(timer))  # by CLOCK_MONOTONIC, which goes on
    n = 0
    while True:
        n += 1
        # a SIGSTOP takes a pending SIGCONT away, and the timer that sent it fires again only where it is set again
        for turn, timer in enumerate(timers, 1):
            times = (ctypes.c_long * 4)(0, 50_000_000 + turn * 1_000_000, 0, turn * 7_000_000)
            libc.timer_settime(timer, 0, times, None)
        with open(path, "w") as file: file.write(str(n))
        time.sleep(0.001)
count(sys.argv[1])
"""
"""What the kernel lets go on, by a timer of its own."""


class Counter:
    """Something that counts below `root`."""

    def __init__(self, kind: str, path: Path) -> None:
        self._path = path
        argv = [sys.executable, "-c", COUNT + KINDS.get(kind, WOKEN), str(path)]
        self._shell = subprocess.Popen(["/bin/sh", "-c", '"$@" & wait', "sh", *argv])
        self.root = self._shell.pid
        self.freezer = Freezer(lambda: self.root, hold_seconds=0.02)
        self.until_it_counts()

    def moves(self, seconds: float = 0.3) -> bool:
        """Whether it counts on within this time."""
        before, deadline = self._path.read_bytes(), time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.01)
            if self._path.read_bytes() != before:
                return True
        return False

    def until_it_counts(self) -> None:
        deadline = time.monotonic() + 30
        while not self._path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert self.moves(30)

    def end(self) -> None:
        for pid in self.freezer.processes():
            os.kill(pid, signal.SIGKILL)
        self._shell.kill()
        self._shell.wait()


@pytest.fixture(params=list(KINDS))
def counter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Counter]:
    made = Counter(request.param, tmp_path / "count")
    yield made
    made.end()


def held(counter: Counter, test: Callable[[], Awaitable[None]]) -> None:
    async def body() -> None:
        assert await counter.freezer.freeze(30) == []
        try:
            await test()
        finally:
            await counter.freezer.thaw()

    asyncio.run(body())


def test_what_is_frozen_makes_no_progress_and_goes_on_when_it_is_let_go(counter: Counter) -> None:
    async def test() -> None:
        assert counter.freezer.frozen
        assert not await asyncio.to_thread(counter.moves)

    held(counter, test)
    assert not counter.freezer.frozen
    counter.until_it_counts()


def test_what_somebody_lets_go_is_stopped_again(counter: Counter) -> None:
    async def test() -> None:
        for pid in counter.freezer.processes():
            os.kill(pid, signal.SIGCONT)
        for _ in range(100):  # the next walk may take its time
            if not await asyncio.to_thread(counter.moves):
                return
        pytest.fail("it counts on")

    held(counter, test)


def test_what_goes_on_by_itself_is_told_once(tmp_path: Path) -> None:
    counter = Counter("woken", tmp_path / "count")

    async def body() -> None:
        told = asyncio.Event()
        calls = []
        counter.freezer.unheld = lambda: (calls.append(1), told.set())[1]
        if await counter.freezer.freeze() == []:  # else it is told at once
            await asyncio.wait_for(told.wait(), 120)
            await asyncio.sleep(0.2)
            assert calls == [1]
        await counter.freezer.thaw()

    try:
        asyncio.run(body())
    finally:
        counter.end()


WAITS_FOR_A_CHILD = """
import os, sys
os.mkfifo(sys.argv[1] + ".fifo")
opened = (os.POSIX_SPAWN_OPEN, 0, sys.argv[1] + ".fifo", os.O_RDONLY, 0)
try: os.posix_spawn("/bin/true", ["true"], {}, file_actions=[opened])
except OSError: pass
count(sys.argv[1])
"""
"""Its child waits for a writer before its exec, and so long it waits for its child, uninterruptibly (vfork(2))."""


def test_what_waits_uninterruptibly_has_the_signal_when_its_wait_ends(tmp_path: Path) -> None:
    path = tmp_path / "count"
    argv = [sys.executable, "-c", COUNT + WAITS_FOR_A_CHILD, str(path)]
    with subprocess.Popen(argv) as process:
        freezer = Freezer(os.getpid, hold_seconds=3600)
        below = freezer.processes
        freezer.processes = lambda: {  # type: ignore[method-assign]
            pid: states for pid, states in below().items() if pid in _family(process.pid)
        }
        try:
            until(lambda: len(_family(process.pid)) == 2 and state(process.pid) == "D")
            assert asyncio.run(freezer.freeze(30)) == []
            (child,) = _family(process.pid) - {process.pid}
            os.kill(child, signal.SIGKILL)
            until(lambda: state(process.pid) == "T")
            assert not path.exists()
        finally:
            process.kill()


def _family(pid: int) -> set[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {pid, *map(int, children)}


def test_what_is_let_go_once_is_no_fault(counter: Counter) -> None:
    calls: list[int] = []
    counter.freezer = Freezer(lambda: counter.root, hold_seconds=0.5)  # time to take the signal before the next walk
    counter.freezer.unheld = lambda: calls.append(1)

    async def test() -> None:
        for pid in counter.freezer.processes():
            os.kill(pid, signal.SIGCONT)
        await asyncio.to_thread(until, lambda: all(set(s) == {"T"} for s in counter.freezer.processes().values()))
        counter.freezer._hold_seconds = 0.01
        await asyncio.sleep(0.7)  # many walks
        assert calls == []

    held(counter, test)


def test_what_was_stopped_before_stays_stopped(tmp_path: Path) -> None:
    counter = Counter("alone", tmp_path / "count")
    try:
        for pid in counter.freezer.processes():
            os.kill(pid, signal.SIGSTOP)
        until(lambda: set("".join(counter.freezer.processes().values())) == {"T"})

        async def test() -> None:
            assert counter.freezer.frozen

        held(counter, test)
        assert not counter.moves()
    finally:
        counter.end()


def test_what_is_spared_goes_on(tmp_path: Path) -> None:
    counter = Counter("alone", tmp_path / "count")
    try:
        spared = [*counter.freezer.processes()]
        counter.freezer = Freezer(lambda: counter.root, spare=lambda: spared)

        async def test() -> None:
            assert await asyncio.to_thread(counter.moves, 30)

        held(counter, test)
    finally:
        counter.freezer = Freezer(lambda: counter.root)
        counter.end()


def test_another_session_of_the_account_that_begins_meanwhile_goes_on() -> None:
    require(os.geteuid() == 0, "root, to start something as another account")
    uid = 64_000 + os.getpid() % 1000  # nobody's
    ours = subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"], user=uid)
    theirs = subprocess.Popen(["/bin/sleep", "60"], user=uid)
    looks = iter([[]])  # the first look comes before the other session's beginning
    freezer = Freezer(os.getpid, account=uid, strangers=lambda account: next(looks, [theirs.pid]))
    freezer.processes = lambda: {ours.pid: state(ours.pid)}  # type: ignore[method-assign]
    try:
        until(lambda: state(ours.pid) == "R")  # one that its disk keeps waiting is at rest
        assert freezer._round() == [ours.pid]
        until(lambda: state(ours.pid) == "T")
        until(lambda: state(theirs.pid) == "S")
    finally:
        for process in (ours, theirs):
            process.kill()
            process.wait()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
