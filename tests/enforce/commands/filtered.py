"""A process under the session's real filter, for tests: forked, unprivileged, its listener in the test's hands."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from agent.linux import process, seccomp
from agent.session.filter import FilterOptions, build

UID = GID = 64321  # nobody's: in no passwd of a machine that runs these tests
OPTIONS = FilterOptions(notify_exec=True, jail=False, shared_uid=False)
PATIENCE_S = 120.0


@dataclass
class Finished:
    """How it ended: `status` as waitstatus_to_exitcode gives it (negative: a signal)."""

    status: int
    out: str
    err: str


class Child:
    """A forked process, with a channel to it and pipes for its output."""

    def _begin(self) -> None:
        self._ours, theirs = socket.socketpair()
        self._out, out = os.pipe2(os.O_CLOEXEC)
        self._err, err = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.dup2(out, 1)
                os.dup2(err, 2)
                process.set_pdeathsig(signal.SIGKILL)
                self._become(theirs)
            except BaseException as error:
                os.write(2, f"launch: {error!r}\n".encode())
            finally:
                os._exit(120)
        theirs.close()
        os.close(out)
        os.close(err)

    def _become(self, channel: socket.socket) -> None:
        """What it does."""
        raise NotImplementedError

    def _wait(self) -> int:
        return os.waitpid(self.pid, 0)[1]

    def _execute(self, argv: list[str], env: dict[str, str]) -> None:
        try:
            os.execve(argv[0], argv, env)
        except OSError as error:
            os.write(2, f"exec: {error.strerror}\n".encode())
            os._exit(126)

    def finish(self) -> Finished:
        """Wait for its end and the end of its output; kill it where it does not come."""
        texts = {self._out: b"", self._err: b""}
        poller = select.poll()
        for descriptor in texts:
            poller.register(descriptor, select.POLLIN)
        open_ends, deadline = set(texts), time.monotonic() + PATIENCE_S
        while open_ends and time.monotonic() < deadline:
            for descriptor, _ in poller.poll(1000):
                part = os.read(descriptor, 1 << 16)
                texts[descriptor] += part
                if not part:
                    poller.unregister(descriptor)
                    open_ends.discard(descriptor)
        if open_ends:
            self.kill()
        status = os.waitstatus_to_exitcode(self._wait())
        self.pid = 0
        out, err = (texts[end].decode(errors="backslashreplace") for end in (self._out, self._err))
        return Finished(status, out, err)

    def kill(self) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


@dataclass
class Filtered(Child):
    """A child that waits, under the filter, for `go` to exec `argv`."""

    argv: list[str]
    cwd: Path = Path("/")
    options: FilterOptions = OPTIONS
    uid: int = UID
    before_exec: Callable[[], None] | None = None
    env: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/bin:/bin", "LC_ALL": "C"})

    def __post_init__(self) -> None:
        self._begin()
        self.listener = self._receive_listener()

    def _become(self, channel: socket.socket) -> None:
        os.chdir(self.cwd)
        if os.getuid() == 0 and self.uid != 0:
            os.setgroups([])
            os.setresgid(GID, GID, GID)
            os.setresuid(self.uid, self.uid, self.uid)
        process.set_no_new_privs()
        process.set_dumpable(True)
        listener = seccomp.install_with_listener(build(self.options))
        socket.send_fds(channel, [b"l"], [listener])
        os.close(listener)
        if channel.recv(1) != b"g":
            os._exit(121)
        if self.before_exec is not None:
            self.before_exec()
        self._execute(self.argv, self.env)

    def _receive_listener(self) -> int:
        self._ours.settimeout(PATIENCE_S)
        _, descriptors, _, _ = socket.recv_fds(self._ours, 1, 1)
        if not descriptors:
            raise RuntimeError(os.read(self._err, 4096).decode())
        return descriptors[0]

    def go(self) -> None:
        self._ours.sendall(b"g")

    def close(self) -> None:
        self.kill()
        if self.pid:
            os.waitpid(self.pid, 0)
        self._ours.close()
        os.close(self._out)
        os.close(self._err)
