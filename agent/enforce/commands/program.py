"""What an exec would really run: the file behind the path, and the interpreters behind its first line.

The path is walked here as the kernel will walk it for the task: from its own root and working directory, with its own
/proc/self. What does not resolve gets the kernel's errno from us, never a "continue": the file could appear in between.
The walk of a symlink is path_resolution(7), the first line is fs/binfmt_script.c.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from agent.enforce.memory import Task, readable
from agent.enforce.walk import walked
from agent.values import dataclass

AT_FDCWD = -100  # linux/fcntl.h
AT_EMPTY_PATH = 0x1000
FIRST_LINE = 256  # BINPRM_BUF_SIZE, linux/binfmts.h

_MAX_INTERPRETERS = 5  # fs/exec.c, exec_binprm
_BLANK = b" \t"
_DELETED = " (deleted)"  # d_path(): the file has no name any more


@dataclass(frozen=True, slots=True)
class File:
    """A file's identity: `path` as the kernel names it, symlinks resolved; `also`: the machine's programs that this
    file is as well, as a link or a copy; `text`: it is not in the machine's format for programs, so the kernel will not
    run it by itself, but a shell that is told so reads it as its own."""

    path: str
    device: int
    inode: int
    also: tuple[str, ...] = ()
    text: bool = False


type Line = tuple[bytes, bytes | None]
"""Interpreter and optional argument of a script's first line."""

type Seen = tuple[File, Line | None]
"""What a file is, with its first line where it is a script (`files.Files.look`)."""

type Look = Callable[[int], Seen]
"""Looks at what is open, for its path only. Raises OSError, Unreadable."""


@dataclass(frozen=True, slots=True)
class Run:
    """One program of an exec: `argv` as it gets it, `asked` the path it was asked for by, `file` what that is."""

    argv: tuple[bytes, ...]
    asked: str
    file: File

    def names(self) -> Iterator[str]:
        """Every path or name this program could take its meaning from, the real one first.

        A multi-call program (busybox, mke2fs as mkfs.ext4) goes by the name it was called, not by its file.
        """
        path = self.file.path.removesuffix(_DELETED)
        seen = {path.rpartition("/")[2]}
        yield path
        for other in (*self.file.also, self.asked, readable(self.argv[0])):
            base = other.rpartition("/")[2]
            if base and base not in seen:
                seen.add(base)
                yield other


def resolve(
    task: Task, directory: int, path: bytes, flags: int, argv: tuple[bytes, ...], *, look: Look
) -> tuple[Run, ...]:
    """What execveat(directory, path, argv, flags) would run: the file, then its interpreter, and so on.

    The last one is what /proc/PID/exe will show, with the argv /proc/PID/cmdline will show. Raises OSError with the
    errno the kernel would give, Unreadable where a file's first line cannot be read.
    """
    runs: list[Run] = []
    spelled = path if directory == AT_FDCWD or path.startswith(b"/") else _by_descriptor(directory, path)
    with _start(task, directory, path, flags) as opened:
        file, script = look(opened)
    runs.append(Run(argv, readable(path) or file.path, file))
    while script is not None:
        if len(runs) > _MAX_INTERPRETERS:
            raise OSError(errno.ELOOP, "interpreters nested too deeply")
        interpreter, option = script
        argv = (interpreter, *([] if option is None else [option]), spelled, *argv[1:])
        with walked(task, task.cwd, interpreter) as opened:
            file, script = look(opened)
        runs.append(Run(argv, readable(interpreter), file))
        spelled = interpreter
    return tuple(runs)


def script_line(head: bytes) -> Line | None:
    """Interpreter and optional argument of a ``#!`` line, None where `head` (the file's first 256 bytes) is none.

    Read from the kernel's buffer, NUL-padded to 256 bytes, with its quirks: without a newline the line goes on into the
    padding, where an argument can be empty. Raises OSError(ENOEXEC) where the kernel refuses the line.
    """
    if not head.startswith(b"#!"):
        return None
    line = head[:FIRST_LINE].ljust(FIRST_LINE, b"\0")
    end = line.partition(b"\0")[0].find(b"\n")
    if end < 0:
        end = FIRST_LINE - 1
        start = _first(line, 2, end)
        if start is None or not any(byte in b" \t\0" for byte in line[start:]):
            raise OSError(errno.ENOEXEC, "the interpreter's name is missing or cut off")
    while line[end - 1] in _BLANK:
        end -= 1
    name = _first(line, 2, end)
    if name is None or name == end:
        raise OSError(errno.ENOEXEC, "no interpreter is named")
    until = next((at for at in range(name, end + 1) if line[at] in b" \t\0"), end)
    argument = _first(line, until, end) if line[until] in _BLANK else None
    interpreter = line[name : min(until, end)]
    if not interpreter:
        raise OSError(errno.ENOENT, "an interpreter without a name")
    return interpreter, None if argument is None else line[argument:end].partition(b"\0")[0]


def _first(line: bytes, start: int, last: int) -> int | None:
    """The first place from `start` to `last` inclusive that is neither blank nor tab."""
    return next((at for at in range(start, last + 1) if line[at] not in _BLANK), None)


def _by_descriptor(directory: int, path: bytes) -> bytes:
    """How the kernel names a program started by descriptor (fs/exec.c, alloc_bprm)."""
    return b"/dev/fd/%d" % directory + (b"/" + path if path else b"")


def _start(task: Task, directory: int, path: bytes, flags: int) -> AbstractContextManager[int]:
    if path.startswith(b"/") or (directory == AT_FDCWD and path):
        return walked(task, task.cwd, path)
    return _from_descriptor(task, directory, path, flags)


@contextmanager
def _from_descriptor(task: Task, directory: int, path: bytes, flags: int) -> Iterator[int]:
    if not path and not flags & AT_EMPTY_PATH:
        raise OSError(errno.ENOENT, "an empty path")
    try:
        base = os.dup(task.cwd) if directory == AT_FDCWD else task.directory(directory)
    except FileNotFoundError as error:
        raise OSError(errno.EBADF, f"descriptor {directory} is not open") from error
    try:
        if path:
            with walked(task, base, path) as opened:
                yield opened
        else:
            yield base
    finally:
        os.close(base)
