"""Installing a seccomp filter, and asking in a throw-away child what the kernel offers.

Probes fork: a filter cannot be taken off again, and gVisor kills a task whose filter returns USER_NOTIF. Constants are
from linux/seccomp.h; behaviour from seccomp(2) and seccomp_unotify(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import time
from collections.abc import Callable

from agent.linux import bpf, process
from agent.linux.syscalls import number, syscall

SET_MODE_FILTER = 1
GET_ACTION_AVAIL = 2

FLAG_NEW_LISTENER = 1 << 3
FLAG_WAIT_KILLABLE_RECV = 1 << 5  # Linux 5.19: a signal does not interrupt a call that was already received

RET_KILL_PROCESS = 0x80000000
RET_ERRNO = 0x00050000
RET_USER_NOTIF = 0x7FC00000
RET_TRACE = 0x7FF00000
RET_ALLOW = 0x7FFF0000

_PROBE_SECONDS = 5.0


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(program: bytes, flags: int = 0) -> int | None:
    """Put the filter on the calling thread and all it starts; it can never be taken off.

    Returns the listener's descriptor (close-on-exec) with FLAG_NEW_LISTENER, else None. Needs no_new_privs or
    CAP_SYS_ADMIN. Raises OSError: EBUSY where the thread already has a listener, EINVAL where a flag or an action is
    unknown, EACCES without no_new_privs.
    """
    if len(program) % 8:
        raise ValueError("a filter is an array of 8-byte instructions")
    argument = ctypes.create_string_buffer(bytes(_Program(len(program) // 8, program)))
    descriptor = syscall("seccomp", SET_MODE_FILTER, flags, argument)
    return descriptor if flags & FLAG_NEW_LISTENER else None


def install_with_listener(program: bytes) -> int:
    """`install` with a listener, and with WAIT_KILLABLE_RECV where the kernel knows it. Raises OSError as `install`."""
    for flags in (FLAG_NEW_LISTENER | FLAG_WAIT_KILLABLE_RECV, FLAG_NEW_LISTENER):
        try:
            descriptor = install(program, flags)
        except OSError as error:
            if error.errno != errno.EINVAL or flags == FLAG_NEW_LISTENER:
                raise
        else:
            assert descriptor is not None  # noqa: S101 - install returns one with FLAG_NEW_LISTENER
            return descriptor
    raise AssertionError("unreachable")


def filter_available() -> bool:
    """True where a filter that refuses getpid does refuse it, shown in a child."""

    def attempt() -> bool:
        process.set_no_new_privs()
        install(_refuse_getpid(RET_ERRNO | errno.EXDEV))
        try:
            syscall("getpid")
        except OSError as error:
            return error.errno == errno.EXDEV
        return False

    return _in_child(attempt)


def notification_available() -> bool:
    """True where a notified call of a child reaches this process's listener and gets the answer given there."""
    from agent.linux import notify

    def attempt() -> bool:
        process.set_no_new_privs()
        listener = install_with_listener(_refuse_getpid(RET_USER_NOTIF))
        child = os.fork()
        if child == 0:
            try:
                syscall("getpid")
            except OSError as error:
                os._exit(0 if error.errno == errno.EXDEV else 1)
            os._exit(1)
        poller = select.poll()
        poller.register(listener, select.POLLIN)
        if poller.poll(_PROBE_SECONDS * 1000):
            received = notify.receive(listener)
            if received is not None:
                notify.send_errno(listener, received.id, errno.EXDEV)
        else:
            os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    return _in_child(attempt)


def socket_making_available() -> bool:
    """True where a supervisor can answer a notified socket(2) with a descriptor of its own making, in one step."""
    from agent.linux import notify

    def attempt() -> bool:
        process.set_no_new_privs()
        listener = install_with_listener(_refuse_getpid(RET_USER_NOTIF))
        child = os.fork()
        if child == 0:  # getpid stands for socket here: the kernel does not look at what is answered
            placed = syscall("getpid")
            os._exit(0 if os.readlink(f"/proc/thread-self/fd/{placed}").startswith("pipe:") else 1)  # noqa: PTH115
        poller = select.poll()
        poller.register(listener, select.POLLIN)
        try:
            received = notify.receive(listener) if poller.poll(_PROBE_SECONDS * 1000) else None
            if received is not None:
                notify.add_fd(listener, received.id, os.pipe()[0], answer=True)
        except OSError:
            os.kill(child, signal.SIGKILL)
        return received is not None and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    return _in_child(attempt)


def _refuse_getpid(answer: int) -> bytes:
    getpid = number("getpid")
    assert getpid is not None  # noqa: S101 - both machines have it
    return bpf.assemble(
        [
            bpf.load(bpf.NR_OFFSET),
            bpf.jump_equal(getpid, no="allow"),
            bpf.ret(answer),
            bpf.Label("allow"),
            bpf.ret(RET_ALLOW),
        ]
    )


def _in_child(attempt: Callable[[], bool]) -> bool:
    """Run `attempt` in a forked child with a time limit; False where it fails, dies or hangs."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if attempt() else 1
        finally:
            os._exit(status)
    deadline = time.monotonic() + 2 * _PROBE_SECONDS
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False
