"""The path audit: calls that change a file by its path stop here, and each denial is put on record.

Rules kept here:
- What the policy denies fails with EACCES and is recorded once (`permission.denied`, mechanism ``notify``, the call in
  `details.syscall`). Whatever cannot be read is denied and recorded, too.
- What it allows goes on to the kernel as it was given. So this is no wall: a sibling thread may change the path after
  it was read. Landlock, mounts and file permissions decide about it as without the audit; such a race costs a record.
- A call that the kernel refuses by itself, whatever the policy says, passes (`calls.Passes`).
- Paths are walked with the session's file-system identity. Where that may not look, the path's text is decided.

Not by path, so not seen: ftruncate, fchmod, fchown, fsetxattr and futimens on open files, and names that bind(2) makes.
Called on the supervisor's thread. Before `open` every call passes: only the launcher runs, below its own Landlock.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol

from agent.enforce.memory import MAX_PATH, Task, TooLong, Unreadable, readable
from agent.enforce.notify_loop import DENIED, PROCEED, Answer
from agent.enforce.paths.calls import CALLS, Kind, Passes, Target, opening_flags
from agent.enforce.paths.place import by_text, locate
from agent.enforce.who import origin_of, signed
from agent.linux import notify
from agent.linux.process import FilesystemIdentity
from agent.linux.syscalls import number
from agent.policy.decide import decide
from agent.policy.decision import Decision, Severity, Verdict
from agent.policy.model import Policy
from agent.policy.request import Access, Origin, PathRequest
from agent.policy.rule_ids import AGENT_FAULT

UNREADABLE, DEADLINE, FAULT = "path-unreadable", "path-deadline", AGENT_FAULT
MECHANISM = "notify"
_REMEMBERED = 4096
"""Paths whose writing was allowed: tar and cp touch each one three or four times."""
_AT_FDCWD = -100  # linux/fcntl.h
_THE_KERNELS = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""What the walk of a path may end with, whoever walks it. Anything else is a fault of the agent's, and a denial."""

type Want = tuple[Access, str, str]
"""What is asked: the access, the resolved path, the path as it was given."""


class PathGate(Protocol):
    """What is needed of `agent.gate.Gate`."""

    def check(self, request: PathRequest, /) -> Decision: ...

    def deny(self, request: PathRequest, decision: Decision, /) -> Decision: ...


class PathAudit:
    """`agent.enforce.notify_loop.Handler` for `CALLS`.

    `in_force`: the policy by which `gate` decides. `session_uid`, `session_gid`: the session's user, None where it is
    the agent's own. `home`, `tmpdir`: the session's own directories.
    """

    def __init__(
        self,
        gate: PathGate,
        in_force: Callable[[], Policy],
        *,
        session_uid: int | None,
        session_gid: int | None,
        home: str,
        tmpdir: str,
    ) -> None:
        self._gate = gate
        self._in_force = in_force
        self._eyes = FilesystemIdentity(session_uid, session_gid)
        self._home, self._tmpdir = home, tmpdir
        self._names = {found: name for name in CALLS if (found := number(name)) is not None}
        self._open = False
        self._decided_by: Policy | None = None
        self._allowed: set[tuple[Access, str]] = set()

    def handlers(self) -> dict[int, PathAudit]:
        """For the loop's table."""
        return dict.fromkeys(self._names, self)

    def open(self) -> None:
        """The session starts."""
        self._open = True

    def answer(self, stopped: notify.Notification, listener: int) -> Answer:
        if not self._open:
            return PROCEED
        name = self._names[stopped.number]
        try:
            with self._eyes, Task(stopped.tid) as task:
                if not notify.is_valid(listener, stopped.id):
                    return DENIED
                wants = _wanted(name, stopped, task)
                identity = task.identity if (denied := self._denied(wants)) else None
        except ProcessLookupError:
            return DENIED
        except TooLong:
            return PROCEED  # the kernel takes no such path either: ENAMETOOLONG
        except Unreadable as error:
            if not notify.is_valid(listener, stopped.id):  # killed meanwhile: nothing is done, and nothing was refused
                return DENIED
            self._record(stopped, UNREADABLE, str(error))
            return DENIED
        except Passes:
            return PROCEED
        except OSError as error:
            if error.errno not in _THE_KERNELS:
                raise
            return PROCEED  # the kernel meets the same obstacle, and says so
        if denied is None or identity is None:
            return PROCEED
        origin = origin_of(identity, MECHANISM, (("syscall", name),))
        return PROCEED if self._gate.check(self._request(denied, origin)).permitted else DENIED

    def fault(self, stopped: notify.Notification) -> None:
        self._record(stopped, FAULT, "the agent could not decide; see its log")

    def overdue(self, stopped: notify.Notification, seconds: float) -> None:
        self._record(stopped, DEADLINE, f"not decided within {seconds:g} s")

    def took(self, stopped: notify.Notification, seconds: float) -> None:
        """Not measured here: benchmarks/path_audit.py says what it costs."""

    def _denied(self, wants: list[Want]) -> Want | None:
        """The first that the policy does not simply allow. The gate decides it again, and records."""
        policy, origin = self._in_force(), Origin(MECHANISM)
        if policy is not self._decided_by or len(self._allowed) >= _REMEMBERED:
            self._decided_by = policy
            self._allowed.clear()
        for want in wants:
            if want[:2] in self._allowed:
                continue
            if decide(policy, self._request(want, origin)).verdict is not Verdict.ALLOW:
                return want
            self._allowed.add(want[:2])
        return None

    def _request(self, want: Want, origin: Origin) -> PathRequest:
        access, path, asked = want
        today = datetime.now(UTC).date()
        return PathRequest(access, path, today, origin, asked, home=self._home, tmpdir=self._tmpdir)

    def _record(self, stopped: notify.Notification, rule: str, reason: str) -> None:
        extra = (("syscall", self._names.get(stopped.number, str(stopped.number))),)
        request = self._request((Access.WRITE, "?", ""), Origin(MECHANISM, pid=stopped.tid, extra=extra))
        self._gate.deny(request, Decision(Verdict.DENY, rule, reason, "", severity=Severity.HIGH))


def _wanted(name: str, stopped: notify.Notification, task: Task) -> list[Want]:
    """Everything the call would change. Raises Passes, Unreadable, OSError."""
    return [_want(task, target, name, stopped.arguments) for target in CALLS[name]]


def _want(task: Task, target: Target, name: str, arguments: tuple[int, ...]) -> Want:
    flags = opening_flags(name, arguments, target)
    if arguments[target.path] == 0:
        raise Passes  # EFAULT, or an open file's
    raw = task.memory.string(arguments[target.path], MAX_PATH - 1)
    if not raw:
        raise Passes  # ENOENT, or by AT_EMPTY_PATH an open file's
    with _start(task, target, arguments, raw) as start:
        try:
            place = locate(task, start, raw, follow=target.follows(flags))
        except PermissionError:
            blind = Access.DELETE if target.kind is Kind.REMOVE else Access.WRITE
            return blind, by_text(task, start, raw), readable(raw)
    if place.path is None:
        raise Passes  # an open file that has no name: the task holds it already
    return target.wants(place, flags, raw), place.path, readable(raw)


@contextmanager
def _start(task: Task, target: Target, arguments: tuple[int, ...], raw: bytes) -> Iterator[int]:
    """Where a relative path begins, as the kernel takes it. Raises OSError (ENOENT: no such descriptor)."""
    descriptor = _AT_FDCWD if target.directory is None else signed(arguments[target.directory])
    if raw.startswith(b"/"):
        yield task.root
    elif descriptor == _AT_FDCWD:
        yield task.cwd
    else:
        opened = task.directory(descriptor)
        try:
            yield opened
        finally:
            os.close(opened)
