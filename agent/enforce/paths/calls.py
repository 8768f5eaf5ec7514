"""The system calls that change a file by its path: which arguments name it, and what is wanted of it.

Rules kept here: argument positions are those of the kernel's own calls (syscalls(2) and the pages of each), the same on
both machines; what the kernel will refuse by itself, whatever the policy says (a name that exists already, one that
does not), asks for nothing; who renames or links asks for both names.
"""

from __future__ import annotations

import os
import stat
from enum import Enum, auto
from typing import Final

from agent.enforce.paths.place import Place
from agent.policy.request import Access
from agent.values import dataclass

AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW = 0x100, 0x400  # linux/fcntl.h
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2  # linux/fs.h
_CREAT: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


class Kind(Enum):
    """What a call does with one of its paths."""

    OPEN = auto()  # as its flags say
    MAKE = auto()  # a new name
    REMOVE = auto()  # an existing name goes
    REPLACE = auto()  # a name is taken, by whatever was there before
    SOURCE = auto()  # a file gets a second name, by which it can be written
    CHANGE = auto()  # content or attributes of what is there


_OF_A_NAME = (Kind.REMOVE, Kind.REPLACE)


class Passes(Exception):
    """The call needs no answer of the policy: the kernel refuses it by itself, or nothing is changed."""


@dataclass(frozen=True, slots=True)
class Target:
    """One path of a call. `path`, `directory`, `flags`: positions of arguments; `directory` None: the working
    directory. `follow`: is a link in the last name followed, where no flag says otherwise? `of_content`: it changes
    what is in a file, which a directory is not."""

    kind: Kind
    path: int
    directory: int | None = None
    flags: int | None = None
    follow: bool = False
    of_content: bool = False

    def follows(self, flags: int) -> bool:
        """By `flags`, those of this call."""
        if self.kind is Kind.OPEN:
            return not (flags & os.O_NOFOLLOW or (flags & os.O_CREAT and flags & os.O_EXCL))
        if self.flags is None:
            return self.follow
        if self.kind is Kind.SOURCE:
            return bool(flags & AT_SYMLINK_FOLLOW)
        return self.follow and not flags & AT_SYMLINK_NOFOLLOW

    def wants(self, place: Place, flags: int, asked: bytes) -> Access:
        """What is asked of the policy, of the path that was `asked` for. Raises Passes."""
        if asked.endswith(b"/") and place.exists and not stat.S_ISDIR(place.mode):
            raise Passes  # ENOTDIR
        if self.kind in _OF_A_NAME and asked.rstrip(b"/").rpartition(b"/")[2] in (b"", b".", b".."):
            raise Passes  # EBUSY, EINVAL, ENOTEMPTY
        match self.kind:
            case Kind.OPEN:
                return _opening(place, flags)
            case Kind.MAKE:
                return _if(not place.exists, Access.WRITE)
            case Kind.REMOVE:
                return _if(place.exists, Access.DELETE)
            case Kind.REPLACE:
                return _replacing(place, flags)
            case Kind.SOURCE:
                return _if(place.exists and not stat.S_ISDIR(place.mode), Access.WRITE)
            case Kind.CHANGE:
                return _if(place.exists and not (self.of_content and stat.S_ISDIR(place.mode)), Access.WRITE)


def _replacing(place: Place, flags: int) -> Access:
    if flags & RENAME_EXCHANGE:
        return _if(place.exists, Access.DELETE)
    return _if(not (flags & RENAME_NOREPLACE and place.exists), Access.WRITE)


def _if(wanted: bool, access: Access) -> Access:
    if not wanted:
        raise Passes
    return access


def _opening(place: Place, flags: int) -> Access:
    if not place.exists:
        return _if(bool(flags & os.O_CREAT), Access.WRITE)
    if flags & os.O_CREAT and flags & os.O_EXCL:
        raise Passes
    if flags & os.O_DIRECTORY and not stat.S_ISDIR(place.mode):
        raise Passes  # ENOTDIR
    if stat.S_ISDIR(place.mode):  # EISDIR, but for an unnamed file in it
        return _if(flags & os.O_TMPFILE == os.O_TMPFILE, Access.WRITE)
    return _if(not stat.S_ISLNK(place.mode) and bool(flags & (os.O_ACCMODE | os.O_TRUNC)), Access.WRITE)


def opening_flags(name: str, arguments: tuple[int, ...], target: Target) -> int:
    """The flags of `target` in a call of this name. Raises Passes for an open that only names a place (O_PATH)."""
    flags = _CREAT if name == "creat" else 0 if target.flags is None else arguments[target.flags] & 0xFFFFFFFF
    if target.kind is Kind.OPEN and flags & os.O_PATH:
        raise Passes
    return flags


def _change(path: int, directory: int | None = None, flags: int | None = None, *, follow: bool = True) -> tuple[Target]:
    return (Target(Kind.CHANGE, path, directory, flags, follow),)


CALLS: Final[dict[str, tuple[Target, ...]]] = {
    "open": (Target(Kind.OPEN, 0, None, 1),),
    "openat": (Target(Kind.OPEN, 1, 0, 2),),
    "creat": (Target(Kind.OPEN, 0),),
    "truncate": (Target(Kind.CHANGE, 0, follow=True, of_content=True),),
    "mkdir": (Target(Kind.MAKE, 0),),
    "mkdirat": (Target(Kind.MAKE, 1, 0),),
    "mknod": (Target(Kind.MAKE, 0),),
    "mknodat": (Target(Kind.MAKE, 1, 0),),
    "symlink": (Target(Kind.MAKE, 1),),
    "symlinkat": (Target(Kind.MAKE, 2, 1),),
    "link": (Target(Kind.SOURCE, 0), Target(Kind.MAKE, 1)),
    "linkat": (Target(Kind.SOURCE, 1, 0, 4), Target(Kind.MAKE, 3, 2)),
    "unlink": (Target(Kind.REMOVE, 0),),
    "unlinkat": (Target(Kind.REMOVE, 1, 0),),
    "rmdir": (Target(Kind.REMOVE, 0),),
    "rename": (Target(Kind.REMOVE, 0), Target(Kind.REPLACE, 1)),
    "renameat": (Target(Kind.REMOVE, 1, 0), Target(Kind.REPLACE, 3, 2)),
    "renameat2": (Target(Kind.REMOVE, 1, 0), Target(Kind.REPLACE, 3, 2, 4)),
    "chmod": _change(0),
    "fchmodat": _change(1, 0),
    "fchmodat2": _change(1, 0, 3),
    "chown": _change(0),
    "lchown": _change(0, follow=False),
    "fchownat": _change(1, 0, 4),
    "utime": _change(0),
    "utimes": _change(0),
    "futimesat": _change(1, 0),
    "utimensat": _change(1, 0, 3),
    "setxattr": _change(0),
    "lsetxattr": _change(0, follow=False),
    "setxattrat": _change(1, 0, 2),
    "removexattr": _change(0),
    "lremovexattr": _change(0, follow=False),
    "removexattrat": _change(1, 0, 2),
    "file_setattr": _change(1, 0, 4),
}
"""Every call that the session's filter notifies for the path audit (agent.session.filter_table)."""
