"""The supervisor's half of seccomp user notification: receive, judge validity, answer.

The numbers are those of linux/seccomp.h (``_IOWR('!', n, struct)``); behaviour from seccomp_unotify(2). Every buffer
handed to RECV is zeroed (else EINVAL). RECV ignores O_NONBLOCK: poll first. The end of all filtered tasks is POLLHUP;
ENOENT only says that one task vanished.
"""

from __future__ import annotations

import errno
import struct
from fcntl import ioctl
from typing import NamedTuple

RECV = 0xC0502100
SEND = 0xC0182101
ID_VALID = 0x40082102
ADDFD = 0x40182103
SET_FLAGS = 0x40082104

FLAG_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
FD_SYNC_WAKE_UP = 1  # SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, Linux 6.6
ADDFD_SETFD = 1  # SECCOMP_ADDFD_FLAG_SETFD
ADDFD_SEND = 2  # SECCOMP_ADDFD_FLAG_SEND

_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif: id, pid, flags, then seccomp_data
_RESPONSE = struct.Struct("=QqiI")  # struct seccomp_notif_resp: id, val, error, flags
_ADDFD = struct.Struct("=QIIII")  # struct seccomp_notif_addfd: id, flags, srcfd, newfd, newfd_flags
_ID = struct.Struct("=Q")


class Notification(NamedTuple):
    """One stopped system call. `tid` is a thread id in the receiver's pid namespace, 0 where it has none there."""

    id: int
    tid: int
    number: int
    arch: int
    instruction_pointer: int
    arguments: tuple[int, int, int, int, int, int]


SIZE = _NOTIFICATION.size
"""Bytes of a notification as the kernel writes it."""


def receive(listener: int, buffer: bytearray | memoryview | None = None) -> Notification | None:
    """The next stopped call; blocks where there is none. None: the task vanished, or a signal came.

    `buffer`: what the kernel writes into, zeroed in its first `SIZE` bytes. It writes there and not into a copy that is
    copied afterwards only if it is longer than 1,024 bytes (fcntl.ioctl).
    """
    buffer = bytearray(SIZE) if buffer is None else buffer
    try:
        ioctl(listener, RECV, buffer, True)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    return parse(buffer)


def parse(raw: bytes | bytearray | memoryview) -> Notification:
    """The notification at the start of what the kernel wrote."""
    ident, tid, _flags, number, arch, pointer, a, b, c, d, e, f = _NOTIFICATION.unpack_from(raw)
    return Notification(ident, tid, number, arch, pointer, (a, b, c, d, e, f))


def is_valid(listener: int, ident: int) -> bool:
    """True while the notification waits for an answer: what was opened under /proc/PID before belongs to that task."""
    try:
        ioctl(listener, ID_VALID, _ID.pack(ident))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def send_errno(listener: int, ident: int, error: int) -> bool:
    """Let the call fail with `error` (positive). False: the task vanished or was answered already."""
    return _send(listener, _RESPONSE.pack(ident, 0, -error, 0))


def send_value(listener: int, ident: int, value: int) -> bool:
    """Let the call return `value` without running it. False as for `send_errno`."""
    return _send(listener, _RESPONSE.pack(ident, value, 0, 0))


def send_continue(listener: int, ident: int) -> bool:
    """Let the kernel run the call, reading its arguments again: what they point to may have changed. False as above."""
    return _send(listener, _RESPONSE.pack(ident, 0, 0, FLAG_CONTINUE))


def add_fd(
    listener: int,
    ident: int,
    source: int,
    *,
    replace: int | None = None,
    close_on_exec: bool = True,
    answer: bool = False,
) -> int:
    """Put a copy of our descriptor `source` into the task, at `replace` where given. Returns its number there.

    `answer`: the stopped call returns that number, in the same step (Linux 5.14). Raises OSError (ENOENT: the task
    vanished; EMFILE: its descriptor limit; EINVAL: the kernel knows no such flag).
    """
    flags = (0 if replace is None else ADDFD_SETFD) | (ADDFD_SEND if answer else 0)
    cloexec = 0o2000000 if close_on_exec else 0  # O_CLOEXEC, asm-generic/fcntl.h
    # A mutable buffer, so that the ioctl's own result comes back and not the buffer.
    request = bytearray(_ADDFD.pack(ident, flags, source, replace or 0, cloexec))
    placed: int = ioctl(listener, ADDFD, request, True)
    return placed


def prefer_sync_wake_up(listener: int) -> bool:
    """Hint that the supervisor answers at once, on the same CPU. False where the kernel is older than 6.6."""
    try:
        ioctl(listener, SET_FLAGS, FD_SYNC_WAKE_UP)
    except OSError:
        return False
    return True


def _send(listener: int, response: bytes) -> bool:
    try:
        ioctl(listener, SEND, response)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINPROGRESS):
            return False
        raise
    return True
