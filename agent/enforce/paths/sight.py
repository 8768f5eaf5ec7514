"""Looking at a file that the session may replace at any moment: no link is followed, nothing waits.

Rules kept here: every name on the way is opened without following links (open(2), O_NOFOLLOW), so that what is looked
at lies where its path says; only regular files are read, up to a bound; a FIFO, a device, a leased or a vanished file
gives no digest and never holds the caller up (O_NONBLOCK).
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Final

from agent.values import dataclass

MAX_DIGEST_BYTES: Final = 1 << 20
_PLACE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Sight:
    """What lay at a path: enough to tell that it changed. Times in nanoseconds."""

    inode: int
    mode: int
    owner: int
    links: int
    size: int
    modified: int
    changed: int

    @property
    def regular(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


def place(path: str) -> int:
    """A descriptor (O_PATH) of what lies at the absolute, normalised `path`, a link itself. Raises OSError; ENOTDIR or
    ELOOP where a name on the way is a link."""
    at = os.open("/", _PLACE | os.O_DIRECTORY)
    parts = [part for part in path.split("/") if part]
    for index, name in enumerate(parts):
        flags = _PLACE if index == len(parts) - 1 else _PLACE | os.O_DIRECTORY
        try:
            below = os.open(name, flags, dir_fd=at)
        finally:
            os.close(at)
        at = below
    return at


def sight(found: os.stat_result) -> Sight:
    """The same of a stat(2) result."""
    return Sight(
        inode=found.st_ino,
        mode=found.st_mode,
        owner=found.st_uid,
        links=found.st_nlink,
        size=found.st_size,
        modified=found.st_mtime_ns,
        changed=found.st_ctime_ns,
    )


def look(path: str) -> Sight | None:
    """What lies at `path`, None where nothing does or a link is on the way."""
    try:
        at = place(path)
    except OSError:
        return None
    try:
        return sight(os.fstat(at))
    finally:
        os.close(at)


def digest(path: str, limit: int = MAX_DIGEST_BYTES) -> str | None:
    """SHA-256 (hex) of the regular file at `path`; None for all else, for one longer than `limit` bytes, and for one
    that cannot be read now."""
    head, _, name = path.rpartition("/")
    try:
        at = place(head)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.lstat(name, dir_fd=at).st_mode):
            return None
        descriptor = os.open(name, _READ, dir_fd=at)
    except OSError:
        return None
    finally:
        os.close(at)
    with open(descriptor, "rb", buffering=0) as file:
        return _digest_of(file.fileno(), limit)


def _digest_of(descriptor: int, limit: int) -> str | None:
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            return None
        digest_so_far, left = hashlib.sha256(), limit
        while chunk := os.read(descriptor, 1 << 16):
            left -= len(chunk)
            if left < 0:  # it grows while it is read
                return None
            digest_so_far.update(chunk)
    except OSError:
        return None
    return digest_so_far.hexdigest()
