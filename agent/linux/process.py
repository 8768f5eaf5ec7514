"""What a process may set about itself: privileges, dumpability, parent-death signal, file-system identity; and whether
another one is ending.

Numbers are from linux/prctl.h, linux/capability.h and linux/sched.h; behaviour from prctl(2), capabilities(7),
setfsuid(2), close_range(2) and proc_pid_stat(5). Everything raises OSError with the kernel's errno, but where it says
otherwise.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Collection
from enum import IntEnum

from agent.linux.syscalls import syscall

PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39

CLOSE_RANGE_CLOEXEC = 1 << 2
CAPABILITY_VERSION_3 = 0x20080522
LAST_DESCRIPTOR = 0xFFFFFFFF
_PF_EXITING = 0x4
_EINVAL = 22
_ENOSYS = 38
_KEEP = 0xFFFFFFFF  # setfsuid(-1) changes nothing and returns the present id

_LIBC = ctypes.PyDLL(None)  # these two never wait, so the interpreter's lock is kept
_setfsuid, _setfsgid = _LIBC.setfsuid, _LIBC.setfsgid
for _call in (_setfsuid, _setfsgid):
    _call.argtypes, _call.restype = (ctypes.c_uint,), ctypes.c_uint


class Capability(IntEnum):
    """The capabilities the agent asks about (linux/capability.h)."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13
    SYS_CHROOT = 18
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    SYS_RESOURCE = 24


def set_no_new_privs() -> None:
    """No exec of this thread or its descendants gains privileges; needed before a filter or a Landlock ruleset."""
    syscall("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def no_new_privs() -> bool:
    return syscall("prctl", PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1


def set_dumpable(dumpable: bool) -> None:
    """Whether processes of the same user may read this one's memory. Changing the uid clears it, exec sets it."""
    syscall("prctl", PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)


def dumpable() -> bool:
    return syscall("prctl", PR_GET_DUMPABLE, 0, 0, 0, 0) == 1


def set_pdeathsig(signal: int) -> None:
    """Send `signal` here when the *thread* that made this process ends. A change of uid clears it: set it after."""
    syscall("prctl", PR_SET_PDEATHSIG, signal, 0, 0, 0)


def set_child_subreaper() -> None:
    """Orphans among the descendants become children of this process."""
    syscall("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def drop_capability_bounding_set() -> None:
    """Give up every capability for all later execs. Needs CAP_SETPCAP (EPERM without)."""
    for capability in range(64):
        try:
            present = syscall("prctl", PR_CAPBSET_READ, capability, 0, 0, 0)
        except OSError as error:
            if error.errno == _EINVAL:  # past the kernel's last capability
                return
            raise
        if present:
            syscall("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)


def capabilities() -> frozenset[int]:
    """The effective set of the calling thread, as numbers of linux/capability.h (see `Capability`)."""
    data = ctypes.create_string_buffer(24)
    syscall("capget", _capability_header(), data)
    low, _, _, high, _, _ = struct.unpack("=6I", data.raw)
    bits = low | high << 32
    return frozenset(n for n in range(64) if bits >> n & 1)


def keep_capabilities(kept: Collection[Capability]) -> None:
    """Empty the three sets of the calling thread but for what of `kept` is in them already; none is inherited."""
    mask = sum(1 << capability for capability in kept if capability in capabilities())
    low, high = mask & 0xFFFFFFFF, mask >> 32
    syscall("capset", _capability_header(), struct.pack("=6I", low, low, 0, high, high, 0))


def drop_capabilities() -> None:
    """Empty the effective, permitted and inheritable sets of the calling thread."""
    syscall("capset", _capability_header(), struct.pack("=6I", 0, 0, 0, 0, 0, 0))


class FilesystemIdentity:
    """A context in which the calling thread's file accesses are judged as another user's; reusable, not nestable.

    Both None: nothing changes. Entering raises PermissionError where the kernel refuses (CAP_SETUID, CAP_SETGID).
    """

    def __init__(self, uid: int | None, gid: int | None) -> None:
        self._uid = uid
        self._gid = gid
        self._own_uid = os.geteuid()
        self._own_gid = os.getegid()

    def __enter__(self) -> None:
        if self._gid is not None:
            _setfsgid(self._gid)  # refused together with the uid, which is read back
        if self._uid is not None:
            _setfsuid(self._uid)
            if (present := _setfsuid(_KEEP)) != self._uid:
                raise PermissionError(1, f"setfsuid: still {present}, not {self._uid}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._uid is not None:
            _setfsuid(self._own_uid)  # one of the thread's own ids: never refused (setfsuid(2))
        if self._gid is not None:
            _setfsgid(self._own_gid)


def session_eyes(uid: int | None, gid: int | None) -> FilesystemIdentity:
    """That identity where threads can take one on; where the kernel has no such call (gVisor), what changes nothing."""
    try:
        syscall("setfsuid", _KEEP)
    except OSError as error:
        if error.errno != _ENOSYS:
            raise
        return FilesystemIdentity(None, None)
    return FilesystemIdentity(uid, gid)


def ending(pid: int) -> bool:
    """Has the process begun to end, or ended? It may have closed some descriptors then and others not yet: to close
    those that watch files can take long. False where the kernel does not tell (gVisor). Never raises."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, *fields = file.read().rpartition(b")")[2].split()
        return state in (b"Z", b"X") or bool(int(fields[5]) & _PF_EXITING)
    except (FileNotFoundError, ProcessLookupError):
        return True
    except (OSError, ValueError, IndexError):
        return False


def close_range(first: int, last: int = LAST_DESCRIPTOR, *, cloexec: bool = False) -> None:
    """Close descriptors `first` to `last` inclusive, or only mark them close-on-exec."""
    try:
        syscall("close_range", first, last, CLOSE_RANGE_CLOEXEC if cloexec else 0)
    except OSError:  # before Linux 5.9 and on old gVisor: one by one
        for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - lean import in the launcher
            descriptor = int(entry)
            if first <= descriptor <= last:
                _close_one(descriptor, cloexec)


def _close_one(descriptor: int, cloexec: bool) -> None:
    try:
        if cloexec:
            os.set_inheritable(descriptor, False)
        else:
            os.close(descriptor)
    except OSError:
        return  # the listing's own descriptor is gone already


def _capability_header() -> bytes:
    return struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
