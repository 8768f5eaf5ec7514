"""Who a task is, in one call: PIDFD_GET_INFO of linux/pidfd.h (Linux 6.13; threads by PIDFD_THREAD, Linux 6.9)."""

from __future__ import annotations

import os
import struct
from fcntl import ioctl
from typing import Final, NamedTuple

_GET_INFO: Final = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info of 64 bytes)
_THREAD: Final = os.O_EXCL  # PIDFD_THREAD
_CREDENTIALS: Final = 2  # PIDFD_INFO_CREDS; the ids are always given
_INFO: Final = struct.Struct("=QQ12I")  # mask, cgroupid, pid, tgid, ppid, ruid, and what is not needed here
_ASKED: Final = _INFO.pack(_CREDENTIALS, *[0] * 13)


class TaskInfo(NamedTuple):
    """Ids as the caller's pid namespace has them; `uid` is the real one."""

    tid: int
    tgid: int
    ppid: int
    uid: int


def task_info(tid: int) -> TaskInfo:
    """Of the live task `tid`. Raises OSError: ESRCH where there is none, EINVAL or ENOTTY where the kernel is older."""
    opened = os.pidfd_open(tid, _THREAD)
    try:
        info = bytearray(_ASKED)
        ioctl(opened, _GET_INFO, info, True)
    finally:
        os.close(opened)
    mask, _, pid, tgid, ppid, uid, *_ = _INFO.unpack(info)
    if not mask & _CREDENTIALS:
        raise OSError(22, "PIDFD_GET_INFO knows no credentials")
    return TaskInfo(pid, tgid, ppid, uid)
