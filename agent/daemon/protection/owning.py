"""Protected places of the home, held by ownership where no mount is to be had (Docker's default: no CAP_SYS_ADMIN).

The home becomes root's, sticky, and writable by the session's own group: the session makes and removes files of its own
there as before, and can neither rename nor remove what is root's (unlink(2), sticky bit). Protected files become root's
and keep what the session could read; reserved ones are placeholders, root's anyway. It is undone at the end
(agent.daemon.protection.owned). The same in a work tree would break git, which refuses a repository that is not its
user's.

Rules kept here: what is changed is written down before; nothing is followed; by descriptor; only what is the session's
own changes hands, so that no other name of somebody's file (a hard link) opens it.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from agent.daemon.base.spec import User
from agent.daemon.protection.owned import LIST, Owned, change, look
from agent.policy.paths import below, covers
from agent.session.plan import Hold

type Held = tuple[tuple[str, Hold], ...]


def own(held: Held, home: str, run_dir: str, user: User) -> Held:
    """Hold those of these places that lie in the home; returns them, but for what another account leaves open to
    more than itself. Raises OSError."""
    mine = tuple((path, how) for path, how in held if below(home, path))
    if not mine:
        return ()
    found = [look(home), *_before(mine)]
    before = [entry for entry in found if entry.uid == user.uid]
    Path(run_dir, LIST).write_text(json.dumps(before), encoding="utf-8", errors="surrogateescape")
    read_only = tuple(path for path, how in mine if how is Hold.READ_ONLY)
    for entry in before:
        kept = any(entry.path == path or below(path, entry.path) for path in read_only)
        change(entry, 0, user.gid, _closed(entry.mode) if kept or not stat.S_ISDIR(entry.mode) else _sticky(entry.mode))
    loose = [entry.path for entry in found if entry.uid != user.uid and _open_to_others(entry.mode)]
    return tuple((path, how) for path, how in mine if not any(covers(path, other) for other in loose))


def _open_to_others(mode: int) -> bool:
    return not stat.S_ISLNK(mode) and bool(mode & (stat.S_IWGRP | stat.S_IWOTH))


def sticky_holds(directory: str, user: User) -> bool:
    """Does a sticky directory keep root's files from this user? Tried in a child, in a new directory below `directory`:
    gVisor of 2022 lets a rename replace them."""
    place = Path(tempfile.mkdtemp(dir=directory))
    try:
        for name, owner in (("roots", 0), ("own", user.uid)):
            (place / name).touch()
            os.chown(place / name, owner, user.gid)
        os.chown(place, 0, user.gid)
        place.chmod(0o1770)
        return not _replaces(place, user)
    finally:
        shutil.rmtree(place)


def _replaces(place: Path, user: User) -> bool:
    child = os.fork()
    if child == 0:
        status = 0
        try:
            os.chdir(place)
            os.setgroups([])
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
            Path("own").rename("roots")
            status = 1
        except PermissionError:
            status = 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 2


def _before(places: Held) -> Iterator[Owned]:
    for path, how in places:
        if how is Hold.RESERVE:
            continue  # made by root, for root
        yield look(path)
        if how is Hold.READ_ONLY:
            for directory, directories, files in os.walk(path):
                yield from (look(f"{directory}/{name}") for name in (*directories, *files))


def _closed(mode: int) -> int:
    """The session, now of the group and not the owner, reads and searches what it could, and writes nothing."""
    return mode & 0o705 & ~0o002 | (mode & 0o500) >> 3


def _sticky(mode: int) -> int:
    return mode & 0o705 & ~0o002 | (mode & 0o700) >> 3 | stat.S_ISVTX
