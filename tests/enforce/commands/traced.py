"""A process under the session's real filter and a tracer, for tests: what `filtered.Filtered` is to the notify ring."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from agent.enforce.commands.judge import BuildRequest, CommandGate
from agent.enforce.commands.tracer import ExecTracer
from agent.linux import process, seccomp
from agent.record.event import Event
from agent.session.filter import FilterOptions, build
from tests.enforce.commands.filtered import GID, PATIENCE_S, UID, Finished

OPTIONS = FilterOptions(notify_exec=False, trace_exec=True, jail=False, shared_uid=False)


class Traced:
    """A child that is traced from before it gives up root, and waits for `finish` to exec `argv`."""

    def __init__(
        self,
        argv: list[str],
        *,
        cwd: Path = Path("/"),
        before_exec: Callable[[], None] | None = None,
        filtered: bool = True,
    ) -> None:
        self.argv, self.cwd, self.before_exec, self.filtered = argv, cwd, before_exec, filtered
        self.status: queue.Queue[int] = queue.Queue()
        self.ended: queue.Queue[str | None] = queue.Queue()
        self.tracer: ExecTracer | None = None
        self._ours, theirs = socket.socketpair()
        self._out, out = os.pipe2(os.O_CLOEXEC)
        self._err, err = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.dup2(out, 1)
                os.dup2(err, 2)
                self._become(theirs)
            except BaseException as error:
                os.write(2, f"launch: {error!r}\n".encode())
            finally:
                os._exit(120)
        theirs.close()
        os.close(out)
        os.close(err)

    def _become(self, channel: socket.socket) -> None:
        process.set_pdeathsig(signal.SIGKILL)
        if channel.recv(1) != b"t":
            os._exit(121)
        os.chdir(self.cwd)
        os.setgroups([])
        os.setresgid(GID, GID, GID)
        os.setresuid(UID, UID, UID)
        process.set_no_new_privs()
        process.set_dumpable(True)
        if self.filtered:
            seccomp.install(build(OPTIONS))
        if self.before_exec is not None:
            self.before_exec()
        try:
            os.execve(self.argv[0], self.argv, {"PATH": "/usr/bin:/bin", "LC_ALL": "C"})
        except OSError as error:
            os.write(2, f"exec: {error.strerror}\n".encode())
            os._exit(126)

    def trace(
        self, gate: CommandGate, build_request: BuildRequest, post: Callable[[Event], None], deadline: float = 5.0
    ) -> None:
        """Start tracing it; it then goes on by itself."""
        self.tracer = ExecTracer(
            gate,
            build_request,
            session_uid=UID,
            session_gid=GID,
            actor="session:test",
            post=post,
            exited=self.status.put,
            ended=self.ended.put,
            deadline=deadline,
        )
        self.tracer.start(self.pid)
        self._ours.sendall(b"t")

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
        status = os.waitstatus_to_exitcode(self.status.get(timeout=PATIENCE_S))
        self.pid = 0
        return Finished(status, texts[self._out].decode(), texts[self._err].decode())

    def kill(self) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """The end of it, and of what it left behind."""
        if self._out < 0:
            return
        self.kill()
        if self.tracer is None:
            os.waitpid(self.pid, 0)
        else:
            self.tracer.stop()
        self._ours.close()
        os.close(self._out)
        os.close(self._err)
        self._out = self._err = -1
