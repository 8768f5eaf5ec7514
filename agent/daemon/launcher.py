"""The guard's end of a launch: starts the launcher as its own child, answers its steps, and says go.

The launcher must be a child of whoever supervises its execs: Yama's ptrace_scope=1 lets only ancestors read a task's
memory. It is spawned from the guard's main thread: the parent-death signal follows the spawning thread (prctl(2)).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

from agent.channel import Channel, ChannelClosed, Message, pair
from agent.session.doors import Door
from agent.session.plan import Plan

LAUNCH_SECONDS = 30.0


class LaunchFailed(Exception):
    """A step of the launch failed; nothing of the session has run."""


class NoWorkdir(Exception):
    """The session's working directory cannot be had; the text says why."""


class LaunchLink:
    """One launch. `serve` takes the jail's listeners, `supervise` the seccomp listener, `trace` the launcher's process
    id before its first step; all return when in force."""

    def __init__(
        self,
        serve: Callable[[list[Door], list[int]], Awaitable[None]],
        supervise: Callable[[int], Awaitable[None]],
        trace: Callable[[int], Awaitable[None]],
    ) -> None:
        self._serve = serve
        self._supervise = supervise
        self._trace = trace
        self.pid = 0
        self._channel: Channel | None = None

    async def prepare(self, plan: Plan, stdio: tuple[int, int, int]) -> list[tuple[str, str]]:
        """Run every step up to the proofs; returns what should have failed and did not. Raises LaunchFailed."""
        ours, theirs = pair()
        try:
            self.pid = _spawn(theirs.fileno(), stdio)
        finally:
            theirs.close()
        self._channel = Channel(ours)
        try:
            await self._trace(self.pid)
        except OSError as error:
            raise LaunchFailed(f"the launcher cannot be traced: {error}") from error
        self._channel.send({"type": "launch", "plan": plan.dump()})
        try:
            return await asyncio.wait_for(self._steps(self._channel), LAUNCH_SECONDS)
        except TimeoutError:
            raise LaunchFailed(f"the launcher did not answer within {LAUNCH_SECONDS:.0f} s") from None
        except ChannelClosed as error:
            raise LaunchFailed(f"the launcher died: {error}") from error

    def go(self) -> None:
        """Let the session start. Raises ChannelClosed where the launcher is gone."""
        if self._channel is not None:
            self._channel.send({"type": "go"})

    async def _steps(self, channel: Channel) -> list[tuple[str, str]]:
        while True:
            for message, fds in await _next(channel):
                if message["type"] == "proved":
                    return [(str(point), str(text)) for point, text in message["broken"]]
                await self._step(channel, message, fds)

    async def _step(self, channel: Channel, message: Message, fds: list[int]) -> None:
        match message["type"]:
            case "map_ids":
                _map_ids(self.pid)
                channel.send({"type": "mapped"})
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
            case "failed" if message["step"] == "enter_workdir":
                raise NoWorkdir(f"the working directory {message['error'].partition(': ')[2]}")
            case "failed":
                raise LaunchFailed(f"step {message['step']}: {message['error']}")
            case unknown:
                raise LaunchFailed(f"unknown message {unknown!r} from the launcher")


async def _next(channel: Channel) -> list[tuple[Message, list[int]]]:
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(channel.fileno(), ready)
    try:
        await readable
    finally:
        loop.remove_reader(channel.fileno())
    return channel.feed()


def _spawn(channel: int, stdio: tuple[int, int, int]) -> int:
    os.set_inheritable(channel, True)
    actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(stdio)]
    argv = [sys.executable, "-I", "-m", "agent.session.launch", "--channel", str(channel)]
    try:
        return os.posix_spawn(sys.executable, argv, dict(os.environ), file_actions=actions)
    finally:
        os.set_inheritable(channel, False)


def _map_ids(pid: int) -> None:
    """The identity map for the launcher's user namespace (user_namespaces(7)), which is only there for its network."""
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
            file.write("0 0 4294967295\n")
