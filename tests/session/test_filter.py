"""The seccomp filter: each entry attacked on the real kernel, and its program checked for both machines.

Not shown on this kernel: x32 calls that would really run (no kernel with CONFIG_X86_X32_ABI here; the filter still
kills the number), and aarch64 (its program runs on a machine written for these tests).
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.linux import landlock, process, seccomp
from agent.linux.syscalls import NEWEST_REVIEWED, Arch, native, number, syscall
from agent.session.filter import FilterOptions, build, entries
from tests.conftest import require
from tests.linux.forked import outcome, raw

OPEN = FilterOptions(notify_exec=False, jail=False, shared_uid=True)
JAIL = FilterOptions(notify_exec=False, jail=True, shared_uid=False)
OWN_UID = FilterOptions(notify_exec=False, jail=False, shared_uid=False)
NOTIFY = FilterOptions(notify_exec=True, jail=False, shared_uid=False)
ALL = [FilterOptions(n, j, s) for n in (False, True) for j in (False, True) for s in (False, True)]
CONNECT = FilterOptions(notify_exec=True, jail=False, shared_uid=False, notify_connect=True)
TRACE = FilterOptions(notify_exec=False, jail=True, shared_uid=False, trace_exec=True)
WRITES = FilterOptions(notify_exec=True, jail=True, shared_uid=False, notify_writes=True)
ALL += [CONNECT, TRACE, WRITES, FilterOptions(True, False, True, True, notify_writes=True)]
BAD = 8
"""An address where nothing is mapped."""
HIGH = 1 << 32
MSG_FASTOPEN = 0x20000000
MPTCP = 262


def under(options: FilterOptions, piece: Callable[[], object]) -> int:
    """The outcome of `piece` in a child that has put the filter on itself."""

    def filtered() -> None:
        process.set_no_new_privs()
        seccomp.install(build(options))
        piece()

    require(number("seccomp") is not None, "seccomp")
    return outcome(filtered)


def calling(name: str, *arguments: int) -> Callable[[], object]:
    def call() -> None:
        if syscall(name, *arguments) == 0 and name == "clone":
            os._exit(0)  # the cloned child, where the filter let it be

    return call


def test_the_filter_loads_in_every_combination() -> None:
    for options in ALL:
        assert under(options, lambda: None) == 0


REFUSED: list[tuple[str, tuple[int, ...], int]] = [
    ("clone3", (BAD, 88), errno.ENOSYS),
    ("unshare", (0,), errno.EPERM),
    ("setns", (-1, 0), errno.EPERM),
    *[("clone", (flag | signal.SIGCHLD, 0, 0, 0, 0), errno.EPERM) for flag in (0x20000, 0x2000000, 0x4000000)],
    *[("clone", (flag | signal.SIGCHLD, 0, 0, 0, 0), errno.EPERM) for flag in (0x8000000, 0x10000000, 0x20000000)],
    ("clone", (0x40000000 | signal.SIGCHLD, 0, 0, 0, 0), errno.EPERM),
    *[(name, (BAD, BAD, BAD, 0, 0), errno.EPERM) for name in ("mount", "umount2", "pivot_root", "chroot")],
    *[(name, (-1, BAD, -1, BAD, 0), errno.EPERM) for name in ("move_mount", "open_tree", "open_tree_attr")],
    *[(name, (-1, BAD, BAD, 0, 0), errno.EPERM) for name in ("fsopen", "fsconfig", "fsmount", "fspick")],
    ("mount_setattr", (-1, BAD, 0, BAD, 32), errno.EPERM),
    ("ptrace", (0x4206, 1 << 30, 0, 0), errno.EPERM),  # PTRACE_SEIZE of nobody
    ("process_vm_writev", (1 << 30, 0, 0, 0, 0, 0), errno.EPERM),
    ("pidfd_getfd", (-1, 0, 0), errno.EPERM),
    ("seccomp", (1, 8, BAD), errno.EPERM),
    ("seccomp", (1, 8 | 1, BAD), errno.EPERM),
    ("seccomp", (1 | HIGH, 8 | HIGH, BAD), errno.EPERM),
    ("io_uring_setup", (1, BAD), errno.ENOSYS),
    ("io_uring_enter", (-1, 0, 0, 0, 0, 0), errno.ENOSYS),
    ("io_uring_register", (-1, 0, 0, 0), errno.ENOSYS),
    ("keyctl", (9999, 0, 0, 0, 0), errno.EPERM),
    ("add_key", (BAD, BAD, 0, 0, 0), errno.EPERM),
    ("request_key", (BAD, BAD, 0, 0), errno.EPERM),
    ("bpf", (9999, BAD, 0), errno.EPERM),
    ("userfaultfd", (0xFFFF,), errno.EPERM),
    ("perf_event_open", (BAD, 0, -1, -1, 0), errno.EPERM),
    ("kexec_load", (0, 99, BAD, 0), errno.EPERM),
    ("kexec_file_load", (-1, -1, 0, BAD, 0), errno.EPERM),
    ("init_module", (BAD, 0, BAD), errno.EPERM),
    ("finit_module", (-1, BAD, 0), errno.EPERM),
    ("delete_module", (BAD, 0), errno.EPERM),
    ("reboot", (0, 0, 0, 0), errno.EPERM),
    ("swapon", (BAD, 0), errno.EPERM),
    ("swapoff", (BAD,), errno.EPERM),
    ("acct", (BAD,), errno.EPERM),
    ("quotactl", (0x7FFFFFFF, BAD, 0, 0), errno.EPERM),
    ("quotactl_fd", (0xFFFFFFFF, 0x7FFFFFFF, 0, 0), errno.EPERM),
    ("iopl", (0,), errno.EPERM),
    ("ioperm", (0, 1, 0), errno.EPERM),
    ("open_by_handle_at", (-1, BAD, 0), errno.EPERM),
    ("syslog", (10, 0, 0), errno.EPERM),
    ("fanotify_init", (0xFFFFFFFF, 0), errno.EPERM),
    ("ioctl", (-1, 0x5412, BAD), errno.EPERM),
    ("ioctl", (-1, 0x5412 | HIGH, BAD), errno.EPERM),
    ("ioctl", (-1, 0x541C, BAD), errno.EPERM),
    ("ioctl", (-1, 0x541C | HIGH, BAD), errno.EPERM),
    ("prlimit64", (1, 7, BAD, 0), errno.EPERM),
    ("prlimit64", (1, 7, HIGH, 0), errno.EPERM),
    ("sched_setaffinity", (1 << 30, 8, BAD), errno.EPERM),
    ("sched_setparam", (1 << 30, BAD), errno.EPERM),
    ("sched_setscheduler", (1 << 30, 0, BAD), errno.EPERM),
    ("sched_setattr", (1 << 30, BAD, 0), errno.EPERM),
    ("migrate_pages", (1 << 30, 0, 0, 0), errno.EPERM),
    ("move_pages", (1 << 30, 0, 0, 0, 0, 0), errno.EPERM),
    ("setpriority", (0, 1 << 30, 0), errno.EPERM),
    ("setpriority", (2, 0, 0), errno.EPERM),
    ("ioprio_set", (1, 1 << 30, 0), errno.EPERM),
    ("ioprio_set", (3, 0, 0), errno.EPERM),
    ("process_madvise", (-1, BAD, 0, 0, 0), errno.EPERM),
    ("process_mrelease", (-1, 0), errno.EPERM),
    ("socket", (17, 3, 0), errno.EAFNOSUPPORT),  # PACKET
    ("socket", (17 | HIGH, 3, 0), errno.EAFNOSUPPORT),
    ("socket", (38, 5, 0), errno.EAFNOSUPPORT),  # ALG
    ("socket", (40, 1, 0), errno.EAFNOSUPPORT),  # VSOCK
    ("socket", (44, 3, 0), errno.EAFNOSUPPORT),  # XDP
    ("socket", (16, 3, 15), errno.EAFNOSUPPORT),  # NETLINK, kobject events
    ("socket", (16, 3, 16), errno.EAFNOSUPPORT),  # NETLINK, generic
    *[("socket", (family, 2, 0), errno.EACCES) for family in (2, 10)],  # UDP
    *[("socket", (family, 2 | 0x80800, 17), errno.EACCES) for family in (2, 10)],
    *[("socket", (family, 1, MPTCP), errno.EACCES) for family in (2, 10)],
    *[("socket", (family, 1 | 0x80000, MPTCP | HIGH), errno.EACCES) for family in (2, 10)],
    *[("socket", (family, 1, 132), errno.EACCES) for family in (2, 10)],  # SCTP
    *[("socket", (family, 5, 132), errno.EACCES) for family in (2, 10)],
    *[("socket", (family, 3, 255), errno.EACCES) for family in (2, 10)],  # RAW
    ("socket", (2, 2, 1), errno.EACCES),  # ping
    ("socketpair", (30, 5, 0, BAD), errno.EAFNOSUPPORT),  # TIPC
    ("sendto", (-1, BAD, 1, MSG_FASTOPEN, BAD, 16), errno.EACCES),
    ("sendto", (-1, BAD, 1, MSG_FASTOPEN | 0x4000 | HIGH, BAD, 16), errno.EACCES),
    ("sendmsg", (-1, BAD, MSG_FASTOPEN), errno.EACCES),
    ("sendmmsg", (-1, BAD, 1, MSG_FASTOPEN), errno.EACCES),
]


@pytest.mark.parametrize(("name", "arguments", "refusal"), REFUSED)
def test_the_filter_refuses(name: str, arguments: tuple[int, ...], refusal: int) -> None:
    require(number(name) is not None, f"{name} on this machine")
    assert under(OPEN, calling(name, *arguments)) == refusal


WELL_KNOWN = {
    *("unshare", "setns", "mount", "umount2", "chroot", "ptrace", "process_vm_writev", "pidfd_getfd", "seccomp"),
    *("ioctl", "prlimit64", "sched_setaffinity", "setpriority", "ioprio_set", "process_mrelease", "clone"),
}
WOULD_ACT = {("setpriority", (2, 0, 0)), ("ioprio_set", (3, 0, 0))}
"""Without the filter these change the priority of all of root's processes."""


@pytest.mark.parametrize(
    ("name", "arguments", "refusal"), [r for r in REFUSED if r[0] in WELL_KNOWN and r[:2] not in WOULD_ACT]
)
def test_and_it_is_the_filter_that_refuses(name: str, arguments: tuple[int, ...], refusal: int) -> None:
    """Root's same call without the filter ends otherwise: the cases above do not pass by the kernel's own checks."""
    require(os.geteuid() == 0, "root")
    assert outcome(calling(name, *arguments)) != refusal


def test_every_entry_that_refuses_is_attacked() -> None:
    attacked = {name for name, _, _ in REFUSED}
    refused = {name for entry in entries(OPEN) if entry.action != seccomp.RET_ALLOW for name in entry.calls}
    assert refused == attacked


@pytest.mark.parametrize(
    ("options", "name", "arguments"),
    [
        (OPEN, "socket", (1, 1, 0)),
        (OPEN, "socket", (1, 2 | 0x80800, 0)),
        (OPEN, "socket", (2, 1, 0)),
        (OPEN, "socket", (2, 1 | 0x80800, 6)),
        (OPEN, "socket", (2 | HIGH, 1 | HIGH, 6 | HIGH)),
        (OPEN, "socket", (16, 3, 0)),
        (JAIL, "socket", (2, 2, 0)),
        (JAIL, "socket", (2, 2, 17)),
        (OPEN, "setpriority", (0, 0, 0)),
        (OPEN, "ioprio_set", (1, 0, 0)),
        (OPEN, "prlimit64", (1, 7, 0, 0)),
        (OWN_UID, "setpriority", (2, 64999, 0)),
        (OPEN, "getpid", ()),
    ],
)
def test_the_filter_lets(options: FilterOptions, name: str, arguments: tuple[int, ...]) -> None:
    control = outcome(calling(name, *arguments))
    assert under(options, calling(name, *arguments)) == control
    assert control in (0, errno.ESRCH), "the call is one that works"


def test_in_the_jail_other_ways_out_stay_closed() -> None:
    for family in (17, 38, 40, 44):
        assert under(JAIL, calling("socket", family, 3, 0)) == errno.EAFNOSUPPORT


def test_with_exec_notification_a_shared_working_directory_is_refused_and_threads_are_not() -> None:
    share = calling("clone", 0x200 | signal.SIGCHLD, 0, 0, 0, 0)
    assert under(OWN_UID, share) == 0
    assert under(NOTIFY, share) == errno.EPERM

    def thread() -> None:
        done = threading.Event()
        threading.Thread(target=done.set).start()
        assert done.wait(60)

    assert under(NOTIFY, thread) == 0


def test_without_a_listener_a_notified_exec_is_enosys() -> None:
    assert under(NOTIFY, lambda: os.execv("/bin/true", ["true"])) == errno.ENOSYS


def test_a_session_may_still_filter_itself() -> None:
    def again() -> None:
        seccomp.install(build(OPEN))

    assert under(NOTIFY, again) == 0


def test_numbers_beyond_the_review_do_not_exist() -> None:
    assert under(OPEN, lambda: raw(NEWEST_REVIEWED + 1)) == errno.ENOSYS
    assert under(OPEN, lambda: raw(4095)) == errno.ENOSYS
    assert under(OPEN, lambda: raw(-1)) == errno.ENOSYS


def test_the_review_covers_every_call_of_this_kernel() -> None:
    """Without the filter none of the next forty is there; a kernel that has one is newer than the review."""
    for beyond in range(NEWEST_REVIEWED + 1, NEWEST_REVIEWED + 41):
        assert outcome(lambda nr=beyond: raw(nr)) == errno.ENOSYS, beyond


@pytest.mark.skipif(native() is not Arch.X86_64, reason="x32 is of x86-64")
def test_an_x32_call_kills() -> None:
    """UNTESTED HERE: that such a call would do something; this kernel has no x32 (without the filter it is ENOSYS)."""
    assert under(OPEN, lambda: raw(0x40000000 | 39)) == -signal.SIGSYS


I386 = """
int main(void) {
    long pid = 0;
    __asm__ volatile("int $0x80" : "=a"(pid) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
    return pid > 0 ? 0 : 1;
}
"""


@pytest.mark.skipif(native() is not Arch.X86_64, reason="int 0x80 is of x86-64")
def test_an_i386_call_kills(tmp_path: Path) -> None:
    require(shutil.which("gcc"), "gcc")
    program = tmp_path / "i386"
    subprocess.run(["gcc", "-x", "c", "-", "-o", program], input=I386.encode(), check=True)
    control = outcome(lambda: os.execv(program, [str(program)]))
    require(control == 0, "32-bit emulation in this kernel")
    assert under(OPEN, lambda: os.execv(program, [str(program)])) == -signal.SIGSYS


def test_ordinary_programs_work_under_the_filter() -> None:
    """Threads, processes, pipes, a pty, TCP on loopback, UNIX sockets, name resolution of localhost, limits."""
    code = """
import os, pty, resource, socket, subprocess, sys, threading
threading.Thread(target=int).start()
assert subprocess.run(["/bin/echo", "x"], stdout=-1).stdout == b"x\\n"
os.close(os.open("/dev/null", os.O_RDONLY)); pty.openpty()
server = socket.create_server(("127.0.0.1", 0)); client = socket.create_connection(server.getsockname())
server.accept()[0].sendall(b"y"); assert client.recv(1) == b"y"
a, b = socket.socketpair(); a.send(b"z"); assert b.recv(1) == b"z"
assert socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); os.nice(1); os.sched_setaffinity(0, os.sched_getaffinity(0))
"""
    for options in (OPEN, OWN_UID, JAIL):
        assert under(options, lambda: os.execv(sys.executable, [sys.executable, "-I", "-c", code])) == 0


class Leaks:
    """Ways round Landlock's TCP rule, each trying to reach a listener on loopback whose port is not granted."""

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)

    def tcp(self) -> None:
        with socket.socket() as s:
            s.settimeout(60)
            s.connect(self._address)

    def udp(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"out", self._address)

    def mptcp(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP) as s:
            s.settimeout(60)
            s.connect(self._address)

    def fast_open_sendto(self) -> None:
        with socket.socket() as s:
            s.settimeout(60)
            s.sendto(b"out", MSG_FASTOPEN, self._address)

    def fast_open_sendmsg(self) -> None:
        with socket.socket() as s:
            s.settimeout(60)
            s.sendmsg([b"out"], [], MSG_FASTOPEN, self._address)


@pytest.mark.parametrize("way", ["tcp", "udp", "mptcp", "fast_open_sendto", "fast_open_sendmsg"])
def test_what_leaks_through_landlocks_tcp_rule_is_closed_by_the_filter(way: str) -> None:
    require(landlock.abi() >= 4, "Landlock with TCP rules")
    with socket.create_server(("127.0.0.1", 0)) as server:
        attempt = getattr(Leaks(server.getsockname()[1]), way)

        def restrict() -> None:
            process.set_no_new_privs()
            with landlock.Ruleset(fs=landlock.Fs(0), net=landlock.Net.CONNECT_TCP) as rules:
                rules.restrict_self()

        def with_filter() -> None:
            restrict()
            seccomp.install(build(OWN_UID))
            attempt()

        alone = outcome(lambda: (restrict(), attempt()))
        if way == "udp":
            assert alone == 0, "Landlock alone does not see UDP: the leak is real"
        assert outcome(with_filter) == errno.EACCES
