"""The hook's end in the guard: a Unix socket that answers one tool call, or one shell that would start, per connection.

Rules: whatever goes wrong is a denial (the client denies too where no answer comes); a message is bounded in size,
memory and time, connections in number; the caller's uid and pid come from the kernel (SO_PEERCRED, unix(7)), never from
what it says; what is long, or looks at files, is read off the event loop. The answer is advice to a program that asked:
what the session does anyway is bounded by the exec ring, the path guard and the egress proxy.

What travels is defined in `hook_wire`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from typing import Protocol

from agent.enforce.commands.hook_connection import Listener
from agent.enforce.commands.hook_protocols import (
    AskArgv,
    AskPath,
    Call,
    ProtocolError,
    permission,
    read_call,
    read_payload,
    refusal,
)
from agent.enforce.commands.hook_requests import Requests
from agent.enforce.commands.hook_wire import SHELL, Intake, WireError, encode_answer, shell_question
from agent.enforce.commands.refusal import refusal_line
from agent.policy.decision import Decision, Severity, Verdict
from agent.policy.request import CommandRequest, Origin, Request
from agent.policy.rule_ids import AGENT_FAULT
from agent.policy.words import shown

log = logging.getLogger(__name__)

MESSAGE_TIMEOUT = 5.0
"""Seconds for the whole call to arrive."""
SMALL = 8 << 10
"""Bytes of a call that is read on the event loop: handing it to a thread would take longer."""
_UCRED = struct.Struct("3i")  # struct ucred: pid, uid, gid; unix(7)


class HookGate(Protocol):
    """What decides (`agent.gate.Gate`)."""

    def check(self, request: Request) -> Decision: ...


def utc_today() -> date:
    """The day that exceptions are measured by."""
    return datetime.now(tz=UTC).date()


class _Question:
    """What was asked, and who by the kernel's word: the caller may be gone by the time that it is needed."""

    __slots__ = ("fault", "intake", "pid", "protocol", "uid")

    def __init__(self, intake: Intake, fault: str | None, caller: socket.socket) -> None:
        self.intake = intake
        self.fault = fault
        self.protocol = intake.protocol
        try:
            peer = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            self.pid, self.uid, _ = _UCRED.unpack(peer)
        except OSError:
            self.pid = self.uid = 0


class HookServer:
    """Listens on `path` (mode 0666: any session process may ask) from `start` to `stop`.

    `home` and `tmpdir` are the session's. `supervised`: the exec ring decides again on every exec. `record` takes the
    refusals that no policy spoke (calls that cannot be read). `behind`: the caller's process by the one that the kernel
    names, which is the guard's where the guard connects for the session.
    """

    def __init__(
        self,
        path: str,
        gate: HookGate,
        *,
        home: str,
        supervised: bool = False,
        tmpdir: str = "",
        today: Callable[[], date] = utc_today,
        message_timeout: float = MESSAGE_TIMEOUT,
        record: Callable[[CommandRequest, Decision], object] | None = None,
        behind: Callable[[int], int] = lambda pid: pid,
    ) -> None:
        self._behind = behind
        self._gate = gate
        self._requests = Requests(home, tmpdir, supervised, today)
        self._record = record
        self._listener = Listener(path, self._answer, message_timeout)

    async def start(self) -> None:
        """Bind and listen. Raises OSError."""
        self._listener.start()

    async def stop(self) -> None:
        """Stop listening; calls in hand lose their connection, which denies them."""
        self._listener.stop()

    def _answer(self, intake: Intake, fault: str | None, caller: socket.socket) -> bytes | Awaitable[bytes]:
        """At once where the call is short and looks at no file, else by a thread."""
        if intake.empty and fault is None:  # a client that was ended before it asked
            return b""
        question = _Question(intake, fault, caller)
        if intake.kept > SMALL:
            return self._answer_later(question)
        return self._guarded(question, lambda: self._answer_now(question))

    def _answer_now(self, question: _Question) -> bytes | Awaitable[bytes]:
        call = self._read(question)
        if any(isinstance(ask, AskPath) for ask in call.asks):
            return self._answer_later(question)
        return self._decide(question.protocol, self._ask(call, self._origin(question, call)))

    async def _answer_later(self, question: _Question) -> bytes:
        try:
            requests = await asyncio.to_thread(self._make, question)
        except Exception as error:
            return self._denied(question, error)
        return self._guarded(question, lambda: self._decide(question.protocol, requests))

    def _make(self, question: _Question) -> list[Request]:
        call = self._read(question)
        return self._ask(call, self._origin(question, call))

    def _guarded[T](self, question: _Question, work: Callable[[], T]) -> T | bytes:
        try:
            return work()
        except Exception as error:
            return self._denied(question, error)

    def _denied(self, question: _Question, error: Exception) -> bytes:
        """Where every fault of the hook ends: recorded, and denied. On the loop's thread, as is all that records."""
        if isinstance(error, ProtocolError | WireError):
            rule, reason = "hook-malformed", f"the hook's call is malformed: {shown(str(error))}"
        else:
            log.error("a hook call failed; denied", exc_info=error)
            rule, reason = AGENT_FAULT, "the agent could not read or decide this call"
        self._refused(question, rule, reason)
        return _denial(question.protocol, f"parhelia: denied by {rule}: {reason}")

    def _read(self, question: _Question) -> Call:
        if question.fault is not None:
            raise WireError(question.fault)
        payload = question.intake.payload()
        if question.protocol == SHELL:
            directory, argv = shell_question(payload)
            return Call("", (AskArgv(argv, directory),))
        return read_call(question.protocol, read_payload(payload), home=self._requests.home)

    def _ask(self, call: Call, origin: Origin) -> list[Request]:
        return [request for ask in call.asks for request in self._requests.of(ask, origin)]

    def _refused(self, question: _Question, rule: str, reason: str) -> None:
        if self._record is None:
            return
        origin = Origin(mechanism="hook", pid=self._behind(question.pid), uid=question.uid)
        request = CommandRequest(text="?", commands=(), today=self._requests.today(), origin=origin, cwd="?")
        self._record(request, Decision(Verdict.DENY, rule, reason, "", severity=Severity.HIGH))

    def _origin(self, question: _Question, call: Call) -> Origin:
        pid, uid, protocol = question.pid, question.uid, question.protocol
        if protocol == SHELL:
            return Origin(mechanism="shim", pid=self._behind(pid), uid=uid)
        named = (("tool", call.tool), ("protocol", protocol), *call.about)
        return Origin(
            mechanism="hook",
            pid=self._behind(pid),
            uid=uid,
            request_id=None if call.call_id is None else shown(call.call_id),
            extra=tuple((key, shown(value)) for key, value in named),
        )

    def _decide(self, protocol: str, requests: list[Request]) -> bytes:
        for request in requests:
            decision = self._gate.check(request)
            if not decision.permitted:
                return _denial(protocol, refusal_line(decision))
        return encode_answer(True, "" if protocol == SHELL else permission(protocol) + "\n", "")


def _denial(protocol: str, message: str) -> bytes:
    """A denial in the protocol's own words (for a protocol that is none: in those of Claude Code)."""
    return encode_answer(False, "" if protocol == SHELL else refusal(protocol, message) + "\n", message + "\n")
