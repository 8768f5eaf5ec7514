"""What is read of a stopped task, and that it stays that task."""

from __future__ import annotations

import ctypes
import os
import threading

import pytest

from agent.enforce import memory
from agent.enforce.memory import Memory, Task, Unreadable


def test_a_task_that_died_is_gone_even_where_its_number_lives_again() -> None:
    child = os.fork()
    if child == 0:
        threading.Event().wait(60)
    task = Task(child)
    with task:
        os.kill(child, 9)
        os.waitpid(child, 0)
        for look in (lambda: task.cwd, lambda: task.root, lambda: task.identity, lambda: task.directory(0)):
            with pytest.raises((ProcessLookupError, FileNotFoundError)):
                look()


def test_a_thread_knows_its_process() -> None:
    tids: list[int] = []
    ready, end = threading.Event(), threading.Event()

    def run() -> None:
        tids.append(threading.get_native_id())
        ready.set()
        end.wait()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    with Task(tids[0]) as task, Task(os.getpid()) as first:
        assert task.tgid == first.tgid == os.getpid()
        assert (task.identity.tid, task.identity.tgid) == (tids[0], os.getpid())
        assert task.identity.ppid == os.getppid()
        assert task.identity == memory._by_status(tids[0], task._proc), "with the call and without"
    end.set()
    thread.join()


def test_strings_are_read_up_to_their_bound() -> None:
    text = ctypes.create_string_buffer(b"x" * 9000 + b"\0after", 9100)
    place = ctypes.addressof(text)
    descriptor = os.open("/proc/self/mem", os.O_RDONLY)
    try:
        reader = Memory(descriptor)
        assert reader.string(place, 9000) == b"x" * 9000
        assert reader.string(place + 8990, 10) == b"x" * 10
        assert reader.string(place + 9001, 10) == b"after"
        assert reader.string(place + 9000, 0) == b""
        for at, limit in ((place, 8999), (place + 8990, 9), (8, 10)):
            with pytest.raises(Unreadable):
                reader.string(at, limit)
    finally:
        os.close(descriptor)
