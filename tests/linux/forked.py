"""Running a piece of a test in a child that may put filters, rulesets and namespaces on itself."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from collections.abc import Callable

from agent.linux import namespaces

PATIENCE_S = 120.0
RAISED = 200
"""The child's status where the piece raised something that was not an OSError."""


def outcome(piece: Callable[[], object]) -> int:
    """0 where `piece` returned in a forked child, the errno of its OSError, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        status = RAISED
        try:
            piece()
            status = 0
        except OSError as error:
            status = error.errno or RAISED
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(status)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the child did not end")


def told[T](piece: Callable[[], T]) -> T:
    """What `piece` returns in a child in a mount namespace of its own, as JSON can carry it."""
    ours, theirs = os.pipe()

    def child() -> None:
        namespaces.unshare(namespaces.NEWNS)
        namespaces.make_mounts_private()
        os.write(theirs, json.dumps(piece()).encode())

    assert outcome(child) == 0
    os.close(theirs)
    with open(ours, "rb") as pipe:
        found: T = json.loads(pipe.read())
    return found


def raw(number: int, *arguments: int) -> int:
    """A system call by number, for numbers that the table does not know. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result: int = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) for a in arguments))
    if result == -1:
        raise OSError(ctypes.get_errno(), f"call {number}")
    return result
