"""The guard: policy, gate, audit writer, supervisor and sockets of one session.

Started by the keeper. Brings everything up in order (log, policy, egress, launcher, proofs), lets the session start,
and when it has ended writes the last events; or takes a running session over from a guard that died. Rules: whatever
fails before the session starts ends the run with a reason and the contract's exit code; what fails of a take-over, and
a dead keeper, ends the session at once.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from agent.channel import Channel, ChannelClosed, Message
from agent.daemon.base.spec import RunSpec
from agent.daemon.keeping.leavings import sweep
from agent.daemon.launch.waiting import Waiting, start_launcher
from agent.exits import Exit
from agent.linux.process import set_dumpable
from agent.session.offspring import adopt_orphans, end_all

if TYPE_CHECKING:  # most of what a start takes: imported when the launcher is on its way
    from agent.daemon.running.parts import Parts
    from agent.session.levels import Offer, Point

log = logging.getLogger(__name__)


_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""What a session that a lockdown holds still could not answer to, and would be killed for without a last word."""


class Begun(NamedTuple):
    """What was begun before this process knew of any session: the launcher, and what was found that the machine
    offers."""

    pid: int
    channel: Channel
    offer: Offer


class Guard:
    """One session's guard, on one asyncio loop."""

    def __init__(self, keeper: Channel, egress: Channel) -> None:
        self._keeper = keeper
        self._egress = egress
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._finish: asyncio.Future[None] = self._loop.create_future()
        self._session: Parts | None = None
        self._orphaned = False
        self._taken_over = False
        self._early: list[int] = []
        self._account: int | None = None

    async def run(self, spec: RunSpec, stdio: tuple[int, int, int], launcher: Waiting, offer: Offer) -> int:
        """Returns this process's exit status; the session's own goes to the keeper."""
        from agent.daemon.base.refused import Refused
        from agent.daemon.running.bring_up import BringUp

        self._attend(spec)
        bring_up = self._session = BringUp(spec, self._egress, self._fault, self._ended, self._tell, offer=offer)
        try:
            await bring_up.start(stdio, launcher)
        except Refused as refused:
            self._tell({"type": "failed", "exit": int(refused.exit), "text": refused.reason})
            await bring_up.finish(None, refused.reason)
            return int(refused.exit)
        _take_all_descriptors()
        for fd in {*stdio, launcher.keeper}:
            os.close(fd)
        for warning in bring_up.warnings:
            self._tell({"type": "say", "text": warning})
        self._tell({"type": "started", "pid": bring_up.pid})
        return await self._to_the_end(spec, bring_up)

    async def take_over(self, spec: RunSpec, held: dict[str, int], doors: list[str], listeners: list[int]) -> int:
        """The same for a session that another guard had. `held`: what it had the keeper hold, and the channel to the
        session's init, by name."""
        from agent.daemon.running.taking_over import TakeOver
        from agent.daemon.survival.standing import Estate
        from agent.record.event import RecordError
        from agent.session.levels import Point

        self._taken_over = True
        self._attend(spec)
        _take_all_descriptors()
        init = Channel(socket.socket(fileno=held["init"]))
        estate = Estate(held)
        session = self._session = TakeOver(spec, self._egress, self._fault, self._ended, self._tell, estate=estate)
        try:
            await session.resume(init, held, doors, listeners)
        except Exception as error:  # by half is not taken over
            foreseen = isinstance(error, OSError | RecordError)
            log.error("the session cannot be taken over: %s", error, exc_info=not foreseen)
            self._fault(Point.AGENT, f"the session could not be taken over: {type(error).__name__}: {error}")
            self._ended(signal.SIGKILL)
        self._tell({"type": "started", "pid": session.pid})  # it may be that nobody has said so yet
        return await self._to_the_end(spec, session)

    async def _to_the_end(self, spec: RunSpec, session: Parts) -> int:
        early, self._early = self._early, []
        for number in early:
            self._signal(number)
        status = await self._exited
        if not self._orphaned:
            self._tell({"type": "exited", "status": status})
            await self._finish
        if self._orphaned:  # the session's init may have seen it first
            end_all(os.getpid(), (), self._reap, account=self._account)
            await session.finish(status, "the keeper died")
            sweep(spec)
            return 1
        await session.finish(status, session.cause)
        return 0

    def _attend(self, spec: RunSpec) -> None:
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)
        self._loop.add_reader(self._keeper.fileno(), self._from_keeper)
        self._account = None if spec.egress_user is None else spec.session_user.uid

    def _tell(self, message: Message, fds: Sequence[int] = ()) -> None:
        with suppress(ChannelClosed):
            self._keeper.send(message, fds)

    def _from_keeper(self) -> None:
        try:
            messages = self._keeper.feed()
        except ChannelClosed:
            self._orphan()
            return
        for message, fds in messages:
            match message["type"]:
                case "reload":
                    if self._session is not None:
                        self._session.reload()
                case "signal":
                    self._signal(int(message["number"]))
                case "worker_died":
                    from agent.session.levels import Point

                    self._fault(Point.EGRESS, str(message["reason"]))
                case "egress" if self._session is not None:
                    channel, *listeners = fds
                    self._session.replace_egress(Channel(socket.socket(fileno=channel)), message["doors"], listeners)
                case "finish":
                    if not self._finish.done():
                        self._finish.set_result(None)
                case unknown:
                    log.error("unknown message %r from the keeper", unknown)

    def _orphan(self) -> None:
        """The keeper is gone: nobody is left to carry the session, so it ends."""
        self._loop.remove_reader(self._keeper.fileno())
        self._orphaned = True
        if not self._finish.done():
            self._finish.set_result(None)
        end_all(os.getpid(), (), self._reap, account=self._account)
        if not self._exited.done():
            self._exited.set_result(signal.SIGKILL)

    def _fault(self, point: Point, reason: str) -> None:
        """A part of the agent failed: the session ends."""
        if self._session is not None:
            self._session.failed(point, reason)
        end_all(os.getpid(), (), self._reap, account=self._account)
        if self._taken_over:  # its processes are the keeper's to end: they descend from it
            self._tell({"type": "end"})

    def _signal(self, number: int) -> None:
        """Pass it on to the session; what comes before there is one, as soon as there is."""
        if self._session is None or not self._session.pid:
            self._early.append(number)
        else:
            if number in _ENDING and self._session.held:
                self._session.end(f"{signal.Signals(number).name} while the session was held still")
            with suppress(ProcessLookupError):
                os.killpg(self._session.pid, number)
            self._tell({"type": "passed on", "number": number})

    def _ended(self, status: int) -> None:
        if not self._exited.done():
            self._exited.set_result(status)

    def _reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return


async def _main(begun: Begun | None) -> int:
    keeper = Channel(socket.socket(fileno=_argument("--keeper")))
    message, (*fds, egress) = keeper.receive()
    spec = RunSpec.parse(message["spec"])
    logging.basicConfig(
        level=logging.INFO if spec.verbose else logging.WARNING, format="parhelia: %(levelname)s %(name)s: %(message)s"
    )
    guard = Guard(keeper, Channel(socket.socket(fileno=egress)))
    try:
        if begun is not None:
            launcher = Waiting(begun.pid, begun.channel, fds[3])
            return await guard.run(spec, (fds[0], fds[1], fds[2]), launcher, begun.offer)
        held = dict(zip(message["names"], fds, strict=True))
        doors, listeners = keeper.receive()
        return await guard.take_over(spec, held, doors["doors"], listeners)
    finally:  # a closing loop closes the socket that a signal is written to before it lets go of signals
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)


def _begin() -> Begun | None:
    """What takes longest, while the keeper is not ready yet: the launcher's interpreter, the probe, and this one's
    imports."""
    if "--launcher" not in sys.argv:
        return None
    gc.disable()  # nothing that is imported is garbage
    pid, channel = start_launcher()
    from agent.daemon.launch.probing import begin_probe

    probing = begin_probe()
    import agent.daemon.running.bring_up  # noqa: F401

    gc.freeze()
    gc.enable()
    return Begun(pid, channel, probing.offer())


def _take_all_descriptors() -> None:
    """Room for the sockets that are made in the session's stead. After the launch: the session keeps its own limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _argument(name: str) -> int:
    return int(sys.argv[sys.argv.index(name) + 1])


def main() -> NoReturn:
    """`python -I -m agent.daemon.guard --keeper FD [--launcher]`: see `agent.daemon.keeping.workers`. With
    `--launcher` it is the first of its session, and is told so by the keeper's first message too."""
    set_dumpable(False)
    adopt_orphans()
    os.chdir("/")
    os.umask(0o022)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end of the keeper's channel says the same, in order
    try:
        status = asyncio.run(_main(_begin()))
    except ChannelClosed:
        status = int(Exit.UNPROTECTED)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(status)  # at once: the log is closed, and to take an interpreter down takes as long as a command


if __name__ == "__main__":
    main()
