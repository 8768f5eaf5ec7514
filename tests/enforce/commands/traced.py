"""A process under the session's real filter and a tracer, for tests: what `filtered.Filtered` is to the notify ring."""

from __future__ import annotations

import os
import queue
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from agent.enforce.commands.judge import BuildRequest, CommandGate
from agent.enforce.commands.tracer import ExecTracer, Other
from agent.linux import process, seccomp
from agent.record.event import Event
from agent.session.filter import FilterOptions, build
from agent.session.tracer import PATIENCE_S, Tracer, pair
from tests.enforce.commands.filtered import GID, UID, Child

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
        patience: float = PATIENCE_S,
    ) -> None:
        self.argv, self.cwd, self.before_exec, self.filtered = argv, cwd, before_exec, filtered
        self.patience = patience
        self.ended: queue.Queue[str | None] = queue.Queue()
        self.tracer: ExecTracer | None = None
        self.tracing = 0
        self.guards: socket.socket | None = None
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
        """Start tracing it, with a guard; it then goes on by itself."""
        self.traced()
        self.answer(gate, build_request, post, deadline)
        self.go()

    def traced(self) -> None:
        """Start tracing it; who answers is still to come."""
        self.guards, theirs = pair()
        seized, seize = os.pipe()
        self.tracing = os.fork()
        if self.tracing == 0:
            try:
                self.guards.close()
                Tracer(theirs, self.patience).run(self.pid, lambda: os.write(seize, b"s") and None)
            finally:
                os._exit(1)
        theirs.close()
        os.close(seize)
        assert os.read(seized, 1) == b"s"
        os.close(seized)

    def go(self) -> None:
        """Let it begin."""
        self._ours.sendall(b"t")

    def answer(
        self,
        gate: CommandGate,
        build_request: BuildRequest,
        post: Callable[[Event], None],
        deadline: float = 5.0,
        *,
        successor: bool = False,
        others: Mapping[int, Other] | None = None,
    ) -> None:
        """Answer what is asked from here on, as the first guard or another one."""
        assert self.guards is not None
        self.tracer = ExecTracer(
            self.guards.dup(),
            gate,
            build_request,
            session_uid=UID,
            session_gid=GID,
            actor="session:test",
            post=post,
            ended=self.ended.put,
            deadline=deadline,
            successor=successor,
            others=others,
        )
        self.tracer.start()

    def close(self) -> None:
        """The end of it, and of what it left behind."""
        if self._out < 0:
            return
        self.kill()
        if self.tracer is not None and self.guards is not None:
            self.tracer.stop()
            self.guards.close()
            os.waitpid(self.tracing, 0)
        if self.pid:
            os.waitpid(self.pid, 0)
        self._ours.close()
        os.close(self._out)
        os.close(self._err)
        self._out = self._err = -1
