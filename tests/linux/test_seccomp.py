"""Installing filters, and the probes."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct

import psutil
import pytest

from agent.linux import bpf, notify, process, seccomp
from agent.linux.syscalls import number, syscall
from tests.conftest import require
from tests.linux.forked import outcome


def refuse_getppid(answer: int) -> bytes:
    nr = {"x86_64": 110, "aarch64": 173}[os.uname().machine]
    source = [bpf.load(0), bpf.jump_equal(nr, no="allow"), bpf.ret(answer), bpf.Label("allow"), bpf.ret(0x7FFF0000)]
    return bpf.assemble(source)


def test_an_installed_filter_decides() -> None:
    def attempt() -> None:
        process.set_no_new_privs()
        assert seccomp.install(refuse_getppid(seccomp.RET_KILL_PROCESS)) is None
        os.getppid()

    assert outcome(attempt) == -signal.SIGSYS


def test_without_no_new_privs_an_unprivileged_install_is_eacces() -> None:
    def attempt() -> None:
        if os.geteuid() == 0:
            os.setresuid(64321, 64321, 64321)
        seccomp.install(refuse_getppid(seccomp.RET_ALLOW))

    assert outcome(attempt) == errno.EACCES


def test_a_program_of_broken_length_is_refused_before_the_kernel() -> None:
    with pytest.raises(ValueError, match="8-byte"):
        seccomp.install(b"123")


def test_a_second_listener_is_ebusy() -> None:
    require(seccomp.notification_available(), "seccomp user notification")

    def attempt() -> None:
        process.set_no_new_privs()
        listener = seccomp.install_with_listener(refuse_getppid(seccomp.RET_ALLOW))
        assert not os.get_inheritable(listener)
        seccomp.install_with_listener(refuse_getppid(seccomp.RET_ALLOW))

    assert outcome(attempt) == errno.EBUSY


def children() -> set[int]:
    """This process's children (zombies too); other tests' servers may be among them."""
    return {child.pid for child in psutil.Process().children()}


def test_the_probes_agree_with_the_kernels_own_word_and_leave_no_child() -> None:
    def kernel_has(action: int) -> bool:
        try:
            syscall("seccomp", seccomp.GET_ACTION_AVAIL, 0, struct.pack("=I", action))
        except OSError:
            return False
        return True

    before = children()
    assert seccomp.filter_available() is kernel_has(seccomp.RET_ERRNO)
    if not kernel_has(seccomp.RET_USER_NOTIF):
        assert not seccomp.notification_available()
    assert children() == before


def test_a_probe_under_a_filter_that_kills_says_no() -> None:
    """As on gVisor, where a task whose filter returns USER_NOTIF is killed: only the probe's child dies."""
    nr = number("seccomp")
    assert nr is not None
    source = [bpf.load(0), bpf.jump_equal(nr, no="allow"), bpf.ret(seccomp.RET_KILL_PROCESS), bpf.Label("allow")]

    def attempt() -> None:
        process.set_no_new_privs()
        seccomp.install(bpf.assemble([*source, bpf.ret(seccomp.RET_ALLOW)]))
        if seccomp.notification_available() or seccomp.filter_available():
            os._exit(99)

    assert outcome(attempt) == 0


def notified(answer: str) -> int:
    """What the child's getppid returns (as its status) when the parent answers so."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        process.set_no_new_privs()
        listener = seccomp.install_with_listener(refuse_getppid(seccomp.RET_USER_NOTIF))
        socket.send_fds(theirs, [b"x"], [listener])
        os.close(listener)
        theirs.recv(1)
        got = os.getppid()
        os._exit(1 if got == os.getpid() else 77 if got == 77 else 2)
    listener = socket.recv_fds(ours, 1, 1)[1][0]
    notify.prefer_sync_wake_up(listener)
    ours.send(b"g")
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    assert poller.poll(60_000)
    stopped = notify.receive(listener)
    assert stopped is not None
    assert stopped.tid == child
    assert notify.is_valid(listener, stopped.id)
    if answer == "kill":
        os.kill(child, signal.SIGKILL)
    elif answer == "value":
        assert notify.send_value(listener, stopped.id, 77)
    else:
        assert notify.send_continue(listener, stopped.id)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert not notify.is_valid(listener, stopped.id)
    assert not notify.send_errno(listener, stopped.id, errno.EPERM), "answering the vanished is not an error"
    assert poller.poll(60_000)[0][1] & select.POLLHUP, "the end of all tasks is POLLHUP"
    os.close(listener)
    ours.close()
    theirs.close()
    return status


@pytest.mark.parametrize(("answer", "status"), [("value", 77), ("continue", 2), ("kill", -signal.SIGKILL)])
def test_a_notified_call_gets_the_answer(answer: str, status: int) -> None:
    require(seccomp.notification_available(), "seccomp user notification")
    assert notified(answer) == status


def test_a_descriptor_can_be_put_into_a_stopped_task() -> None:
    require(seccomp.notification_available(), "seccomp user notification")
    ours, theirs = socket.socketpair()
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        process.set_no_new_privs()
        listener = seccomp.install_with_listener(refuse_getppid(seccomp.RET_USER_NOTIF))
        socket.send_fds(theirs, [b"x"], [listener])
        os.close(listener)
        try:
            os.write(os.getppid(), b"in")
        finally:
            os._exit(0)
    listener = socket.recv_fds(ours, 1, 1)[1][0]
    stopped = notify.receive(listener)
    assert stopped is not None
    placed = notify.add_fd(listener, stopped.id, write_end, replace=50)
    assert placed == 50
    assert notify.send_value(listener, stopped.id, placed)
    os.waitpid(child, 0)
    os.set_blocking(read_end, False)
    assert os.read(read_end, 10) == b"in"
    for descriptor in (read_end, write_end, listener):
        os.close(descriptor)
