"""The guard's part in a session's execs: the ring that decides them, by seccomp notification or by tracing.

Whichever the machine offers (agent.session.levels), it stands on the same gate, and its failure ends the session.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping

from agent.daemon.base.spec import RunSpec
from agent.daemon.survival.standing import Estate
from agent.enforce.commands.executable import Executables
from agent.enforce.commands.judge import BuildRequest, CommandGate
from agent.enforce.commands.refusal import Given
from agent.enforce.commands.supervisor import ExecSupervisor
from agent.enforce.commands.tracer import ExecTracer, Other
from agent.enforce.notify_loop import Handler
from agent.record.event import Event
from agent.session.levels import Point
from agent.session.tracer import pair


class Ring:
    """One session's exec ring. To be made on the guard's loop, on which `on_fault` is called.

    `traced`: whether it is to be a tracer. `others`: who answers for further notified calls, `traced_others` for
    further traced ones. `stderr`: the session's. `in_force`: the policy by which `gate` decides. `executables`: asks
    which files may be executed. `estate`: where what is in hand is kept. `successor`: of another guard's ring.
    """

    def __init__(
        self,
        spec: RunSpec,
        gate: CommandGate,
        build_request: BuildRequest,
        *,
        post: Callable[[Event], None],
        observe: Callable[[float], None],
        on_fault: Callable[[Point, str], None],
        stderr: Given,
        estate: Estate,
        successor: bool,
        traced: bool,
        others: Mapping[int, Handler] | None,
        traced_others: Mapping[int, Other],
        in_force: Callable[[], object],
        executables: Executables,
    ) -> None:
        self._spec = spec
        self._gate = gate
        self._build_request = build_request
        self._post = post
        self._observe = observe
        self._on_fault = on_fault
        self._loop = asyncio.get_running_loop()
        self._stderr = stderr
        self._estate = estate
        self._successor = successor
        self._traced = traced
        self._others = others
        self._traced_others = traced_others
        self._in_force = in_force
        self._executables = executables
        self._supervisor: ExecSupervisor | ExecTracer | None = None
        self.held: dict[str, int] = {}
        """What a successor's ring would stand on, by name: the seccomp listener, or the socket to the tracer. Empty
        before the launch, and where execs are not supervised."""

    async def supervise(self, listener: int) -> None:
        """Answer what the listener brings. Raises OSError."""
        uid, gid = self._session_ids()
        self._supervisor = ExecSupervisor(
            listener,
            self._gate,
            self._build_request,
            session_uid=uid,
            session_gid=gid,
            actor=self._spec.actor,
            post=self._post,
            observe=self._observe,
            ended=self._ended,
            stderr=self._stderr,
            others=self._others,
            in_force=self._in_force,
            executables=self._executables,
            journal=self._estate.journal,
            successor=self._successor,
        )
        self.held = {"listener": listener}
        self._supervisor.start()

    def trace(self) -> socket.socket | None:
        """Answer the tracer that will hold this end of a socket, where tracing is how it is done. Raises OSError."""
        if not self._traced:
            return None
        ours, tracers = pair()
        self._follow(ours)
        return tracers

    def follow(self, tracer: int) -> None:
        """Answer the tracer of another guard's. Raises OSError."""
        self._follow(socket.socket(fileno=tracer))

    def _follow(self, tracer: socket.socket) -> None:
        uid, gid = self._session_ids()
        self._supervisor = ExecTracer(
            tracer,
            self._gate,
            self._build_request,
            session_uid=uid,
            session_gid=gid,
            actor=self._spec.actor,
            post=self._post,
            observe=self._observe,
            ended=self._ended,
            stderr=self._stderr,
            in_force=self._in_force,
            executables=self._executables,
            others=self._traced_others,
            successor=self._successor,
        )
        self.held = {"tracer": tracer.fileno()}
        self._supervisor.start()

    def stop(self) -> None:
        """No exec is permitted any more."""
        if self._supervisor is not None:
            self._supervisor.stop()

    def _session_ids(self) -> tuple[int | None, int | None]:
        user = self._spec.session_user
        return (None, None) if self._spec.egress_user is None else (user.uid, user.gid)

    # --- on the ring's threads

    def _ended(self, reason: str | None) -> None:
        if reason is not None:
            self._on_loop(self._on_fault, Point.EXEC, f"the exec supervisor failed: {reason}")

    def _on_loop[*T](self, function: Callable[[*T], object], *arguments: *T) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)
