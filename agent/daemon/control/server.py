"""The control socket: what operators may ask of a running agent (status, reload, lockdown, …).

Rules kept here: who asks is known from the kernel before a byte is read, and who has no role is recorded, told so and
read no further; one table says which verb needs which role, and what is not in it is malformed; connections are bounded
in number, requests in size and time, and a slow caller holds nobody but itself. Where the kernel's word on callers is
not true (gVisor answers every server with the server's own account) the socket is the owner's alone, by its mode.

The session never gets this far: its account has no role, and in a mount namespace of its own the socket is covered.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from agent.daemon.base.names import control_link, control_socket
from agent.daemon.base.spec import RunSpec
from agent.daemon.control.callers import Caller, Callers
from agent.daemon.control.events import ControlEvents
from agent.daemon.control.link import ControlLink, Gone
from agent.daemon.control.wire import Message, WireError
from agent.exits import Exit
from agent.policy.control_roles import Role
from agent.values import dataclass

log = logging.getLogger(__name__)

REQUEST_SECONDS = 5.0
MAX_CONNECTIONS = 32
_BACKLOG = 64
_ACCEPT_PAUSE = 0.2
_STOP_SECONDS = 2.0
_UCRED = struct.Struct("3i")  # struct ucred: pid, uid, gid; unix(7)
_PROBED = 65534
_PROBE_SECONDS = 10.0

type Answer = Callable[[Caller, Message, ControlLink], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class Verb:
    """One entry of the table: the least role, and what answers."""

    least: Role
    answer: Answer


class ControlServer:
    """Listens from `start` to `stop`. `verbs` is the table."""

    def __init__(
        self,
        spec: RunSpec,
        callers: Callers,
        events: ControlEvents,
        verbs: Mapping[str, Verb],
        *,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        self._spec = spec
        self._callers = callers
        self._events = events
        self._verbs = verbs
        self._seconds = request_seconds
        self._path = control_socket(spec.run_dir)
        self._listening: socket.socket | None = None
        self._links: dict[asyncio.Task[None], ControlLink] = {}

    async def start(self) -> None:
        """Bind, find out whether the kernel tells callers apart, and listen. Raises OSError."""
        self._path.parent.mkdir(mode=0o711, exist_ok=True)
        self._path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            mode = 0o666 if _tells_callers(self._path.with_name("probe.sock")) else 0o600
            listening.setblocking(False)
            listening.bind(str(self._path))
            self._path.chmod(mode)
            listening.listen(_BACKLOG)  # nobody could connect before
        except OSError:
            listening.close()
            raise
        self._listening = listening
        self._publish()
        self._watch()

    async def stop(self) -> None:
        """Stop listening; answers that are being made get a moment."""
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None
        if self._links:
            await asyncio.wait(self._links, timeout=_STOP_SECONDS)
        for task in tuple(self._links):
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)
        link = control_link(self._spec.run_root)
        with suppress(OSError):
            if link.readlink() == self._path:
                link.unlink()
            self._path.unlink()

    def _publish(self) -> None:
        """The first session below the run root has the short name; what an ended one left of it is taken away."""
        link = control_link(self._spec.run_root)
        with suppress(OSError):
            if link.is_symlink() and not link.exists():
                link.unlink()
            link.symlink_to(self._path)

    def _watch(self) -> None:
        if self._listening is not None:
            asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while self._listening is not None:
            try:
                peer, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("the control socket accepts nothing for a moment: %s", error)
                loop.remove_reader(self._listening)
                loop.call_later(_ACCEPT_PAUSE, self._watch)
                return
            if len(self._links) >= MAX_CONNECTIONS:
                peer.close()
                continue
            link = ControlLink(peer, self._seconds)
            task = loop.create_task(self._serve(peer, link))
            self._links[task] = link
            task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._links.pop(task).close()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a control request failed; it got no answer", exc_info=error)

    async def _serve(self, peer: socket.socket, link: ControlLink) -> None:
        caller = self._callers.caller(*_peer(peer))
        with suppress(Gone):
            await link.send(await self._answer(caller, link))

    async def _answer(self, caller: Caller, link: ControlLink) -> Message:
        if caller.role is None:
            self._events.unknown_caller(caller)
            return _refusal(f"{caller.name} has no role here: see `control` in the policy")
        try:
            message = await link.request()
            name = message.get("verb")
            verb = self._verbs.get(name) if isinstance(name, str) else None
            if verb is None:
                raise WireError("it names no verb of this agent")
        except (WireError, TimeoutError) as error:
            why = "it did not arrive in time" if isinstance(error, TimeoutError) else str(error)
            self._events.malformed(caller, why)
            return {"exit": int(Exit.USAGE), "error": f"the request is malformed: {why}"}
        if not caller.role.may(verb.least):
            return _refusal(self._events.refused(caller, str(name), verb.least))
        try:
            return await verb.answer(caller, message, link)
        except WireError as error:
            self._events.malformed(caller, str(error))
            return {"exit": int(Exit.USAGE), "error": f"the request is malformed: {error}"}
        except Gone:
            raise
        except Exception:
            log.exception("the control request %s failed", name)
            return {"exit": int(Exit.UNREACHABLE), "error": "the agent could not answer; see its log"}


def _refusal(reason: str) -> Message:
    return {"exit": int(Exit.DENIED), "error": reason}


def _peer(peer: socket.socket) -> tuple[int, int]:
    """(uid, pid) of who connected; -1 where the kernel does not say, which nobody is."""
    try:
        pid, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    except OSError:
        return -1, 0
    return uid, pid


def _tells_callers(path: Path) -> bool:
    """Whether SO_PEERCRED is true here, found by trying as another account, on a socket at `path` that serves nobody.
    Without root that cannot be tried, and the control socket stays its owner's. Raises OSError."""
    if os.geteuid() != 0:
        return False
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.setblocking(False)
        listening.bind(str(path))
        path.chmod(0o666)
        listening.listen()
        child = os.fork()
        if child == 0:
            _connect_as_somebody(path)
        _end(child)
        path.unlink()
        try:
            probe, _ = listening.accept()
        except BlockingIOError:
            return False
        with probe:
            return _peer(probe) == (_PROBED, child)


def _connect_as_somebody(path: Path) -> NoReturn:
    """In the child: connect as an account that is nobody's here, and end. Directories above may be closed to it."""
    try:
        os.chdir(path.parent)
        os.setgroups([])
        os.setresgid(_PROBED, _PROBED, _PROBED)
        os.setresuid(_PROBED, _PROBED, _PROBED)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(path.name)
    finally:
        os._exit(0)


def _end(child: int) -> None:
    """Wait for it; it has but a moment."""
    deadline = time.monotonic() + _PROBE_SECONDS
    with suppress(ChildProcessError):
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.002)
