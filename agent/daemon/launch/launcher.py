"""The guard's end of a launch: starts the launcher as its own child, answers its steps, and starts commands in it.

The launcher must be a child of whoever supervises its execs: Yama's ptrace_scope=1 lets only ancestors read a task's
memory. Once confined it is the session's init (agent.session.init), which forks every command.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from agent.channel import Channel, ChannelClosed, Message
from agent.daemon.launch.waiting import Waiting
from agent.session.command import GO, MAX_TOLD
from agent.session.doors import Door
from agent.session.plan import Command, Hold, Plan
from agent.session.tracing import map_ids
from agent.values import dataclass

LAUNCH_SECONDS = 30.0
_UCRED = struct.Struct("=iII")  # struct ucred, unix(7): pid, uid, gid


class LaunchFailed(Exception):
    """A step of the launch, or of a command's start, failed; nothing has been executed."""


class NoWorkdir(Exception):
    """The session's working directory cannot be had; the text says why."""


@dataclass(frozen=True, slots=True)
class Started:
    """A command of the session. `pid` as this process's namespace has it; `status`: that of wait(2), once it ends."""

    pid: int
    status: asyncio.Future[int]


class LaunchLink:
    """One launch. `serve` takes the jail's listeners, `supervise` the seccomp listener, `trace`
    gives the end of a socket that the launcher's tracer is to have, None where execs are not traced; all return when in
    force. `lost` is called when the session's init is gone, on the loop,
    once, after the launch. `place` gets each command's process id before it is let go; may raise OSError.
    `watch_reads` gets what asks before decoys are opened (agent.linux.fanotify). `held` gets the protected places that
    are not held when all mounts are made, and says what else is to be."""

    def __init__(
        self,
        serve: Callable[[list[Door], list[int]], Awaitable[None]],
        supervise: Callable[[int], Awaitable[None]],
        trace: Callable[[], socket.socket | None],
        lost: Callable[[], None],
        place: Callable[[int], None] = lambda pid: None,
        *,
        watch_reads: Callable[[int], None] = os.close,
        held: Callable[[list[str]], Iterable[tuple[str, Hold]]] = lambda lost: (),
    ) -> None:
        self._serve = serve
        self._supervise = supervise
        self._trace = trace
        self._lost = lost
        self._place = place
        self._watch_reads = watch_reads
        self._held = held
        self.init = 0
        self.first = 0
        """The number of the session's first command."""
        self.left: list[int] = []
        """Further commands that another guard had begun and that still run: their processes."""
        self._own_pids = False
        self._channel: Channel | None = None
        self._running: dict[int, asyncio.Future[int]] = {}
        self._last = 0
        self._reopened: asyncio.Future[tuple[list[str], list[int], str]] | None = None

    async def prepare(self, plan: Plan, launcher: Waiting) -> list[tuple[str, str]]:
        """Have it run every step up to the proofs; returns what should have failed and did not. Its end of the keeper's
        channel stays the caller's to close. Raises LaunchFailed, NoWorkdir."""
        self.init = launcher.pid
        channel = self._channel = launcher.channel
        self._own_pids = plan.pids is not None
        try:
            self._order(channel, plan, launcher.keeper)
            await asyncio.wait_for(self._steps(channel), LAUNCH_SECONDS)
        except TimeoutError:
            raise LaunchFailed(f"the launcher did not answer within {LAUNCH_SECONDS:.0f} s") from None
        except ChannelClosed as error:
            raise LaunchFailed(f"the launcher died: {error}") from error
        channel.sock.setblocking(False)
        asyncio.get_running_loop().add_reader(channel.fileno(), self._readable, channel)
        return await self._prove()

    def _order(self, channel: Channel, plan: Plan, keeper: int) -> None:
        try:
            tracers = self._trace()
        except OSError as error:
            raise LaunchFailed(f"nobody could answer for execs: {error}") from error
        given = [keeper] if tracers is None else [keeper, tracers.fileno()]
        try:
            channel.send({"type": "launch", "plan": plan.dump()}, given)
        finally:
            if tracers is not None:
                tracers.close()

    async def adopt(self, channel: Channel, init: int, first: int, pid: int, *, own_pids: bool) -> Started:
        """Take the place of another guard: `channel` is what the keeper has handed to the session's init, `first` the
        number of the session's first command, `pid` its process. Raises LaunchFailed."""
        self.init, self._own_pids, self._channel, self.first = init, own_pids, channel, first
        channel.sock.setblocking(False)
        try:
            ((message, _), *more) = await asyncio.wait_for(_next(channel), LAUNCH_SECONDS)
            if message["type"] != "adopted" or more:
                raise LaunchFailed(f"the session's init said {message['type']!r}")
        except (TimeoutError, ChannelClosed, ValueError) as error:
            raise LaunchFailed(f"the session's init did not answer: {error}") from error
        numbers = [each["id"] for each in (*message["running"], *message["ended"])]
        self._last = max((self._last, first, *numbers))
        self.left = [int(each["pid"]) for each in message["running"] if each["id"] != first and int(each["pid"])]
        status = asyncio.get_running_loop().create_future()
        ended = [each["status"] for each in message["ended"] if each["id"] == first]
        if ended:
            status.set_result(int(ended[0]))
        else:
            self._running[first] = status
        asyncio.get_running_loop().add_reader(channel.fileno(), self._readable, channel)
        return Started(pid, status)

    async def run(self, command: Command, streams: tuple[int, int, int]) -> Started:
        """Start a command inside the confinement. `streams` become its 0, 1 and 2 and stay the caller's; a terminal
        among them becomes its controlling one and must be no other session's. Where the command does not exist or may
        not run, its status says so (127, 126). Raises LaunchFailed; NoWorkdir."""
        order = {"type": "run", "argv": command.argv, "env": command.env, "workdir": command.workdir}
        number = self._number()
        status = self._running[number] = asyncio.get_running_loop().create_future()
        try:
            birth, pid = await self._bear(number, order, streams)
            with birth:
                self._place(pid)
                self._send({"type": "born", "id": number, "pid": pid})
                birth.send(GO, socket.MSG_NOSIGNAL)
        except OSError as error:
            self._running.pop(number, None)
            raise LaunchFailed(f"the command's process is gone, or has no place: {error}") from error
        except BaseException:
            self._running.pop(number, None)
            raise
        self.first = self.first or number
        return Started(pid, status)

    async def reopen(self, port: int) -> tuple[list[str], list[int], str]:
        """Have init open the doors, the proxy's on this port, where it is now: what each is for, the listeners (which
        become the caller's), and why there are no others than the proxy's, where that is so. Raises LaunchFailed."""
        self._reopened = asyncio.get_running_loop().create_future()
        try:
            self._send({"type": "listen", "port": port})
            return await asyncio.wait_for(self._reopened, LAUNCH_SECONDS)
        except TimeoutError:
            raise LaunchFailed("the session's init did not answer") from None
        finally:
            self._reopened = None

    def _take_listeners(self, message: Message, fds: list[int]) -> None:
        waiting = self._reopened
        if waiting is None or waiting.done() or message["error"]:
            for fd in fds:
                os.close(fd)
        if waiting is None or waiting.done():
            return
        if message["error"]:
            waiting.set_exception(LaunchFailed(f"the session's doors cannot be opened again: {message['error']}"))
        else:
            waiting.set_result(([str(door) for door in message["doors"]], fds, str(message["missing"])))

    async def _prove(self) -> list[tuple[str, str]]:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            birth, _ = await self._bear(self._number(), {"type": "prove"}, (null, null, null))
        finally:
            os.close(null)
        with birth:
            birth.send(GO, socket.MSG_NOSIGNAL)
            told, _ = await _told(birth)
        return [(str(point), str(text)) for point, text in told["broken"]]

    def _number(self) -> int:
        self._last += 1
        return self._last

    async def _bear(self, number: int, order: Message, streams: tuple[int, int, int]) -> tuple[socket.socket, int]:
        """Have init fork and take its steps; the socket by which the process waits for GO, and its pid."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                ours.setblocking(False)
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                self._send({**order, "id": number}, [*streams, theirs.fileno()])
            told, pid = await asyncio.wait_for(_told(ours), LAUNCH_SECONDS)
            if told["type"] == "failed":
                raise _refusal(told)
        except TimeoutError:
            ours.close()
            raise LaunchFailed(f"the session's init did not answer within {LAUNCH_SECONDS:.0f} s") from None
        except BaseException:
            ours.close()
            raise
        return ours, pid if self._own_pids else int(told["pid"])

    def _send(self, message: Message, fds: list[int] | None = None) -> None:
        if self._channel is None:
            raise LaunchFailed("there is no session")
        try:
            self._channel.send(message, fds or ())
        except ChannelClosed as error:
            raise LaunchFailed(f"the session's init is gone: {error}") from error

    def _readable(self, channel: Channel) -> None:
        try:
            for message, fds in channel.feed():
                if message["type"] == "listeners":
                    self._take_listeners(message, fds)
                    continue
                if message["type"] != "ended":
                    raise ChannelClosed(f"unknown message {message['type']!r} from the session's init")
                status = self._running.pop(message["id"], None)
                if status is not None and not status.done():
                    status.set_result(int(message["status"]))
        except ChannelClosed:
            asyncio.get_running_loop().remove_reader(channel.fileno())
            self._lost()  # first: it tells from the first command's status whether this was the session's end
            for status in self._running.values():
                if not status.done():
                    status.set_result(signal.SIGKILL)
            self._running.clear()

    # --- the launch

    async def _steps(self, channel: Channel) -> None:
        while True:
            for message, fds in await _next(channel):
                if message["type"] == "confined":
                    return
                await self._step(channel, message, fds)

    async def _step(self, channel: Channel, message: Message, fds: list[int]) -> None:
        match message["type"]:
            case "map_ids":
                map_ids(self.init)
                channel.send({"type": "mapped"})
            case "first":
                self.init = int(message["pid"])
                channel.send({"type": "known"})
            case "held":
                channel.send({"type": "hold", "places": list(self._held(message["lost"]))})
            case "listeners":
                try:
                    await self._serve([Door(name) for name in message["doors"]], fds)
                finally:
                    for fd in fds:
                        os.close(fd)
                channel.send({"type": "served"})
            case "notify":
                await self._supervise(fds[0])
                channel.send({"type": "supervised"})
            case "reads":
                self._watch_reads(fds[0])
                channel.send({"type": "watched"})
            case "failed":
                raise _refusal(message)
            case unknown:
                raise LaunchFailed(f"unknown message {unknown!r} from the launcher")


def _refusal(message: Message) -> Exception:
    if message["step"] == "enter_workdir":
        return NoWorkdir(f"the working directory {message['error'].partition(': ')[2]}")
    return LaunchFailed(f"step {message['step']}: {message['error']}")


async def _next(channel: Channel) -> list[tuple[Message, list[int]]]:
    await _readable(channel.sock)
    return channel.feed()


async def _told(birth: socket.socket) -> tuple[dict[str, Any], int]:
    """What a process that is being born says, and its pid as the kernel has it here (SCM_CREDENTIALS, unix(7); 0 where
    it says nothing). Raises LaunchFailed where it is gone."""
    await _readable(birth)
    data, ancillary, _, _ = birth.recvmsg(MAX_TOLD, socket.CMSG_SPACE(_UCRED.size))
    if not data:
        raise LaunchFailed("the command's process died before it was executed")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return json.loads(data), _UCRED.unpack(payload)[0]
    return json.loads(data), 0


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(sock.fileno(), ready)
    try:
        await readable
    finally:
        loop.remove_reader(sock.fileno())
