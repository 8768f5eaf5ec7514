"""A supervisor that is killed with a call in hand leaves no task waiting: its successor denies that call."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time

import pytest

from agent.enforce.notify_journal import NotifyJournal
from agent.enforce.notify_loop import PROCEED, Answer, NotifyLoop
from agent.linux import notify
from agent.linux.process import FilesystemIdentity
from agent.linux.syscalls import number
from tests.conftest import require
from tests.enforce.commands.filtered import Filtered

EXECVE = number("execve")
assert EXECVE is not None


class Answering:
    """Lets every call through, or keeps it for ever."""

    def __init__(self, stuck: int | None = None) -> None:
        self.stuck = stuck
        self.faults: list[int] = []
        self.answered = 0

    def answer(self, stopped: notify.Notification, listener: int) -> Answer:
        if self.stuck is not None:
            os.write(self.stuck, b"x")
            time.sleep(600)
        self.answered += 1
        return PROCEED

    def fault(self, stopped: notify.Notification) -> None:
        self.faults.append(stopped.number)

    def overdue(self, stopped: notify.Notification, seconds: float) -> None:
        raise AssertionError

    def took(self, stopped: notify.Notification, seconds: float) -> None:
        pass


def loop(listener: int, handler: Answering, journal: NotifyJournal) -> NotifyLoop:
    handlers = dict.fromkeys((nr for name in ("execve", "execveat", "arch_prctl") if (nr := number(name))), handler)
    return NotifyLoop(listener, handlers, FilesystemIdentity(None, None), deadline=60, journal=journal)


def kill_with_a_call_in_hand(listener: int, journal: NotifyJournal, child: Filtered) -> None:
    told, tell = os.pipe()
    first = os.fork()
    if first == 0:
        try:
            loop(listener, Answering(tell), journal).start()
            time.sleep(600)
        finally:
            os._exit(1)
    threading.Thread(target=child.go, daemon=True).start()
    assert os.read(told, 1) == b"x"
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    os.close(told)
    os.close(tell)


@pytest.mark.root
def test_the_call_that_was_in_hand_is_denied_and_the_next_ones_are_decided() -> None:
    require(os.geteuid() == 0, "another user's process needs root")
    child = Filtered(["/bin/echo", "ran"])
    journal = NotifyJournal()
    kill_with_a_call_in_hand(os.dup(child.listener), journal, child)
    ((_, left),) = journal.left()
    assert left.number == EXECVE
    handler = Answering()
    successor = loop(os.dup(child.listener), handler, NotifyJournal(os.dup(journal.descriptor)))
    successor.start()
    finished = child.finish()
    successor.stop()
    os.close(child.listener)
    assert finished.status != 0
    assert "ran" not in finished.out
    assert "Permission denied" in finished.err
    assert handler.faults == [EXECVE]
    assert list(journal.left()) == []


@pytest.mark.root
def test_a_call_that_was_answered_is_not_answered_again() -> None:
    require(os.geteuid() == 0, "another user's process needs root")
    child = Filtered(["/bin/echo", "ran"])
    journal = NotifyJournal()
    kill_with_a_call_in_hand(os.dup(child.listener), journal, child)
    ((_, left),) = journal.left()
    notify.send_continue(child.listener, left.id)
    handler = Answering()
    successor = loop(os.dup(child.listener), handler, journal)
    successor.start()
    finished = child.finish()
    successor.stop()
    os.close(child.listener)
    assert (finished.status, finished.out) == (0, "ran\n")
    assert handler.faults == []


def test_what_a_loop_opened_is_closed_when_it_is_gone() -> None:
    listener = os.open(os.devnull, os.O_RDONLY)
    before = set(os.listdir("/proc/self/fd"))
    made = NotifyLoop(listener, {}, FilesystemIdentity(None, None), deadline=1)
    assert len(set(os.listdir("/proc/self/fd")) - before) > 1
    made.stop()
    del made
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) <= before
    os.close(listener)
