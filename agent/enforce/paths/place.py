"""Where a path leads for a stopped task, whether or not something is there yet.

Rules kept here: paths are walked by `agent.enforce.walk` (the task's root, working directory and /proc/self); the last
name is followed only where the call follows it, and a link that leads to nothing is followed to where the kernel would
create; what an open descriptor stands for and has no name (a pipe, a memory file) has no place. Nothing is decided.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from agent.enforce.memory import Task, path_of, readable
from agent.enforce.walk import by_names, walked
from agent.linux.openat2 import MAX_LINKS
from agent.policy.paths import PROC
from agent.values import dataclass

_DELETED = " (deleted)"  # d_path of fs/d_path.c
_MEMORY_FILE = "/memfd:"  # mm/memfd.c


@dataclass(frozen=True, slots=True)
class Place:
    """`path`: free of symlinks, None where the object has no name. `mode`: its st_mode, 0 where nothing is there."""

    path: str | None
    mode: int

    @property
    def exists(self) -> bool:
        return self.mode != 0


def locate(task: Task, start: int, path: bytes, *, follow: bool) -> Place:
    """Where `path` leads, from the task's root where it is absolute, else from the directory `start`.

    Raises OSError with the kernel's errno where the directory of the last name cannot be reached (PermissionError: the
    session may not search it), Unreadable where that takes more names than are walked.
    """
    at = os.dup(start)
    try:
        for _ in range(MAX_LINKS + 1):
            found = _step(task, at, path, follow=follow)
            if isinstance(found, Place):
                return found
            os.close(at)
            at, path = found
            follow = True
        raise OSError(errno.ELOOP, "too many symbolic links")
    finally:
        os.close(at)


def _step(task: Task, start: int, path: bytes, *, follow: bool) -> Place | tuple[int, bytes]:
    """The place, or where its last name is a link to be followed the directory of that (the caller owns it) and what
    the link says. Link by link, so that each is walked once, however many lead to nothing."""
    bare = path.rstrip(b"/")
    head, slash, name = bare.rpartition(b"/")
    if name in (b"", b".", b".."):
        with walked(task, start, path) as at:
            return _found(at)
    follow = follow or bare != path  # a trailing slash follows: path_resolution(7)
    here: AbstractContextManager[int] = walked(task, start, head or b"/") if slash else nullcontext(start)
    with here as parent:
        above = path_of(parent)
        if above == PROC or above.startswith(f"{PROC}/"):
            return _in_proc(task, start, (head or b"/") if slash else b".", bare, follow=follow)
        mode = _mode(name, parent)
        if not (follow and stat.S_ISLNK(mode)):
            return Place(posixpath.join(above, readable(name)), mode)
        return os.dup(parent), os.readlink(name, dir_fd=parent)


def by_text(task: Task, start: int, path: bytes) -> str:
    """What the path says, its links not followed: where the session may not look. Raises ProcessLookupError."""
    text = readable(path) if path.startswith(b"/") else f"{path_of(start)}/{readable(path)}"
    return posixpath.normpath("/" + text.lstrip("/"))


def _in_proc(task: Task, start: int, head: bytes, path: bytes, *, follow: bool) -> Place:
    """Name by name: below /proc, ``self`` is the task and not the agent."""
    if follow:
        try:
            with _owned(by_names(task, start, path)) as at:
                return _found(at)
        except FileNotFoundError:
            pass  # the parent says what is missing
    with _owned(by_names(task, start, head)) as parent:
        name = path.rpartition(b"/")[2]
        return Place(posixpath.join(path_of(parent), readable(name)), _mode(name, parent))


def _mode(name: bytes, directory: int) -> int:
    """Of what `name` is there, not followed; 0 for nothing."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


@contextmanager
def _owned(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _found(at: int) -> Place:
    status, path = os.fstat(at), path_of(at)
    if status.st_nlink == 0 and path.endswith(_DELETED):
        path = path.removesuffix(_DELETED)
        if path.startswith(_MEMORY_FILE):
            return Place(None, status.st_mode)
    return Place(path if path.startswith("/") else None, status.st_mode)
