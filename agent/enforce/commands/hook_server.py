"""The hook's end in the guard: a Unix socket that answers one tool call per connection.

Rules: whatever goes wrong is a denial (the client denies too where no answer comes); a message is bounded in size and
time, connections in number; the caller's uid and pid come from the kernel (SO_PEERCRED, unix(7)), never from what it
says; text is analysed off the event loop. The answer is advice to a program that asked: what the session does anyway is
bounded by the exec ring, the path guard and the egress proxy.

One message each way, as JSON, ended by the end of the stream: `{"protocol", "payload"}` ->
`{"permit", "output", "message"}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Protocol, assert_never

from agent.enforce.commands.hook_protocols import (
    Ask,
    AskArgv,
    AskPath,
    AskText,
    AskUrl,
    Call,
    ProtocolError,
    permission,
    read_call,
    refusal,
)
from agent.enforce.commands.refusal import refusal_line
from agent.policy.decision import Decision, Severity, Verdict
from agent.policy.request import Access, CommandRequest, EgressRequest, Origin, PathRequest, Request, Stage
from agent.policy.request import Protocol as Spoken
from agent.policy.targets import TargetError, parse_target
from agent.policy.words import shown
from agent.shell.requests import from_argv, from_text

log = logging.getLogger(__name__)

MAX_MESSAGE = 1 << 20
"""Bytes of one call."""
MAX_CLIENTS = 64
MESSAGE_TIMEOUT = 5.0
"""Seconds for the whole call to arrive."""
_PATH_MAX = 4096  # linux/limits.h
_UCRED = struct.Struct("3i")  # struct ucred: pid, uid, gid; unix(7)


class HookGate(Protocol):
    """What decides (`agent.gate.Gate`)."""

    def check(self, request: Request) -> Decision: ...


def utc_today() -> date:
    """The day that exceptions are measured by."""
    return datetime.now(tz=UTC).date()


@dataclass(frozen=True, slots=True)
class _Answer:
    permit: bool
    output: str
    message: str

    def encoded(self) -> bytes:
        return json.dumps({"permit": self.permit, "output": self.output, "message": self.message}).encode()


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
        self._home = home
        self._supervised = supervised
        self._tmpdir = tmpdir
        self._today = today
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
                answer = await self._answer(reader, writer)
                writer.write(answer.encoded())
                async with asyncio.timeout(self._timeout):
                    await writer.drain()
        except (OSError, TimeoutError):
            log.debug("a hook client went away")
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Answer:
        """The one fail-closed place of the hook."""
        protocol = "claude-code"
        try:
            async with asyncio.timeout(self._timeout):
                data = await _read(reader)
            message = json.loads(data)
            protocol = message["protocol"]
            call = read_call(protocol, message["payload"], default_cwd=self._home)
            origin = self._origin(writer, call, protocol)
            loop = asyncio.get_running_loop()
            requests = [await loop.run_in_executor(None, self._request, ask, origin) for ask in call.asks]
            return self._decide(protocol, requests)
        except ProtocolError as error:
            self._refused(writer, "hook-malformed", shown(str(error)))
            return _denial(protocol, f"parhelia: denied: the hook's call is malformed: {error}")
        except Exception:
            log.exception("a hook call failed; denied")
            self._refused(writer, "agent-fault", "the agent could not read or decide this call")
            return _denial(protocol, "parhelia: denied by agent-fault: the agent could not read or decide this call")

    def _refused(self, writer: asyncio.StreamWriter, rule: str, reason: str) -> None:
        if self._record is None:
            return
        try:
            pid, uid = _peer(writer)
        except OSError:  # gone already
            pid, uid = 0, 0
        origin = Origin(mechanism="hook", pid=self._behind(pid), uid=uid)
        request = CommandRequest(text="?", commands=(), today=self._today(), origin=origin, cwd="?")
        self._record(request, Decision(Verdict.DENY, rule, reason, "", severity=Severity.HIGH))

    def _origin(self, writer: asyncio.StreamWriter, call: Call, protocol: str) -> Origin:
        pid, uid = _peer(writer)
        return Origin(
            mechanism="hook",
            pid=self._behind(pid),
            uid=uid,
            request_id=None if call.call_id is None else shown(call.call_id),
            extra=(("tool", shown(call.tool)), ("protocol", protocol)),
        )

    def _decide(self, protocol: str, requests: list[Request]) -> _Answer:
        for request in requests:
            decision = self._gate.check(request)
            if not decision.permitted:
                return _denial(protocol, refusal_line(decision))
        return _Answer(True, permission(protocol), "")

    def _request(self, ask: Ask, origin: Origin) -> Request:
        today = self._today()
        match ask:
            case AskText(text, cwd):
                return from_text(
                    text, cwd=cwd, home=self._home, today=today, origin=origin, supervised=self._supervised
                )
            case AskArgv(argv, cwd):
                return from_argv(
                    argv, exe=None, cwd=cwd, home=self._home, today=today, origin=origin, supervised=self._supervised
                )
            case AskPath(access, path):
                return PathRequest(
                    access=access,
                    path=_resolved(path, follow=access is not Access.DELETE),
                    today=today,
                    origin=origin,
                    asked=path,
                    home=self._home,
                    tmpdir=self._tmpdir,
                )
            case AskUrl(url):
                return _egress(url, today, origin)
            case _:
                assert_never(ask)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        Path(path).unlink()


def _open_to_all(path: str) -> None:
    """Any user of the machine may ask; SO_PEERCRED says who did."""
    Path(path).chmod(0o666)


async def _read(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := await reader.read(65536):
        size += len(part)
        if size > MAX_MESSAGE:
            raise ProtocolError(f"it is larger than {MAX_MESSAGE} bytes")
        parts.append(part)
    return b"".join(parts)


def _peer(writer: asyncio.StreamWriter) -> tuple[int, int]:
    """Process id and uid of the caller."""
    peer: socket.socket = writer.get_extra_info("socket")
    pid, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


def _resolved(path: str, *, follow: bool) -> str:
    """Symlinks as they are now, where the guard sees them. Deleting concerns the link itself."""
    if "\0" in path or len(os.fsencode(path)) > _PATH_MAX:
        raise ProtocolError("the path is too long or holds a NUL byte")
    if follow:
        return os.path.realpath(path)
    parent, name = os.path.split(os.path.normpath(path))
    return os.path.join(os.path.realpath(parent), name)  # noqa: PTH118


def _egress(url: str, today: date, origin: Origin) -> EgressRequest:
    try:
        target = parse_target(url)
    except TargetError as error:
        raise ProtocolError(str(error)) from error
    return EgressRequest(
        host=target.host,
        port=target.port,
        today=today,
        origin=origin,
        protocol=target.protocol,
        stage=Stage.NAME if target.path is None else Stage.REQUEST,
        method=None if target.protocol is Spoken.TCP else "GET",
        path=target.path,
        query=None if target.path is None else target.query,
        headers=(),  # the proxy decides the request itself, with the fields that it will have
    )


def _denial(protocol: str, message: str) -> _Answer:
    return _Answer(False, refusal(protocol, message), message)
