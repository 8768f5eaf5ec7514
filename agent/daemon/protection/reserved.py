"""Taking away the placeholders of protected names (agent.daemon.protection.reserving) at the end of a session.

Rules kept here: only what still is a placeholder and what no other session's list names; by descriptor, so that no link
of the session's leads anywhere else; the standard library only, since the keeper does it.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path

MARK = 0o1000
"""The sticky bit, which means nothing on a file (inode(7)): how a placeholder is known again."""
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
LIST = "private/reserved.json"


def release(run_dir: str) -> None:
    """Take away what this run reserved. Never raises: an empty file that is left over is found again, and held."""
    names = listed(Path(run_dir))
    others = listed_by_others(run_dir)
    for name in reversed(names):
        if name not in others:
            with suppress(OSError):
                _remove(name)


def is_placeholder(path: str) -> bool:
    """Is there one of another session's, or of one that could not end in order?"""
    try:
        info = os.lstat(path)
        empty = not os.listdir(path) if stat.S_ISDIR(info.st_mode) else info.st_size == 0  # noqa: PTH208
    except OSError:
        return False
    return empty and _is_ours(info)


def _is_ours(info: os.stat_result) -> bool:
    kinds = (stat.S_IFSOCK, stat.S_IFREG, stat.S_IFDIR)
    read_only = stat.S_IMODE(info.st_mode) in (MARK | 0o444, MARK | 0o555)
    return info.st_uid == os.geteuid() and read_only and stat.S_IFMT(info.st_mode) in kinds


def listed_by_others(run_dir: str) -> set[str]:
    """What the other sessions of this machine have made and will take away."""
    return {name for other in Path(run_dir).parent.glob("*") if other != Path(run_dir) for name in listed(other)}


def listed(run_dir: Path) -> list[str]:
    """What this run has made, each directory before what is in it."""
    with suppress(OSError, ValueError):
        found = json.loads((run_dir / LIST).read_text(encoding="utf-8", errors="surrogateescape"))
        return [name for name in found if isinstance(name, str)]
    return []


def _remove(path: str) -> None:
    """Remove one placeholder, or one directory made on the way to it; only while it is empty. Raises OSError."""
    *above, last = path[1:].split("/")
    at = os.open("/", DIRECTORY)
    try:
        for part in above:
            below = os.open(part, DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
        info = os.stat(last, dir_fd=at, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            os.rmdir(last, dir_fd=at)
        elif _is_ours(info) and info.st_size == 0:
            os.unlink(last, dir_fd=at)
    finally:
        os.close(at)
