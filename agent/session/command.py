"""One command of the session, from a fork of its init to the execve: the steps that are a command's own.

The confinement is there already, on init and on everything that it forks (agent.session.launch). The order here:

 1. the standard streams it was given, and no other descriptor but the one to the guard
 2. signals as programs expect them, a new session, the terminal among its streams as the controlling one
 3. the account's number of processes where it is limited; clear supplementary groups, drop the uid
 4. parent-death signal (the uid change clears it: prctl(2))
 5. working directory, with the session's own rights
 6. tell the guard, whose kernel says which process that is, and wait for its word
 7. PR_SET_DUMPABLE 1, execve; or, once before the session, the attempts that must fail (agent.session.proofs)

A step that fails ends the command: the guard is told which, and nothing has been executed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import socket
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from agent.exits import Exit
from agent.linux import process
from agent.session.plan import Command, Proofs
from agent.session.proofs import attempt
from agent.values import dataclass

GO = b"go"
MAX_TOLD = 1 << 16
"""Bytes of one message to the guard about a command's start."""
_BIRTH = 3


@dataclass(frozen=True, slots=True)
class Account:
    """Whose the session's processes are; None: whose init is, who then has the same. `processes`: how many of the uid's
    there may be, None for what init may (RLIMIT_NPROC)."""

    uid: int | None
    gid: int | None
    processes: int | None = None


class Start:
    """A command's steps, in the fork that becomes it. `streams`: what it gets as 0, 1 and 2; `birth`: a
    sequenced-packet socket to the guard, for this command's start alone; `init`: the id of the session's init."""

    def __init__(
        self, command: Command, streams: tuple[int, int, int], birth: socket.socket, account: Account, init: int
    ) -> None:
        self._command = command
        self._streams = streams
        self._birth = birth
        self._account = account
        self._init = init

    def steps(self) -> tuple[Callable[[], None], ...]:
        """In this order, none left out."""
        return (
            self.take_streams,
            self.reset_signals,
            self.new_session,
            self.drop_user,
            self.end_with_init,
            self.enter_workdir,
        )

    def run(self, proofs: Proofs | None = None) -> NoReturn:
        """Become the command; with `proofs`: make these attempts in its place, tell what came of them, and end."""
        for step in self.steps():
            try:
                step()
            except Exception as error:  # any fault ends the command: nothing of it has run
                report_fault(self._birth, step.__name__, error)
                os._exit(int(Exit.UNPROTECTED))
        _tell(self._birth, {"type": "ready", "pid": os.getpid()})
        if self._birth.recv(len(GO)) != GO:
            os._exit(int(Exit.UNPROTECTED))
        if proofs is not None:
            _tell(self._birth, {"type": "proved", "broken": attempt(proofs)})
            os._exit(0)
        process.set_dumpable(True)
        execute(self._command)

    def take_streams(self) -> None:
        birth = self._birth.detach()
        given = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _BIRTH + 1) for fd in (*self._streams, birth)]
        for target, fd in enumerate(given):
            os.dup2(fd, target, inheritable=target != _BIRTH)
        self._birth = socket.socket(fileno=_BIRTH)
        process.close_range(_BIRTH + 1)

    def reset_signals(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE):  # init's own; launch.py has reset the others
            signal.signal(number, signal.SIG_DFL)

    def new_session(self) -> None:
        os.setsid()
        for fd in (0, 1, 2):
            if os.isatty(fd):
                fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
                return

    def drop_user(self) -> None:
        uid, gid = self._account.uid, self._account.gid
        if uid is None or gid is None:
            return
        if self._account.processes is not None:
            resource.setrlimit(resource.RLIMIT_NPROC, (self._account.processes, self._account.processes))
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)

    def end_with_init(self) -> None:
        process.set_pdeathsig(signal.SIGKILL)
        if os.getppid() != self._init:
            raise ProcessLookupError("the session's init has ended")

    def enter_workdir(self) -> None:
        workdir = self._command.workdir
        try:
            os.chdir(workdir)
        except OSError as error:
            raise OSError(f"{workdir}: {error.strerror} for the session's user") from error


def report_fault(birth: socket.socket, step: str, error: Exception) -> None:
    """Tell the guard that this command does not start."""
    _tell(birth, {"type": "failed", "step": step, "error": f"{type(error).__name__}: {error}"})


def _tell(birth: socket.socket, message: dict[str, object]) -> None:
    with suppress(OSError):  # the guard has given up
        birth.send(json.dumps(message).encode()[:MAX_TOLD], socket.MSG_NOSIGNAL)


def execute(command: Command) -> NoReturn:
    """Replace this process by the command. Ends with 127 where it does not exist, 126 where it may not run."""
    argv = list(command.argv)
    denied, failure = False, OSError(errno.ENOENT, "no such command")
    for path in _candidates(argv[0], command.env.get("PATH", "")):
        try:
            os.execve(path, argv, command.env)  # noqa: S606
        except OSError as error:
            denied, failure = denied or error.errno in (errno.EACCES, errno.EPERM), error
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                break
    text = "permission denied" if denied else failure.strerror
    os.write(2, f"parhelia: {ascii(argv[0])[1:-1] or repr('')}: {text}\n".encode())
    os._exit(Exit.COMMAND_DENIED if denied or failure.errno != errno.ENOENT else Exit.COMMAND_MISSING)


def _candidates(name: str, path: str) -> list[str]:
    if not name:
        return []
    if "/" in name:
        return [name]
    found = [f"{part or '.'}/{name}" for part in path.split(":") if os.path.lexists(f"{part or '.'}/{name}")]
    return found or [f"/nonexistent/{name}"]
