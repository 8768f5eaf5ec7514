"""What each process may have become: the check after the exec that closes the race before it.

A "continue" lets the kernel read path and argv again, and a sibling thread may have rewritten them meanwhile
(seccomp_unotify(2)). So an approval is remembered before the answer, and the first system call that libc makes in the
new program (arch_prctl(ARCH_SET_FS), x86-64 only) is held until /proc/PID shows an approved one. Rules:

- Approvals of a process stay until it is gone: were one used up by a match, a thread could use it up on purpose.
- Several may be pending, since several threads may exec at once; each was approved, whichever wins.
- A program's file that the session can write may have got another content meanwhile; while it runs it cannot
  (ETXTBSY, execve(2)), so it is identified once more.
- The working directory belongs to what was approved: ``rm -r .`` means another thing elsewhere.

Not seen: a program that never makes the call (built by hand, without libc), and what an approved program does.
"""

from __future__ import annotations

import hashlib
import os

from agent.enforce.commands.program import File
from agent.enforce.memory import MAX_ARGUMENT_BYTES
from agent.values import dataclass, field

PER_PROCESS = 16
_PRUNE_ABOVE = 256
_SHORT = 256
"""Bytes of an argv up to which hashing it costs more than keeping it."""
_AT_ONCE = 1 << 16
_O_READ = os.O_RDONLY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Approval:
    """A program (device, inode), its argv or the SHA-256 of a long one, and the working directory (device, inode).

    Beside what is compared: `file` is what the program was taken for when it was approved, `status` its file's as it
    runs.
    """

    program: tuple[int, int]
    arguments: bytes
    directory: tuple[int, int]
    file: File | None = field(default=None, compare=False)
    status: os.stat_result | None = field(default=None, compare=False)


def approval(file: File, argv: tuple[bytes, ...], cwd: int) -> Approval:
    """What /proc/PID must show afterwards. `cwd` is an open descriptor of the working directory."""
    return Approval((file.device, file.inode), _digest(b"\0".join(argv) + b"\0"), _identity(os.fstat(cwd)), file)


def observed(pid: int) -> Approval:
    """What /proc/PID shows now. Raises OSError where it cannot be read."""
    descriptor = os.open(f"/proc/{pid}/cmdline", _O_READ)
    try:
        arguments = os.read(descriptor, _AT_ONCE)
        while len(arguments) <= MAX_ARGUMENT_BYTES and (more := os.read(descriptor, _AT_ONCE)):
            arguments += more
    finally:
        os.close(descriptor)
    status = os.stat(f"/proc/{pid}/exe")  # noqa: PTH116
    directory = os.stat(f"/proc/{pid}/cwd")  # noqa: PTH116
    return Approval(_identity(status), _digest(arguments), _identity(directory), status=status)


class Approvals:
    """Approved execs by process id. For one thread only."""

    def __init__(self) -> None:
        self._by_process: dict[int, list[Approval]] = {}
        self._prune_above = _PRUNE_ABOVE

    def add(self, tgid: int, approved: Approval) -> None:
        if len(self._by_process) >= self._prune_above:
            self._prune()
        held = self._by_process.setdefault(tgid, [])
        if approved in held:
            held.remove(approved)
        held.append(approved)
        del held[:-PER_PROCESS]

    def expected(self, tgid: int) -> tuple[Approval, ...]:
        """What this process may be; empty where no exec of it was approved (a forked child that has not exec'ed)."""
        return tuple(self._by_process.get(tgid, ()))

    def _prune(self) -> None:
        """Forget dead processes only: a live one's approvals are what its program is held to."""
        self._by_process = {
            tgid: held
            for tgid, held in self._by_process.items()
            if os.path.exists(f"/proc/{tgid}")  # noqa: PTH110
        }
        self._prune_above = 2 * len(self._by_process) + _PRUNE_ABOVE


def _digest(arguments: bytes) -> bytes:
    """Marked, so that no short argv is taken for the digest of a long one."""
    return b"=" + arguments if len(arguments) <= _SHORT else b"#" + hashlib.sha256(arguments).digest()


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
