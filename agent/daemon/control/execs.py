"""`exec`: further commands inside the session's confinement, for operators, over the control socket.

Rules kept here: the command is decided by the gate as the session's first one is, and on record (`session.attach`)
before it starts; it gets no terminal but a fresh one, made here: a descriptor of anybody's terminal is refused, and so
is what could be more than a stream of bytes; a caller that goes away leaves a hang-up behind; how many run at once is
bounded, so that the socket stays open for others and terminals do not run out: one that outlives its caller counts.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from agent.daemon.control.callers import Caller
from agent.daemon.control.events import ControlEvents
from agent.daemon.control.link import STANDARD, ControlLink, Gone
from agent.daemon.control.wire import Message, WireError
from agent.daemon.launch.launcher import LaunchFailed, NoWorkdir, Started
from agent.daemon.ring.commanding import command_request
from agent.enforce.commands.refusal import refusal_line
from agent.exits import Exit
from agent.gate import Gate
from agent.policy.decide import decide
from agent.policy.model import OnFailure
from agent.policy.request import Origin
from agent.record.event import Json, RecordError
from agent.session.plan import Command
from agent.shell.redact import redact_argv
from agent.values import dataclass

if TYPE_CHECKING:  # it is made there
    from agent.daemon.beside.companions import Company

MAX_EXECS: Final = 16
_READY_SECONDS: Final = 10.0
_HANG_UP_SECONDS: Final = 1.0
_HANG_UP_AGAIN: Final = (0.2, 1.0, 3.0)
"""For a command whose caller went away to end."""
_OWN: Final = ("TERM", "LANG")
FORWARDED: Final = frozenset({"SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGKILL"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller asks for. `terminals`: which standard streams are to be a terminal."""

    command: Command
    terminals: tuple[int, ...]


class Execs:
    """Those of one session."""

    def __init__(self, company: Company, events: ControlEvents) -> None:
        self._company = company
        self._events = events
        self._running = 0
        self._last = 0

    async def answer(self, caller: Caller, message: Message, link: ControlLink) -> Message:
        """Run one command to its end; the answer's `exit` is its status as a shell has it. Raises WireError, Gone."""
        asked = self._asked(message)
        if len(link.fds) != STANDARD:
            raise WireError(f"it brings {len(link.fds)} descriptors for its streams, not {STANDARD}")
        for number, fd in enumerate(link.fds):
            if number not in asked.terminals:
                check_stream(number, fd)
        refused = self._refused(caller, asked.command)
        if refused is not None:
            return refused
        if self._running >= MAX_EXECS:
            reason = self._events.too_many(caller, f"{MAX_EXECS} commands of exec are running, the most there may be")
            return {"exit": int(Exit.DENIED), "error": reason}
        self._running += 1
        try:
            return await self._run(caller, asked, link)
        finally:
            self._running -= 1

    def _asked(self, message: Message) -> Asked:
        plan = self._company.plan
        argv, env, workdir = message.get("argv"), message.get("env", {}), message.get("workdir") or plan.workdir
        terminals = message.get("terminals", [])
        if not (isinstance(argv, list) and argv and all(_is_word(word) for word in argv)):
            raise WireError("its argv is no list of words")
        if not (isinstance(env, dict) and all(_is_word(word) for pair in env.items() for word in pair)):
            raise WireError("its env is no mapping of words")
        if not _is_word(workdir) or not workdir.startswith("/"):
            raise WireError("its workdir is no absolute path")
        if not (isinstance(terminals, list) and all(number in range(STANDARD) for number in terminals)):
            raise WireError("its terminals are no list of streams")
        more = {name: value for name, value in env.items() if name not in plan.env or name in _OWN}
        return Asked(Command(tuple(argv), {**plan.env, **more}, workdir), tuple(terminals))

    def _refused(self, caller: Caller, command: Command) -> Message | None:
        """The answer where the policy refuses the command, None where it may start."""
        company = self._company
        origin = Origin(mechanism="control", pid=caller.pid, uid=caller.uid, argv=command.argv)
        request = command_request(command.argv, None, command.workdir, home=company.places.home, origin=origin)
        if not company.offer.supervised or not decide(company.policy(), request).permitted:
            decision = Gate(company.policy, company.ledger, caller.actor).check(request)
            if not decision.permitted:
                return {"exit": int(Exit.COMMAND_DENIED), "error": refusal_line(decision).removeprefix("parhelia: ")}
        return None

    async def _run(self, caller: Caller, asked: Asked, link: ControlLink) -> Message:
        self._last += 1
        number, argv = self._last, [*redact_argv(asked.command.argv)]
        details: dict[str, Json] = {"exec": number, "workdir": asked.command.workdir, "terminal": bool(asked.terminals)}
        try:
            self._events.attached(caller, {**details, "argv": [*argv]})
        except RecordError as error:
            if self._company.policy().audit.on_failure is not OnFailure.CONTINUE:
                return {"exit": int(Exit.UNPROTECTED), "error": f"the audit log could not take the record: {error}"}
        ended: Message = {"exit": int(Exit.UNPROTECTED), "error": "it did not start"}
        pid, how = 0, "it did not start"
        try:
            started = await self._start(asked, link)
            pid = started.pid
            status = await self._attend(started, link)
            how = "it ended" if status is not None else "the caller went away"
            if not started.status.done():
                self._running += 1
                started.status.add_done_callback(self._outlived)
            ended = {"exit": 128 + signal.SIGHUP if status is None else _code(status)}
        except NoWorkdir as error:
            ended = {"exit": int(Exit.USAGE), "error": str(error)}
        except (LaunchFailed, OSError) as error:
            ended = {"exit": int(Exit.UNPROTECTED), "error": str(error)}
        finally:
            self._events.detached(caller, {"exec": number, "reason": how, "pid": pid, "exit_status": ended["exit"]})
        return ended

    def _outlived(self, _: asyncio.Future[int]) -> None:
        """A command has ended that had ignored the hang-up."""
        self._running -= 1

    async def _start(self, asked: Asked, link: ControlLink) -> Started:
        """Raises LaunchFailed, NoWorkdir, OSError, Gone, WireError."""
        slave = None
        if asked.terminals:
            slave = await self._give_terminal(link)
        try:
            first, second, third = (
                slave if slave is not None and number in asked.terminals else fd for number, fd in enumerate(link.fds)
            )
            return await self._company.launch.run(asked.command, (first, second, third))
        finally:
            link.close_fds()
            if slave is not None:
                os.close(slave)

    async def _give_terminal(self, link: ControlLink) -> int:
        """The session's side of a fresh terminal, whose other side the caller has, and has set up."""
        master, slave = os.openpty()
        try:
            link.send_with({"type": "terminal"}, [master])
            async with asyncio.timeout(_READY_SECONDS):
                if (await link.receive()).get("type") != "ready":
                    raise WireError("it is not ready for a terminal")
        except TimeoutError:
            os.close(slave)
            raise WireError("it is not ready for a terminal") from None
        except BaseException:
            os.close(slave)
            raise
        finally:
            os.close(master)
        return slave

    async def _attend(self, started: Started, link: ControlLink) -> int | None:
        """The command's wait status; None where the caller goes away first."""
        listening = asyncio.get_running_loop().create_task(self._listen(started.pid, link))
        try:
            either: set[asyncio.Future[int] | asyncio.Task[None]] = {started.status, listening}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        if started.status.done():
            return started.status.result()
        _hang_up(started.pid)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(started.status), _HANG_UP_SECONDS)
            _hang_up(started.pid)  # in gVisor what is forked while its group is sent a signal is left out
        for seconds in _HANG_UP_AGAIN:  # and may come into the group a moment after the one that forked it has ended
            asyncio.get_running_loop().call_later(seconds, _hang_up, started.pid)
        return None

    async def _listen(self, pid: int, link: ControlLink) -> None:
        """Pass signals on until the caller goes away."""
        with suppress(Gone, WireError):
            while True:
                name = (await link.receive()).get("signal")
                if name not in FORWARDED:
                    return
                _signal(pid, signal.Signals[name])


def hang_up_left(pids: Sequence[int], events: ControlEvents) -> None:
    """Commands that a guard which died had begun: their callers have lost their connection."""
    for pid in pids:
        _hang_up(pid)
        events.left(pid)


def _hang_up(pid: int) -> None:
    for number in (signal.SIGHUP, signal.SIGCONT):
        _signal(pid, number)


def check_stream(number: int, fd: int) -> None:
    """Raises WireError where the descriptor is more than a stream of bytes, or somebody's terminal."""
    mode = os.fstat(fd).st_mode
    if os.isatty(fd):
        raise WireError(f"stream {number} is a terminal, which no session is given")
    if stat.S_ISDIR(mode) or stat.S_ISBLK(mode) or stat.S_ISLNK(mode):
        raise WireError(f"stream {number} is no stream")
    if stat.S_ISSOCK(mode):
        with socket.socket(fileno=os.dup(fd)) as found:
            if found.family != socket.AF_UNIX:
                raise WireError(f"stream {number} is a network connection: put a pipe between")


def _is_word(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _code(status: int) -> int:
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
