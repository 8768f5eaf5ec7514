"""The line a refused command leaves on its standard error: best effort, never waiting, never more than text.

Rules: only a pipe, a terminal or a regular file *that the task itself holds open for writing* is written to, so that
nobody can borrow the supervisor's hand to write where he may not; control characters are escaped; a full pipe or a
stopped terminal loses the line.
"""

from __future__ import annotations

import os
import stat

from agent.linux.process import FilesystemIdentity
from agent.policy.decision import Decision
from agent.values import dataclass

_MAX_LINE = 1024
_TTY_MAJORS = frozenset({4, *range(136, 144)})  # linux/major.h: TTY_MAJOR, UNIX98_PTY_SLAVE_MAJOR and its count
_WRITE = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_APPEND | os.O_CLOEXEC


def refusal_line(decision: Decision) -> str:
    """``parhelia: denied by RULE: REASON. INSTEAD``, with what could act on a terminal escaped."""
    reason = decision.reason.rstrip(".")
    text = f"parhelia: denied by {decision.rule}: {reason}." + (f" {decision.instead}" if decision.instead else "")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)[:_MAX_LINE]


@dataclass(frozen=True, slots=True)
class Given:
    """The standard error that the session was given: which file it is (device, inode), and, where it is a regular file,
    a copy of the agent's: opened anew it would have a position of its own, and the session's next words would stand
    over the line."""

    identity: tuple[int, int]
    copy: int | None = None

    @classmethod
    def of(cls, descriptor: int) -> Given:
        """Holds nothing open but a regular file: of a pipe, the reader is to see the end when the session ends."""
        status = os.fstat(descriptor)
        return cls((status.st_dev, status.st_ino), os.dup(descriptor) if stat.S_ISREG(status.st_mode) else None)


def tell(tid: int, decision: Decision, eyes: FilesystemIdentity, given: Given | None = None) -> bool:
    """Write the line to the standard error of the stopped task `tid`. False where it could not be.

    The descriptor is found with the session's `eyes`; once it is shown to be open for writing there, it is opened as
    the agent, since the session need not own its own standard error (a pipe that an operator made).
    """
    try:
        with eyes:
            held = os.open(f"/proc/{tid}/fd/2", os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with eyes:
            writable = _writable_by_task(tid, held, given)
        if not writable:
            return False
        line = refusal_line(decision).encode() + b"\n"
        if given is not None and given.copy is not None and os.path.sameopenfile(held, given.copy):
            os.write(given.copy, line)
            return True
        opened = os.open(f"/proc/self/fd/{held}", _WRITE)
        try:
            os.write(opened, line)
        finally:
            os.close(opened)
    except OSError:
        return False
    finally:
        os.close(held)
    return True


def _writable_by_task(tid: int, held: int, given: Given | None) -> bool:
    """Where /proc does not say which file a descriptor is (gVisor), only what the session was given is believed."""
    status = os.fstat(held)
    kind = status.st_mode
    if not (stat.S_ISFIFO(kind) or stat.S_ISREG(kind) or os.major(status.st_rdev) in _TTY_MAJORS):
        return False
    theirs, ours = _fdinfo(str(tid), 2), _fdinfo("self", held)
    if b"ino" not in theirs:
        return given is not None and (status.st_dev, status.st_ino) == given.identity
    same = all(theirs.get(key) == ours.get(key) for key in (b"mnt_id", b"ino"))
    return same and int(theirs[b"flags"], 8) & os.O_ACCMODE != os.O_RDONLY


def _fdinfo(process: str, descriptor: int) -> dict[bytes, bytes]:
    """proc_pid_fdinfo(5); `ino` since Linux 5.14."""
    with open(f"/proc/{process}/fdinfo/{descriptor}", "rb") as file:
        pairs = (line.split(b":", 1) for line in file.read(4096).splitlines() if b":" in line)
        return {key: value.strip() for key, value in pairs}
