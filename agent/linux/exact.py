"""Opening and making exactly what a path names, by descriptor, for root in trees that others rename at that moment.

Rules kept here: every name is opened on its own, in the directory that was opened before it, and what it is, is asked
of what was opened (path_resolution(7), openat(2)); no symlink is followed but by `follow`, and there none of an account
that is not trusted with the way.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final, NamedTuple

from agent.linux.openat2 import MAX_LINKS

PLACE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Planted(OSError):
    """A symlink on the way was made by the account that is not trusted with it; `filename` is the link."""


class Way(NamedTuple):
    """Where a path leads: a descriptor (O_PATH), its path without symlinks, and the symlinks that were followed, each
    with its target."""

    place: int
    real: str
    links: tuple[tuple[str, str], ...]


def place(path: str, last: int = PLACE) -> int:
    """The place itself, opened with the flags `last`; a symlink at the end too where they are `PLACE`. Mounts on the
    way are crossed. Raises OSError: NotADirectoryError where a symlink is on the way."""
    *above, name = [part for part in path.split("/") if part] or ["."]
    at = os.open("/", PLACE)
    for part in above:
        at = _into(at, part, PLACE)
    return _into(at, name, last)


def follow(path: str, distrusted: int | None) -> Way:
    """What `path` leads to by symlinks of anybody's but the uid `distrusted` (None: of anybody's). The descriptor is
    the caller's. Raises Planted; OSError."""
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    at, real, links = os.open("/", PLACE), "", []
    try:
        while todo:
            part = todo.pop()
            below = os.open(part, PLACE, dir_fd=at)
            if part == "..":
                real = real.rpartition("/")[0]
            elif (info := os.fstat(below)) and stat.S_ISLNK(info.st_mode):
                links.append((f"{real}/{part}", _target(below, at, part)))
                os.close(below)
                if info.st_uid == distrusted:
                    raise Planted(errno.ELOOP, "a symlink that this account made is on the way", links[-1][0])
                if len(links) > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                todo += [piece for piece in reversed(links[-1][1].split("/")) if piece not in ("", ".")]
                if not links[-1][1].startswith("/"):
                    continue
                below, real = os.open("/", PLACE), ""
            else:
                real = f"{real}/{part}"
            os.close(at)
            at = below
    except BaseException:
        os.close(at)
        raise
    return Way(at, real or "/", tuple(links))


def found(path: str, distrusted: int | None) -> Way | None:
    """The same, but None where nothing is there, or no way there: symlinks in a circle too. Raises Planted; OSError."""
    try:
        return follow(path, distrusted)
    except OSError as error:
        if isinstance(error, Planted) or error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return None


def make_directory(name: str, at: int, mode: int, owner: tuple[int, int] | None = None) -> int:
    """Make the directory `name` in the directory `at`, and give it to `owner` (uid, gid). Returns it, opened.

    Between the making and the opening whoever owns `at` may put another one there: it is taken only where it is this
    account's and empty, so nobody is given what he could not have removed. Raises OSError, FileExistsError included.
    """
    os.mkdir(name, mode, dir_fd=at)
    made = os.open(name, DIRECTORY, dir_fd=at)
    try:
        if os.fstat(made).st_uid != os.geteuid() or os.listdir(made):  # noqa: PTH208  (of a descriptor)
            raise FileExistsError(errno.EEXIST, "another directory took its place", name)
        if owner is not None:
            os.fchown(made, *owner)
    except OSError:
        os.close(made)
        raise
    return made


def _into(at: int, name: str, flags: int) -> int:
    try:
        return os.open(name, flags, dir_fd=at)
    finally:
        os.close(at)


def _target(link: int, at: int, name: str) -> str:
    """What the symlink holds (readlink(2): of a descriptor, Linux 2.6.39; by its name where that is not to be had)."""
    try:
        return os.readlink("", dir_fd=link)
    except OSError:
        return os.readlink(name, dir_fd=at)
