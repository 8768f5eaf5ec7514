"""What the session's account could have put in the way of the agent, which is root and follows paths.

Sessions leave files behind, and a later one is started over them: a symlink planted where a grant's root will be made
leads root elsewhere, and a log below a directory that the session may rename is a log the session can replace. Rules:
a symlink that the session's account owns is never followed on the way to a grant; the log, the policy, the run
directory and the agent's own program lie where that account can move nothing on the way to them. What is made for the
session is made and given away by descriptor, never by name.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from agent.daemon.base.spec import User
from agent.linux import exact
from agent.linux.openat2 import MAX_LINKS
from agent.values import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One name on the way to a path: the directory it is looked up in, and what is there."""

    path: str
    directory: os.stat_result
    found: os.stat_result


def planted(path: str, user: User) -> str | None:
    """The first symlink on the way to `path` that `user` made, None where there is none. Raises OSError."""
    links = (step for step in _steps(path) if stat.S_ISLNK(step.found.st_mode))
    return next((step.path for step in links if step.found.st_uid == user.uid), None)


def movable(path: str, user: User) -> str | None:
    """The first name on the way to `path` that `user` may rename or replace, None where there is none.

    By ownership and mode alone (unlink(2), the sticky bit included): what is granted now may be granted otherwise in
    the next session. Raises OSError.
    """
    return next((step.path for step in _steps(path) if _may_move(step, user)), None)


def writable(path: str, user: User) -> str | None:
    """Why `user` could have written what `path` holds: a name on the way, or the file itself; None where it could not.

    By ownership and mode alone. Raises OSError.
    """
    way = movable(path, user)
    if way is not None:
        return way
    found = Path(path).stat()
    allowed = stat.S_IWGRP if found.st_gid == user.gid else stat.S_IWOTH
    return path if found.st_uid == user.uid or found.st_mode & allowed else None


def make_directory(path: str, user: User | None) -> None:
    """Make `path` (its parents too, mode 0755) and give it to `user`. Raises OSError, FileExistsError included;
    exact.Planted where a symlink of the user's is on the way by now."""
    missing: list[str] = []
    existing = path
    while not os.path.lexists(existing):
        existing, name = os.path.split(existing)
        missing.append(name)
    if not missing:
        raise FileExistsError(17, "exists already", path)
    at = exact.follow(existing, None if user is None else user.uid).place
    try:
        for left, name in enumerate(missing[::-1], 1 - len(missing)):
            owner = (user.uid, user.gid) if user is not None and left == 0 else None
            made = exact.make_directory(name, at, 0o755, owner)
            os.close(at)
            at = made
    finally:
        os.close(at)


def _steps(path: str) -> Iterator[Step]:
    """Every name that is looked up on the way to an absolute `path`, symlinks followed, up to what does not exist."""
    at, links = "/", 0
    pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    while pending:
        name = pending.pop()
        if name == "..":
            at = os.path.split(at)[0]
            continue
        here = f"{at.rstrip('/')}/{name}"
        try:
            step = Step(here, os.lstat(at), os.lstat(here))
        except FileNotFoundError:
            return
        yield step
        if not stat.S_ISLNK(step.found.st_mode):
            at = here
            continue
        links += 1
        if links > MAX_LINKS:
            raise OSError(40, "too many symbolic links", path)
        target = str(Path(here).readlink())
        at = "/" if target.startswith("/") else at
        pending += [part for part in reversed(target.split("/")) if part not in ("", ".")]


def _may_move(step: Step, user: User) -> bool:
    directory = step.directory
    if directory.st_uid == user.uid:
        return True
    writable = stat.S_IWGRP if directory.st_gid == user.gid else stat.S_IWOTH
    if not directory.st_mode & writable:
        return False
    return not directory.st_mode & stat.S_ISVTX or step.found.st_uid == user.uid
