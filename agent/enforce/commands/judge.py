"""One stopped call to one answer: read the task, resolve what it would run, ask the gate, remember what was approved.

Rules:
- An answer is an errno, or CONTINUE, which only follows a permitted decision on every program the exec would run (the
  file and the interpreters behind it) under every name it could take its meaning from.
- What was opened under /proc belongs to the stopped task only if its notification is still valid afterwards.
- /proc, the task's memory and its files are looked at with `eyes`, the session's file-system identity: the agent sees
  what the session could; deciding and recording happen as the agent.
- A path that does not resolve gets the kernel's own errno and leaves no record, unless it leads to a program that only
  the grants keep out of sight: that one is decided like any other, and refused in any case. Memory that cannot be read
  is a recorded denial (rule ``exec-unreadable``).
"""

from __future__ import annotations

import errno
import logging
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from agent.describe import describe
from agent.enforce.commands.approvals import Approval, Approvals, approval, observed
from agent.enforce.commands.environment import read_environment
from agent.enforce.commands.executable import Executables, out_of_sight
from agent.enforce.commands.files import Files
from agent.enforce.commands.permitted import Asked, Moment, Permitted, leaves_no_line
from agent.enforce.commands.program import AT_FDCWD, Run, resolve
from agent.enforce.commands.programs import Programs
from agent.enforce.commands.refusal import Given, tell
from agent.enforce.commands.scripts import Found, Scripts, is_loader, loaded, named_scripts
from agent.enforce.memory import MAX_ARGUMENT_BYTES, MAX_PATH, Identity, Task, Unreadable, path_of, readable
from agent.enforce.walk import Closed
from agent.enforce.who import signed
from agent.linux.notify import Notification
from agent.linux.process import FilesystemIdentity
from agent.linux.syscalls import number
from agent.policy.decision import Decision, Severity, Verdict
from agent.policy.request import CommandRequest, Origin, PathRequest
from agent.record.event import Event, RecordError
from agent.shell.scripts import Environment
from agent.shell.steps import basename
from agent.values import dataclass

log = logging.getLogger(__name__)

CONTINUE = 0
"""The answer that lets the kernel run the call; every other answer is an errno."""

_PATH_DIRECTORIES = 64

type BuildRequest = Callable[[tuple[str, ...], str, str, Environment], CommandRequest]
"""(argv, exe, cwd, variables that change what it does) -> request. The judge fills in the origin."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An exec as it was read: who asks, for what, and what /proc must show afterwards; the programs behind a loader and
    the scripts that it would read besides."""

    identity: Identity
    asked: Asked
    approval: Approval
    mapped: tuple[Run, ...]
    scripts: tuple[Found, ...]
    moment: Moment | None
    """None where more was read than `asked` says, so that it cannot be remembered."""
    error: int = 0
    """What the kernel answers even where it is permitted."""

    @property
    def runs(self) -> tuple[Run, ...]:
        return (*self.asked.runs, *self.mapped)


class CommandGate(Protocol):
    """What is needed of `agent.gate.Gate`."""

    def check(self, request: CommandRequest | PathRequest, /) -> Decision: ...


@dataclass(slots=True)
class Refusal:
    """The last refused exec, and the paths by which it was asked for."""

    tgid: int
    approval: Approval
    asked: set[str]

    def repeats(self, wanted: Wanted) -> bool:
        """True where a search along PATH meets the same file, with the same argv, in one more directory.

        That is one attempt, refused and recorded already. Asking by the same path again is another one.
        """
        same = (self.tgid, self.approval) == (wanted.identity.tgid, wanted.approval)
        asked = wanted.runs[0].asked
        directory, _, name = asked.rpartition("/")
        searched = bool(directory) and all(path.endswith(f"/{name}") for path in self.asked)
        if not same or not searched or asked in self.asked or len(self.asked) >= _PATH_DIRECTORIES:
            return False
        self.asked.add(asked)
        return True


class ExecJudge:
    """Answers for one session's execs. For one thread only.

    `post` takes the events that are not the gate's own. `is_valid` says whether a notification still waits. `eyes` is
    the file-system identity in which this thread looks at the session. `stderr`: see `refusal.tell`. `programs`: the
    machine's, of which a copy or link is known. `in_force`: the policy by which `gate` decides (see `Permitted`).
    `executables`: asks whether each file may be executed; None: only what the command does is asked.
    `successor`: another one approved execs before, which ones is not known: what a process of unknown approval shows is
    decided then, when it makes its first call.
    """

    def __init__(
        self,
        gate: CommandGate,
        build_request: BuildRequest,
        *,
        actor: str,
        post: Callable[[Event], None],
        is_valid: Callable[[int], bool],
        eyes: FilesystemIdentity,
        stderr: Given | None = None,
        programs: Programs | None = None,
        in_force: Callable[[], object] | None = None,
        executables: Executables | None = None,
        successor: bool = False,
    ) -> None:
        self._executables = executables
        self._successor = successor
        self._stderr = stderr
        self._programs = programs or Programs()
        self._files = Files(self._programs)
        self._scripts = Scripts(self._programs)
        self._permitted = Permitted(in_force)
        self._gate = gate
        self._build = build_request
        self._actor = actor
        self._post = post
        self._is_valid = is_valid
        self._eyes = eyes
        self._approvals = Approvals()
        self._last: Refusal | None = None
        self._execveat = number("execveat")
        self._arch_prctl = number("arch_prctl")

    def answer(self, stopped: Notification) -> int:
        """CONTINUE or an errno. Raises on faults; the caller then denies."""
        if stopped.number == self._arch_prctl:
            return self._verify(stopped)
        try:
            with self._eyes, Task(stopped.tid) as task:
                if not self._is_valid(stopped.id):
                    return errno.EACCES
                wanted = self._read(stopped, task)
        except ProcessLookupError:
            return errno.EACCES  # gone, or in no pid namespace of ours
        except Unreadable as error:
            if not self._is_valid(stopped.id):  # killed meanwhile: nothing is executed, and nothing was refused
                return errno.EACCES
            refused = own_decision("exec-unreadable", str(error), Severity.HIGH)
            self.record(refused, bare_request(stopped.tid))
            return self._refuse(stopped, refused)
        if isinstance(wanted, int):
            return wanted
        return self._decide(stopped, wanted)

    def approved(self, pid: int) -> bool:
        """True where the program that process `pid` has just loaded is one approved for it; where none was, False, or
        what a successor decides of it now."""
        expected = self._approvals.expected(pid)
        if not expected and self._successor:
            return self._approve_late(pid)
        try:
            with self._eyes:
                seen = observed(pid)
                return any(seen == one and self._same_content(pid, seen, one) for one in expected)
        except OSError as error:
            log.warning("process %d cannot be compared with what was approved: %s", pid, error)
            return False

    def _same_content(self, pid: int, seen: Approval, approved: Approval) -> bool:
        """Is the file still none of the machine's programs but those that it was taken for? Raises OSError."""
        if seen.status is None or not self._programs.changeable(seen.status):
            return True
        opened = os.open(f"/proc/{pid}/exe", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = self._programs.names(path_of(opened), os.fstat(opened), opened)
        finally:
            os.close(opened)
        file = approved.file
        taken_for = set() if file is None else {basename(name) for name in (file.path, *file.also)}
        return all(basename(name) in taken_for for name in found)

    def record(self, decision: Decision, request: CommandRequest) -> None:
        """Hand over an event for a decision that no policy took."""
        event = describe(request, decision, self._actor)
        if event is None:
            return
        try:
            self._post(event)
        except RecordError:
            log.exception("denial stands, but its record was lost")

    def _read(self, stopped: Notification, task: Task) -> Wanted | int:
        """What the exec would run, or the errno where it would run nothing. Raises Unreadable."""
        a = stopped.arguments
        if stopped.number == self._execveat:
            directory, path_at, argv_at, envp_at, flags = signed(a[0]), a[1], a[2], a[3], a[4] & 0xFFFFFFFF
        else:
            directory, path_at, argv_at, envp_at, flags = AT_FDCWD, a[0], a[1], a[2], 0
        path = task.memory.string(path_at, MAX_PATH)
        argv = task.memory.vector(argv_at)
        if not argv:
            raise Unreadable("an empty argv names no program")
        try:
            runs = resolve(task, directory, path, flags, argv, look=self._files.look)
        except Closed as closed:
            return self._out_of_sight(task, readable(path), argv, envp_at, closed)
        except OSError as error:
            return error.errno or errno.EACCES
        asked = Asked(task.cwd_path(), runs, read_environment(task.memory, envp_at), self._caller(task))
        approved = approval(runs[-1].file, runs[-1].argv, task.cwd)
        moment = self._permitted.now()
        if self._permitted.holds(asked, moment) and not self._is_of_last(task.tgid):
            self._approvals.add(task.tgid, approved)
            return CONTINUE
        mapped = tuple(loaded(task, runs[-1], asked.environment, self._files.look))
        named = named_scripts((*runs, *mapped)[-1], asked.environment)
        if named or is_loader(runs[-1]):
            moment = None
        return Wanted(task.identity, asked, approved, mapped, self._scripts.find(task, named), moment)

    def _out_of_sight(
        self, task: Task, path: str, argv: tuple[bytes, ...], envp_at: int, closed: Closed
    ) -> Wanted | int:
        file = out_of_sight(closed)
        if file is None:
            return errno.EACCES
        run = Run(argv, path, file)
        asked = Asked(task.cwd_path(), (run,), read_environment(task.memory, envp_at), self._caller(task))
        return Wanted(task.identity, asked, approval(file, argv, task.cwd), (), (), None, errno.EACCES)

    def _caller(self, task: Task) -> str:
        try:
            path, status = task.image()
        except OSError:
            return ""
        return "" if self._programs.changeable(status) else path.rpartition("/")[2]

    def _is_of_last(self, tgid: int) -> bool:
        """Its search along PATH may go on."""
        return self._last is not None and self._last.tgid == tgid

    def _decide(self, stopped: Notification, wanted: Wanted) -> int:
        if self._last is not None and self._last.repeats(wanted):
            return errno.EACCES
        asked, quiet = wanted.asked, True
        for run in wanted.runs:
            argv = tuple(readable(word) for word in run.argv)
            origin = _origin(wanted.identity, run.file.path, argv)
            for name in run.names():
                request = self._build(argv, name, asked.cwd, asked.environment).made_by(origin, asked.caller)
                decision = self._gate.check(request)
                if not decision.permitted:
                    return self._refused(stopped, wanted, decision)
                quiet = quiet and leaves_no_line(decision)
                if decision.verdict is Verdict.DENY:
                    break  # observed only: one line for one exec, not one for each of its names
            may = self._may_execute(run, origin)
            if may is not None and not may.permitted:
                return self._refused(stopped, wanted, may)
            quiet = quiet and (may is None or leaves_no_line(may))
        for found in wanted.scripts:
            if self._scripts.is_cleared(found, request, decision):
                continue
            of_body = self._gate.check(self._scripts.request(found, request))
            if not of_body.permitted:
                return self._refused(stopped, wanted, of_body)
            self._scripts.clear(found, request, of_body)
        if wanted.error:
            return wanted.error
        if quiet:
            self._permitted.add(asked, wanted.moment)
        self._approvals.add(wanted.identity.tgid, wanted.approval)
        return CONTINUE

    def _may_execute(self, run: Run, origin: Origin) -> Decision | None:
        """What the policy's paths say of the file; None where there is nothing to ask."""
        asked = None if self._executables is None else self._executables.request(run, origin)
        return None if asked is None else self._gate.check(asked)

    def _refused(self, stopped: Notification, wanted: Wanted, decision: Decision) -> int:
        self._last = Refusal(wanted.identity.tgid, wanted.approval, {wanted.runs[0].asked})
        return self._refuse(stopped, decision)

    def _refuse(self, stopped: Notification, decision: Decision) -> int:
        tell(stopped.tid, decision, self._eyes, self._stderr)
        return errno.EACCES

    def _verify(self, stopped: Notification) -> int:
        """A program's first call: is it what was approved? `tid` is the process: exec leaves one thread (execve(2))."""
        nobodys = not self._approvals.expected(stopped.tid) and not self._successor
        if nobodys or self.approved(stopped.tid):
            return CONTINUE
        self._kill(stopped)
        return errno.EACCES

    def _approve_late(self, pid: int) -> bool:
        """Decide by what /proc shows now: the program runs, and has made no call that matters yet."""
        try:
            with self._eyes:
                seen, request = observed(pid), bare_request(pid, MAX_ARGUMENT_BYTES + 1)
        except OSError as error:
            log.warning("process %d cannot be looked at: %s", pid, error)
            return False
        origin = request.origin
        asked = self._build(origin.argv or (), origin.exe or "?", request.cwd, ()).made_by(origin, "")
        permitted = self._gate.check(asked).permitted
        if permitted:
            self._approvals.add(pid, seen)
        return permitted

    def _kill(self, stopped: Notification) -> None:
        try:
            pidfd = os.pidfd_open(stopped.tid)
        except ProcessLookupError:
            return
        try:
            if not self._is_valid(stopped.id):
                return  # dead already: the number may be another's by now
            request = bare_request(stopped.tid)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
        self.record(own_decision("exec-race", "what ran is not what was approved; killed", Severity.CRITICAL), request)


def own_decision(rule: str, reason: str, severity: Severity) -> Decision:
    """A denial that no policy spoke."""
    return Decision(verdict=Verdict.DENY, rule=rule, reason=reason, policy_digest="", severity=severity)


def bare_request(pid: int, most: int = 1 << 14) -> CommandRequest:
    """What /proc shows of a process, which it may have changed: for records. `most`: bytes of its argv."""
    argv: tuple[str, ...] = ()
    exe = cwd = "?"
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            argv = tuple(readable(word) for word in file.read(most).split(b"\0")[:-1])
        exe = os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115
        cwd = os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115
    except OSError as error:
        log.info("process %d is not readable: %s", pid, error)
    origin = Origin("exec", pid=pid, exe=exe, argv=argv)
    today = datetime.now(UTC).date()
    return CommandRequest(text=" ".join(argv) or "?", commands=(), today=today, origin=origin, cwd=cwd)


def _origin(who: Identity, exe: str, argv: tuple[str, ...]) -> Origin:
    return Origin("exec", pid=who.tgid, ppid=who.ppid, uid=who.uid, exe=exe, argv=argv)
