"""Giving back, at the end of a session, what was made root's for its time (agent.daemon.protection.owning).

Rules kept here: only the very files that were changed, known by device and inode, and only while they are root's; no
link is followed; nothing heavy is imported, since the keeper does it.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from agent.linux import exact

LIST = "private/owned.json"


class Owned(NamedTuple):
    """One file as it was. `mode` as of stat(2)."""

    path: str
    device: int
    inode: int
    uid: int
    gid: int
    mode: int


def look(path: str) -> Owned:
    """As it is now. Raises OSError, also where a symlink is on the way."""
    at = exact.place(path)
    try:
        info = os.fstat(at)
    finally:
        os.close(at)
    return Owned(path, info.st_dev, info.st_ino, info.st_uid, info.st_gid, info.st_mode)


def change(entry: Owned, uid: int, gid: int, mode: int) -> None:
    """Give exactly this file another owner and permissions. Raises OSError; FileNotFoundError where it is another."""
    at = exact.place(entry.path)
    try:
        info = os.fstat(at)
        if (info.st_dev, info.st_ino) != (entry.device, entry.inode):
            raise FileNotFoundError(2, "another file has its name", entry.path)
        os.chown(f"/proc/self/fd/{at}", uid, gid)  # of a symlink: its own, the descriptor leads no further
        if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode):
            Path(f"/proc/self/fd/{at}").chmod(stat.S_IMODE(mode))
    finally:
        os.close(at)


def give_back(run_dir: str) -> None:
    """Undo what this run's list names. Never raises: what is left over is root's, and out of the session's reach."""
    with suppress(OSError, ValueError, TypeError):
        listed = json.loads(Path(run_dir, LIST).read_text(encoding="utf-8", errors="surrogateescape"))
        for entry in [Owned(*fields) for fields in listed][::-1]:
            with suppress(OSError):
                if os.lstat(entry.path).st_uid == 0:
                    change(entry, entry.uid, entry.gid, entry.mode)
