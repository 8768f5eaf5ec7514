"""Being asked before files are opened (fanotify_init(2), fanotify_mark(2), fanotify(7)).

The numbers and structures are those of linux/fanotify.h. The kernel asks after file permissions and the security
modules have agreed, and only of what is marked: opens of anything else cost nothing more. An open that is refused fails
with EPERM (FAN_DENY_ERRNO of Linux 6.14 knows no EACCES). The process waits until it is answered, or killed; when
nobody holds the group any more, all that wait and all later ones go on. An open with O_PATH asks nobody.
"""

from __future__ import annotations

import os
import struct
from typing import Final, NamedTuple

from agent.linux.syscalls import syscall

_FAN_CLOEXEC: Final = 0x1
_FAN_NONBLOCK: Final = 0x2
_FAN_CLASS_CONTENT: Final = 0x4
_FAN_UNLIMITED_QUEUE: Final = 0x10  # an event that does not fit the queue would be an open that goes on
_FAN_MARK_ADD: Final = 0x1
_FAN_MARK_FILESYSTEM: Final = 0x100
_FAN_OPEN_PERM: Final = 0x10000
_FAN_ONDIR: Final = 0x40000000
_FAN_DENY: Final = 0x2
_VERSION: Final = 3  # FANOTIFY_METADATA_VERSION
_EVENT: Final = struct.Struct("=IBBHQii")  # struct fanotify_event_metadata
_RESPONSE: Final = struct.Struct("=iI")  # struct fanotify_response


class Opening(NamedTuple):
    """An open that waits. `file`: what is opened, as a descriptor of the reader's, to be closed by it; also how the
    event is named in the answer. `pid`: of the process, in the reader's process namespace, 0 where it has none."""

    file: int
    pid: int


def group() -> int:
    """A new group, close-on-exec and without blocking reads. Raises OSError (EPERM without CAP_SYS_ADMIN, which has to
    be that of the first user namespace; ENOSYS, EINVAL where the kernel has no such thing)."""
    flags = _FAN_CLASS_CONTENT | _FAN_CLOEXEC | _FAN_NONBLOCK | _FAN_UNLIMITED_QUEUE
    return syscall("fanotify_init", flags, os.O_RDONLY | os.O_LARGEFILE | os.O_CLOEXEC)


def ask_before_opens(asked: int, path: str) -> None:
    """From here on the group `asked` is asked before any file or directory of the file system that `path` lies on is
    opened. Raises OSError (EINVAL: a kernel without CONFIG_FANOTIFY_ACCESS_PERMISSIONS)."""
    mask = _FAN_OPEN_PERM | _FAN_ONDIR
    syscall("fanotify_mark", asked, _FAN_MARK_ADD | _FAN_MARK_FILESYSTEM, mask, -1, os.fsencode(path))


def receive(asked: int) -> Opening | None:
    """The next open that waits, None where there is none. Raises OSError, also where the file could not be opened for
    the reader (EMFILE, …): the kernel has refused that open then."""
    try:
        raw = os.read(asked, _EVENT.size)  # room for one: no other is taken
    except BlockingIOError:
        return None
    _, version, _, _, _, file, pid = _EVENT.unpack(raw)
    if version != _VERSION or file < 0:
        raise OSError(f"an event of version {version}, file {file}")
    return Opening(file, pid)


def refuse(asked: int, file: int) -> bool:
    """Let the open that is named by this number fail. False where none of that name was taken and not answered; one
    whose process was killed counts. The number need not be open any more, nor be this process's."""
    try:
        os.write(asked, _RESPONSE.pack(file, _FAN_DENY))
    except FileNotFoundError:
        return False
    return True
