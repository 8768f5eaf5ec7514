"""Placeholders for protected names that do not exist yet: something a mount can lie on for the time of the session.

In the home a placeholder is an empty file, which whoever reads it from outside takes for one; elsewhere a socket that
nobody serves, which git does not list as untracked. Inside the session both are an empty file of root's, read-only.
What is made is written down before, in the run directory's private part, and taken away at the end (agent.daemon.
reserved).

Rules kept here: made by descriptor, so that no link of a session's leads anywhere else; nothing but what was just made
is given away or changed.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from agent.daemon.protection.reserved import DIRECTORY, LIST, MARK, is_placeholder, listed, listed_by_others
from agent.linux import exact
from agent.policy.paths import covers
from agent.policy.protection import Reservation
from agent.values import dataclass


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom directories on the way to a placeholder are given to."""

    uid: int
    gid: int


def reserve(names: Iterable[Reservation], home: str, run_dir: str, owner: Owner) -> tuple[str, ...]:
    """Make the placeholders; returns the names that cannot be had any more: something took them, or the directory that
    they belong into is gone. What an earlier call of this run made stays on its list. Raises OSError."""
    wanted = list(names)
    if not wanted:
        return ()
    made = listed(Path(run_dir))
    others = listed_by_others(run_dir)
    for name in wanted:
        made += [*_missing(name.path, others), name.path]
    text = json.dumps(list(dict.fromkeys(made)))
    new = Path(run_dir, f"{LIST}.new")
    new.write_text(text, encoding="utf-8", errors="surrogateescape")
    new.replace(Path(run_dir, LIST))
    ours = frozenset(made)
    return tuple(name.path for name in wanted if not _made(name, owner, ours, socket=not covers(home, name.path)))


def _made(name: Reservation, owner: Owner, ours: frozenset[str], *, socket: bool) -> bool:
    try:
        _make(name, owner, ours, socket=socket)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except FileExistsError:
        return is_placeholder(name.path)
    return True


def _missing(path: str, others: set[str]) -> list[str]:
    """The directories on the way that do not exist, or would not without another session, outermost first."""
    found = []
    above = path.rpartition("/")[0]
    while above and (above in others or not os.path.lexists(above)):
        found.append(above)
        above = above.rpartition("/")[0]
    return found[::-1]


def _make(name: Reservation, owner: Owner, ours: frozenset[str], *, socket: bool) -> None:
    *above, last = name.path[1:].split("/")
    at = os.open("/", DIRECTORY)
    try:
        for depth, part in enumerate(above, 1):
            make = "/" + "/".join(above[:depth]) in ours
            below = _entered(at, part, owner if make else None)
            os.close(at)
            at = below
        if name.directory:
            _make_marked(last, at)
        elif socket:
            os.mknod(last, stat.S_IFSOCK | MARK | 0o444, dir_fd=at)
        else:
            descriptor = os.open(last, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o444, dir_fd=at)
            os.fchmod(descriptor, MARK | 0o444)
            os.close(descriptor)
    finally:
        os.close(at)


def _entered(at: int, part: str, owner: Owner | None) -> int:
    """The directory `part` of the directory `at`, made for `owner` where it is missing."""
    try:
        return os.open(part, DIRECTORY, dir_fd=at)
    except FileNotFoundError:
        if owner is None:
            raise
        return exact.make_directory(part, at, 0o700, (owner.uid, owner.gid))


def _make_marked(name: str, at: int) -> None:
    descriptor = exact.make_directory(name, at, 0o555)
    try:
        os.fchmod(descriptor, MARK | 0o555)
    finally:
        os.close(descriptor)
