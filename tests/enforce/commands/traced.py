"""A process under the session's real filter and a tracer, for tests: what `filtered.Filtered` is to the notify ring."""

from __future__ import annotations

import os
import queue
import socket
from collections.abc import Callable
from pathlib import Path

from agent.enforce.commands.judge import BuildRequest, CommandGate
from agent.enforce.commands.tracer import ExecTracer
from agent.linux import process, seccomp
from agent.record.event import Event
from agent.session.filter import FilterOptions, build
from tests.enforce.commands.filtered import GID, PATIENCE_S, UID, Child

OPTIONS = FilterOptions(notify_exec=False, trace_exec=True, jail=False, shared_uid=False)


class Traced(Child):
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
        self._begin()

    def _become(self, channel: socket.socket) -> None:
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
        self._execute(self.argv, {"PATH": "/usr/bin:/bin", "LC_ALL": "C"})

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

    def _wait(self) -> int:
        return self.status.get(timeout=PATIENCE_S)

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
