"""Who a task is, asked of its descriptor, against what /proc says."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from agent.linux.pidfd import task_info
from tests.conftest import require
from tests.linux.forked import outcome


def known() -> bool:
    try:
        task_info(os.getpid())
    except OSError as error:
        return error.errno not in (errno.EINVAL, errno.ENOTTY)
    return True


def test_a_process_and_a_thread_of_it() -> None:
    require(known(), "PIDFD_GET_INFO, Linux 6.13")
    found = []
    thread = threading.Thread(
        target=lambda: found.append((threading.get_native_id(), task_info(threading.get_native_id())))
    )
    thread.start()
    thread.join()
    ((tid, info),) = found
    assert info == (tid, os.getpid(), os.getppid(), os.getuid())
    assert task_info(os.getpid()) == (os.getpid(), os.getpid(), os.getppid(), os.getuid())


def test_the_real_user_is_said() -> None:
    require(known() and os.geteuid() == 0, "PIDFD_GET_INFO and root")

    def piece() -> None:
        os.setresuid(1234, 0, 0)
        assert task_info(os.getpid()).uid == 1234

    assert outcome(piece) == 0


def test_a_task_that_is_not_there() -> None:
    with pytest.raises(OSError):
        task_info((1 << 22) + 1)
