"""The line on a refused command's standard error never keeps the supervisor, and never is more than text."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import socket
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.enforce.commands.refusal import refusal_line
from agent.policy.decision import Decision, Verdict
from tests.enforce.commands import test_supervisor as ring
from tests.enforce.commands.filtered import Filtered
from tests.enforce.commands.test_supervisor import Recorded, supervise

workspace = ring.workspace
_needs_root = ring._needs_root

DEADLINE_S = 2.0


def full_pipe(_place: Path) -> Iterator[int]:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write_end, b"x" * 4096)
    os.set_blocking(write_end, True)
    yield write_end
    os.close(read_end)
    os.close(write_end)


def full_socket(_place: Path) -> Iterator[int]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            ours.send(b"x" * 4096)
    ours.setblocking(True)
    yield ours.fileno()
    ours.close()
    theirs.close()


def stopped_terminal(_place: Path) -> Iterator[int]:
    master, slave = pty.openpty()
    termios.tcflow(slave, termios.TCOOFF)
    yield slave
    os.close(master)
    os.close(slave)


def full_terminal(_place: Path) -> Iterator[int]:
    master, slave = pty.openpty()
    os.set_blocking(slave, False)
    with suppress(BlockingIOError):
        while True:
            os.write(slave, b"x" * 4096)
    os.set_blocking(slave, True)
    yield slave
    os.close(master)
    os.close(slave)


def full_fifo(place: Path) -> Iterator[int]:
    fifo = place / "fifo"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    opened = os.open(fifo, os.O_RDWR)
    os.set_blocking(opened, False)
    with suppress(BlockingIOError):
        while True:
            os.write(opened, b"x" * 4096)
    os.set_blocking(opened, True)
    yield opened
    os.close(opened)


def leased_file(place: Path) -> Iterator[int]:
    """Who opens a leased file waits for its holder, up to 45 seconds (fcntl(2), "Leases")."""
    file = place / "leased"
    opened = os.open(file, os.O_WRONLY | os.O_CREAT, 0o666)
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # what the holder is told by
    fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    yield opened
    os.close(opened)
    signal.signal(signal.SIGIO, before)


def closed(_place: Path) -> Iterator[int]:
    yield -1


SCRIPT = """\
name=$(id -u | sed 's/.*/rm/')
$name -rf /etc/x & one=$!
$name -rf /etc/x & two=$!
turn=0
while [ $turn -lt 20 ]; do /bin/sleep 0.05; turn=$((turn + 1)); done
kill -9 $one $two
/bin/echo "went on"
"""
"""The refused shells may wait for ever for room to complain; everybody else goes on."""


@pytest.mark.parametrize(
    "make", [full_pipe, full_socket, stopped_terminal, full_terminal, full_fifo, leased_file, closed]
)
def test_a_standard_error_that_takes_nothing_keeps_nobody(
    workspace: Path, make: Callable[[Path], Iterator[int]]
) -> None:
    made = make(workspace)
    descriptor = next(made)

    def redirect() -> None:
        os.dup2(descriptor, 2) if descriptor >= 0 else os.close(2)

    recorded, text = Recorded(), workspace / "text"
    text.write_text(SCRIPT)
    session = Filtered(["/bin/dash", str(text)], before_exec=redirect)
    supervisor = supervise(session, recorded, deadline=DEADLINE_S)
    session.go()
    finished = session.finish()
    supervisor.stop()
    session.close()
    with suppress(StopIteration):
        next(made)
    assert finished.out == "went on\n"
    assert set(recorded.rules()) == {"delete-system"}, "and no deadline was met"


@given(st.text(max_size=300), st.text(max_size=300))
def test_the_line_is_text_whatever_the_policy_and_the_command_say(reason: str, instead: str) -> None:
    line = refusal_line(Decision(Verdict.DENY, "a-rule", reason, "d" * 64, instead=instead))
    assert line.isprintable()
    assert line.startswith("parhelia: denied by a-rule: ")
    assert len(line) <= 1024
