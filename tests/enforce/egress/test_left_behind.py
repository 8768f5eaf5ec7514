"""After a restore: what is asked with which socket, by a program of how many threads, with what left of before."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agent.enforce.egress import left_behind
from agent.enforce.egress.left_behind import CALLS, CONNECTED, RULE, LeftBehind
from agent.linux.notify import Notification
from agent.linux.syscalls import AUDIT_ARCH, Arch, number
from tests.conftest import require

NOBODY = 65533
"""An account that has no socket here."""
PROGRAM = """
import os, socket, sys, threading
unix, inet = socket.socket(socket.AF_UNIX), socket.socket()
if sys.argv[1] == "threads": threading.Thread(target=sys.stdin.read, daemon=True).start()
print(unix.fileno(), inet.fileno(), flush=True)
sys.stdin.read()
"""


class Scene:
    """`restore` is what a restore does: the mark can be reached from here."""

    def __init__(self, uid: int | None = None) -> None:
        self.denied: list[Any] = []
        self.now = 0.0
        self.left = LeftBehind(lambda request, decision: self.denied.append(decision), uid, lambda: self.now)
        self._mark = socket.socket()
        self._mark.bind(("127.0.0.1", 0))
        self.left.watch(self._mark.getsockname()[1])

    def restore(self) -> None:
        self._mark.listen()
        self.now += 1

    def ask(self, pid: int, descriptor: int, call: str = "connect") -> int:
        stopped = Notification(pid, pid, number(call) or 0, AUDIT_ARCH[Arch.X86_64], 0, (descriptor, 0, 0, 0, 0, 0))
        return self.left.handlers()[stopped.number].answer(stopped)

    def close(self) -> None:
        self._mark.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


@contextmanager
def program(kind: str) -> Iterator[tuple[int, int, int]]:
    """Its process id, and the descriptors of a UNIX socket and of an inet one."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PROGRAM, kind], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        unix, inet = map(int, process.stdout.readline().split())
        yield process.pid, unix, inet


def test_before_a_restore_every_call_goes_on(scene: Scene) -> None:
    with program("threads") as (pid, unix, inet):
        assert [scene.ask(pid, descriptor, call) for call in CALLS for descriptor in (unix, inet)] == [0] * 12
    assert (scene.left.times(), scene.denied) == (0, [])


def test_after_it_a_program_of_one_thread_uses_unix_sockets_and_younger_ones(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with program("one") as (pid, unix, inet):
        monkeypatch.setattr(left_behind, "_next_inode", lambda: 1 << 62)  # here they are not numbered one by one
        scene.restore()
        assert [scene.ask(pid, descriptor) for descriptor in (unix, inet, 99)] == [0, errno.EACCES, 0]
        assert [decision.rule for decision in scene.denied] == [RULE]
    younger = Scene()
    with program("one") as (pid, _, inet):
        monkeypatch.setattr(left_behind, "_next_inode", lambda: os.stat(f"/proc/{pid}/fd/{inet}").st_ino - 1)
        younger.restore()
        assert younger.ask(pid, inet) == 0
    younger.close()


def test_one_of_several_threads_is_refused_while_a_socket_of_before_is_left_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(left_behind, "_next_inode", lambda: 1 << 62)
    for uid, answer in ((os.getuid(), errno.EACCES), (NOBODY, 0)):
        scene = Scene(uid)
        with program("threads") as (pid, unix, inet):
            scene.restore()
            assert [scene.ask(pid, descriptor) for descriptor in (unix, inet)] == [answer] * 2
        scene.close()


def test_a_socket_on_its_way_in_a_message_is_left_too(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(NOBODY)
    monkeypatch.setattr(left_behind, "_next_inode", lambda: 1 << 62)
    ours, theirs = socket.socketpair()
    with program("threads") as (pid, _, inet), ours, theirs:
        with socket.socket() as hidden:
            hidden.bind(("127.0.0.1", 0))
            hidden.listen()
            os.fchown(hidden.fileno(), NOBODY, NOBODY)
            socket.send_fds(ours, [b"x"], [hidden.fileno()])
        scene.restore()
        assert scene.ask(pid, inet) == errno.EACCES
    scene.close()


DATAGRAMS = """
import os, socket, sys
os.setresuid(int(sys.argv[1]), int(sys.argv[1]), int(sys.argv[1]))
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if sys.argv[2] == "connected": sock.connect(("127.0.0.1", 9))
else: sock.bind(("127.0.0.1", 0))
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def datagrams(kind: str) -> Iterator[subprocess.Popen[str]]:
    """A program of NOBODY's with such a socket."""
    pipe = subprocess.PIPE
    argv = ["/usr/bin/python3", "-c", DATAGRAMS, str(NOBODY), kind]
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def test_who_has_a_connected_datagram_socket_of_before_is_ended_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require(os.geteuid() == 0, "root, to be another account")
    monkeypatch.setattr(left_behind, "_next_inode", lambda: 1 << 62)
    scene = Scene(NOBODY)
    with datagrams("connected") as connected, datagrams("bound") as bound:
        scene.left.end_connected()
        assert (connected.poll(), scene.denied) == (None, []), "nothing before a restore"
        scene.restore()
        assert scene.left.times() == 1
        scene.left.end_connected()
        assert (connected.wait(60), bound.poll()) == (-9, None)
    assert {(decision.rule, decision.reason) for decision in scene.denied} == {(RULE, CONNECTED)}
    scene.close()


def test_a_connected_datagram_socket_that_nobody_is_seen_to_have_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    require(os.geteuid() == 0, "root, to give a socket away")
    monkeypatch.setattr(left_behind, "_next_inode", lambda: 1 << 62)
    monkeypatch.setattr(left_behind, "ATTEMPTS", 3)
    scene = Scene(NOBODY)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hidden:
        hidden.connect(("127.0.0.1", 9))
        os.fchown(hidden.fileno(), NOBODY, NOBODY)
        scene.restore()
        assert scene.left.times() == 1
        with pytest.raises(OSError, match="is left"):
            scene.left.end_connected()
    assert scene.denied == []
    scene.close()


def test_each_mark_tells_of_one_restore_and_what_cannot_be_found_out_is_said(scene: Scene) -> None:
    scene.restore()
    assert [scene.left.times(), scene.left.times()] == [1, 1]
    scene.now += 1
    assert scene.left.times() == 1
    again = socket.create_server(("127.0.0.1", 0))
    scene.left.watch(again.getsockname()[1])
    assert scene.left.times() == 2
    scene.left.watch(1 << 17)
    with pytest.raises((OSError, OverflowError)):
        scene.left.times()
    with pytest.raises((OSError, OverflowError)):
        scene.ask(os.getpid(), 0)
    again.close()
