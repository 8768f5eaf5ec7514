"""A person at a terminal: Ctrl-C, window size, job control, exit status behave as without the agent."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator

import pytest

from tests.escape.runtime import Case, Host, policy

SECONDS = 100.0


class Person:
    """Types into a run on a terminal of its own and reads the screen."""

    def __init__(self, host: Host, *command: str) -> None:
        argv = host.command(Case(command, policy()))
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(argv[0], argv, host.environment(Case((), "")) | {"TERM": "xterm"})
        self.screen = ""
        self.resize(33, 101)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def sees(self, text: str) -> str:
        """Read until `text` appears; returns all that came before and with it."""
        deadline = time.monotonic() + SECONDS
        while text not in self.screen:
            assert time.monotonic() < deadline, self.screen
            ready, _, _ = select.select([self.fd], [], [], 0.2)
            if ready:
                try:
                    data = os.read(self.fd, 4096)
                except OSError:
                    data = b""
                assert data, f"the terminal closed: {self.screen}"
                self.screen += data.decode(errors="replace")
        before, _, self.screen = self.screen.partition(text)
        return before + text

    def types(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def status(self) -> int:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.fd], [], [], 0.1)
            if ready:
                try:
                    self.screen += os.read(self.fd, 4096).decode(errors="replace")
                except OSError:
                    ready = []
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"still running: {self.screen}")

    def leave(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def person(either_host: Host) -> Iterator[Person]:
    person = Person(either_host, "/bin/bash", "--norc", "--noprofile", "-i")
    person.sees("$ ")  # what is typed before there is a shell is echoed by the terminal alone
    person.types("PS1='ready> '\n")
    person.sees("ready> ")
    person.sees("ready> ")
    yield person
    person.leave()


def test_ctrl_c_ends_the_program_and_not_the_session(person: Person) -> None:
    person.types("sh -c 'echo run-$((1+1)); exec sleep 100'; echo after-$((1+1))\n")
    person.sees("run-2")
    person.types("\x03")
    person.sees("ready> ")
    person.types("echo still-$((40+2))\n")
    person.sees("still-42")


def test_the_window_size_arrives_and_changes(person: Person) -> None:
    assert "33 101" in size(person)
    person.resize(44, 122)
    end = time.monotonic() + SECONDS
    while "44 122" not in size(person):
        assert time.monotonic() < end


def size(person: Person) -> str:
    """What a program of the session's says."""
    person.types("stty size; echo asked-$((1+1))\n")
    shown = person.sees("asked-2")
    person.sees("ready> ")
    return shown


GOES_ON = """import os, signal, time; signal.signal(signal.SIGCONT, lambda *_: os.write(1, b"again %d\\n" % 2));"""
GOES_ON += """ os.write(1, b"run %d\\n" % 2); time.sleep(101)"""


def test_job_control_stops_and_continues(person: Person) -> None:
    person.types(f"/usr/bin/python3 -c '{GOES_ON}'\n")
    person.sees("run 2")
    person.types("\x1a")
    person.sees("Stopped")
    person.sees("ready> ")
    person.types("fg\n")
    person.sees("again 2")
    person.types("\x03")
    person.sees("ready> ")
    person.types("exit 6\n")
    assert person.status() == 6


def test_the_controlling_terminal_is_not_the_operators(person: Person) -> None:
    operators = os.ptsname(person.fd) if hasattr(os, "ptsname") else None
    person.types("tty; ls -l /proc/self/fd/0; echo end-$((1+1))\n")
    shown = person.sees("end-2")
    assert "/dev/pts/" in shown
    assert operators is None or f"{operators}\r" not in shown


def test_the_screen_is_put_back_after_the_session(host: Host) -> None:
    fresh = os.openpty()
    before = termios.tcgetattr(fresh[1])
    for descriptor in fresh:
        os.close(descriptor)
    person = Person(host, "/bin/sh", "-c", "echo done")
    try:
        person.sees("done")
        assert person.status() == 0
        after = termios.tcgetattr(person.fd)
        assert after[3] & (termios.ECHO | termios.ICANON) == before[3] & (termios.ECHO | termios.ICANON)
    finally:
        person.leave()
