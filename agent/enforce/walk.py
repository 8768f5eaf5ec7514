"""A path as the kernel will walk it for a stopped task: from its own root and working directory, its own /proc/self.

Rules kept here: the kernel walks where it can be told to do so in the task's stead (openat2(2)); wherever that fails,
for whatever reason, the walk is made name by name (path_resolution(7)), and its errno counts. The two agree on what
they find: the only names that mean another thing for us than for the task are ``self`` and ``thread-self`` in its /proc
(another one than ours where the session has a process namespace), and below them lie no programs but behind links to
objects, which the kernel is told not to follow. Walking by names is bounded for each stopped call.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from types import TracebackType

from agent.enforce.memory import MAX_PATH, Task, Unreadable, path_of, readable
from agent.linux.openat2 import MAX_LINKS, place_below, place_in_root

MAX_NAMES = 8192
"""So many names are walked one by one for one call, symlinks' included: some 50 ms. Forty links of 4 KB have ten times
as many, and each other path less than two thousand."""
_O_WALK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Closed(PermissionError):
    """The task may not look there. `place`: the path, free of symlinks as far as the task may look."""

    def __init__(self, place: str) -> None:
        super().__init__(errno.EACCES, os.strerror(errno.EACCES), place)
        self.place = place


class walked:
    """What `path` is for `task`, from its root where the path is absolute, else from the directory `start`: a
    descriptor (O_PATH), open while the context lasts. Raises OSError with the errno the kernel would give, Closed where
    that is because a directory may not be searched."""

    __slots__ = ("_at",)

    def __init__(self, task: Task, start: int, path: bytes) -> None:
        if len(path) >= MAX_PATH:
            raise OSError(errno.ENAMETOOLONG, "the path is too long")
        try:
            self._at = place_in_root(task.root, path) if path.startswith(b"/") else place_below(start, path)
        except OSError:
            self._at = by_names(task, start, path)

    def __enter__(self) -> int:
        return self._at

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._at)


def by_names(task: Task, start: int, path: bytes) -> int:
    """The same name by name; the caller owns the descriptor. Raises Unreadable past `MAX_NAMES` of the task."""
    walk = _Walk(task, start)
    try:
        walk.go(path)
    except BaseException:
        os.close(walk.at)
        raise
    return walk.at


class _Walk:
    """One path resolution. `at` is the descriptor reached so far, owned by whoever made the walk."""

    def __init__(self, task: Task, start: int) -> None:
        self._task = task
        self._links = 0
        self._theirs = _proc_of(task)
        self.at = os.dup(start)

    def go(self, path: bytes) -> None:
        pending = self._components(path)
        while pending:
            name = pending.pop()
            self._task.names += 1
            if self._task.names > MAX_NAMES:
                raise Unreadable(f"a path has more than {MAX_NAMES} names to be walked, those of its links included")
            if name == b"..":
                self._up()
                continue
            found = self._open(name, pending)
            if stat.S_ISLNK(os.fstat(found).st_mode):
                try:
                    pending.extend(self._follow(name, found))
                finally:
                    os.close(found)
            else:
                self._move(found)

    def _open(self, name: bytes, pending: list[bytes]) -> int:
        try:
            return os.open(name, _O_WALK, dir_fd=self.at)
        except (PermissionError, FileNotFoundError) as error:
            # who may look everywhere finds a covered directory empty (gVisor, where eyes are the agent's)
            if isinstance(error, PermissionError) or not stat.S_IMODE(os.fstat(self.at).st_mode):
                rest = "/".join(map(readable, (name, *reversed(pending))))
                raise Closed(posixpath.normpath(f"{path_of(self.at)}/{rest}")) from error
            raise

    def _components(self, path: bytes) -> list[bytes]:
        """What is left to walk, next one last; an absolute path starts again at the task's root."""
        if path.startswith(b"/"):
            self._move(os.dup(self._task.root))
        return [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]

    def _follow(self, name: bytes, link: int) -> list[bytes]:
        self._links += 1
        if self._links > MAX_LINKS:
            raise OSError(errno.ELOOP, "too many symbolic links")
        here = os.fstat(self.at)
        if (own := self._is_top(here)) is not None:
            if name in (b"self", b"thread-self"):
                return self._own(name, ours=own)
        elif here.st_dev in (os.stat("/proc").st_dev, self._theirs[0]):  # noqa: PTH116
            # exe, cwd, root, fd/N: links to an object, not to a name
            self._move(os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=self.at))
            return []
        return self._components(os.readlink(b"", dir_fd=link))

    def _is_top(self, here: os.stat_result) -> bool | None:
        """None where `here` is not the top of a /proc; else whether it is ours, which the task may have, too."""
        top = os.stat("/proc")  # noqa: PTH116
        if (here.st_dev, here.st_ino) == (top.st_dev, top.st_ino):
            return True
        return False if (here.st_dev, here.st_ino) == self._theirs else None

    def _own(self, name: bytes, *, ours: bool) -> list[bytes]:
        """What ``self`` or ``thread-self`` leads the task to, next one last."""
        task = self._task
        tid, tgid = (task.tid, task.tgid) if ours else task.own_ids()
        if not tid:  # the kernel does not say how the task calls itself (gVisor): it is the same process here
            self._move(os.open("/proc", _O_WALK))
            tid, tgid = task.tid, task.tgid
        return [b"%d" % tgid] if name == b"self" else [b"%d" % tid, b"task", b"%d" % tgid]

    def _up(self) -> None:
        here, root = os.fstat(self.at), os.fstat(self._task.root)
        if (here.st_dev, here.st_ino) != (root.st_dev, root.st_ino):
            self._move(os.open(b"..", _O_WALK, dir_fd=self.at))

    def _move(self, to: int) -> None:
        os.close(self.at)
        self.at = to


def _proc_of(task: Task) -> tuple[int, int]:
    """Device and inode of the /proc that the task sees: another one than ours where it has a process namespace."""
    try:
        found = os.stat("proc", dir_fd=task.root, follow_symlinks=False)
    except FileNotFoundError:
        return -1, -1
    return found.st_dev, found.st_ino
