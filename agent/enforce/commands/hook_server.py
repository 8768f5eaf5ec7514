"""The hook's end in the guard: a Unix socket that answers one tool call, or one shell that would start, per connection.

Rules: whatever goes wrong is a denial (the client denies too where no answer comes); a message is bounded in size,
memory and time, connections in number; the caller's uid and pid come from the kernel (SO_PEERCRED, unix(7)), never from
what it says; what is long, or looks at files, is read off the event loop. The answer is advice to a program that asked:
what the session does anyway is bounded by the exec ring, the path guard and the egress proxy.

What travels is defined in `hook_wire`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Protocol

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
from agent.policy.words import shown

log = logging.getLogger(__name__)

MAX_CLIENTS = 64
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
        self._path = path
        self._gate = gate
        self._requests = Requests(home, tmpdir, supervised, today)
        self._timeout = message_timeout
        self._record = record
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind and listen. Raises OSError."""
        _remove(self._path)
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        _open_to_all(self._path)

    async def stop(self) -> None:
        """Stop listening; calls in hand lose their connection, which denies them."""
        if self._server is None:
            return
        self._server.close()
        for writer in tuple(self._writers):
            writer.close()
        _remove(self._path)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if len(self._writers) <= MAX_CLIENTS:
                writer.write(await self._answer(reader, writer))
                async with asyncio.timeout(self._timeout):
                    await writer.drain()
        except (OSError, TimeoutError):
            log.debug("a hook client went away")
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """The one fail-closed place of the hook."""
        intake = Intake()
        try:
            async with asyncio.timeout(self._timeout):
                while piece := await reader.read(65536):
                    intake.feed(piece)
            if intake.empty:  # a client that was ended before it asked
                return b""
            payload = intake.payload()
            peer = _peer(writer)
            if len(payload) <= SMALL:
                call = self._read(intake.protocol, payload)
            else:
                call = await asyncio.to_thread(self._read, intake.protocol, payload)
            origin = self._origin(peer, call, intake.protocol)
            if len(payload) <= SMALL and not any(isinstance(ask, AskPath) for ask in call.asks):
                requests = self._ask(call, origin)
            else:
                requests = await asyncio.to_thread(self._ask, call, origin)
            return self._decide(intake.protocol, requests)
        except (ProtocolError, WireError) as error:
            reason = f"the hook's call is malformed: {shown(str(error))}"
            self._refused(writer, "hook-malformed", reason)
            return _denial(intake.protocol, f"parhelia: denied by hook-malformed: {reason}")
        except Exception:
            log.exception("a hook call failed; denied")
            reason = "the agent could not read or decide this call"
            self._refused(writer, "agent-fault", reason)
            return _denial(intake.protocol, f"parhelia: denied by agent-fault: {reason}")

    def _read(self, protocol: str, payload: bytes) -> Call:
        if protocol == SHELL:
            directory, argv = shell_question(payload)
            return Call("", (AskArgv(argv, directory),))
        return read_call(protocol, read_payload(payload), home=self._requests.home)

    def _ask(self, call: Call, origin: Origin) -> list[Request]:
        return [self._requests.make(ask, origin) for ask in call.asks]

    def _refused(self, writer: asyncio.StreamWriter, rule: str, reason: str) -> None:
        if self._record is None:
            return
        try:
            pid, uid = _peer(writer)
        except OSError:  # gone already
            pid, uid = 0, 0
        origin = Origin(mechanism="hook", pid=self._behind(pid), uid=uid)
        request = CommandRequest(text="?", commands=(), today=self._requests.today(), origin=origin, cwd="?")
        self._record(request, Decision(Verdict.DENY, rule, reason, "", severity=Severity.HIGH))

    def _origin(self, peer: tuple[int, int], call: Call, protocol: str) -> Origin:
        pid, uid = peer
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


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        Path(path).unlink()


def _open_to_all(path: str) -> None:
    """Any user of the machine may ask; SO_PEERCRED says who did."""
    Path(path).chmod(0o666)


def _peer(writer: asyncio.StreamWriter) -> tuple[int, int]:
    """Process id and uid of the caller."""
    peer: socket.socket = writer.get_extra_info("socket")
    pid, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


def _denial(protocol: str, message: str) -> bytes:
    """A denial in the protocol's own words (for a protocol that is none: in those of Claude Code)."""
    return encode_answer(False, "" if protocol == SHELL else refusal(protocol, message) + "\n", message + "\n")
