"""Opening a path below a directory of one's choice, in one call (openat2(2), Linux 5.6).

The numbers are those of linux/openat2.h. What is opened is only a place (O_PATH), or a directory: nothing is read and
nothing waits.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final

from agent.linux.syscalls import number

MAX_LINKS: Final = 40
"""Symlinks that the kernel follows in one path (MAXSYMLINKS, linux/namei.h)."""
_HOW: Final = struct.Struct("=QQQ")  # struct open_how: flags, mode, resolve
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH, _IN_ROOT = 0x02, 0x04, 0x08, 0x10
_PLACE: Final = os.O_PATH | os.O_CLOEXEC
_AS_ROOT: Final = _HOW.pack(_PLACE, 0, _IN_ROOT | _NO_MAGICLINKS)
_BELOW: Final = _HOW.pack(_PLACE, 0, _BENEATH | _NO_MAGICLINKS)
_DIRECTORY: Final = _HOW.pack(os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, 0, _NO_SYMLINKS)
_AT_FDCWD: Final = -100
_NUMBER: Final = number("openat2")

_call = ctypes.CDLL(None, use_errno=True)["syscall"]
_call.restype = ctypes.c_long
_call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)


def place_in_root(root: int, path: bytes) -> int:
    """What `path` is for a process whose root directory is `root`, as a descriptor (O_PATH), symlinks followed.

    Raises OSError with the kernel's errno: among others ELOOP for one of /proc's links to an object, EAGAIN where the
    tree changed meanwhile, ENOSYS and EPERM where the call is not to be had.
    """
    return _open(root, path, _AS_ROOT)


def place_below(directory: int, path: bytes) -> int:
    """The same for a path that stays below `directory`. Raises OSError as above; EXDEV where the path would leave it,
    by ``..``, a leading slash or a symlink."""
    return _open(directory, path, _BELOW)


def directory_without_links(path: bytes) -> int:
    """The directory at this absolute path, opened to be read. Raises OSError: NotADirectoryError where a symlink is on
    the way or at its end; NotImplementedError where the call is not to be had."""
    try:
        return _open(_AT_FDCWD, path, _DIRECTORY)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotADirectoryError(errno.ENOTDIR, "a symlink is on the way") from None
        if error.errno in (errno.ENOSYS, errno.EPERM):
            raise NotImplementedError("openat2") from None
        raise


def _open(directory: int, path: bytes, how: bytes) -> int:
    opened: int = _call(_NUMBER, directory, path, how, _HOW.size)
    if opened < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"openat2: {os.strerror(code)}")
    return opened
