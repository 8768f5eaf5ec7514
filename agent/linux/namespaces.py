"""Namespaces, the loopback interface inside a fresh one, id maps, and mounts.

Constants are from linux/sched.h, linux/mount.h and linux/sockios.h; behaviour from namespaces(7), user_namespaces(7),
mount(2) and netdevice(7). Everything raises OSError with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import socket
import struct

from agent.linux.syscalls import syscall

NEWNS = os.CLONE_NEWNS
NEWNET = os.CLONE_NEWNET
NEWUSER = os.CLONE_NEWUSER
NEWPID = os.CLONE_NEWPID
NEWIPC = os.CLONE_NEWIPC

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
_MOUNT_ATTR_RDONLY = 1
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_EMPTY_PATHS = 0x04 | 0x40  # MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_OCTAL = re.compile(rb"\\([0-7]{3})")
_STATX = struct.Struct("=8xQ40xQ192x")
"""struct statx (linux/stat.h), of it stx_attributes and stx_attributes_mask."""
_STATX_ATTR_MOUNT_ROOT = 0x2000
_IFREQ = struct.Struct("=16sh22x")  # struct ifreq with ifr_flags


def unshare(flags: int) -> None:
    """Leave the shared namespaces named by `flags`. NEWUSER needs a single-threaded process."""
    os.unshare(flags)


def setns(descriptor: int, kind: int = 0) -> None:
    """Enter the namespace behind `descriptor` (of /proc/PID/ns); `kind` 0 takes any."""
    os.setns(descriptor, kind)


def bring_loopback_up() -> None:
    """Set `lo` up in the present network namespace. gVisor's is up already and answers the ioctl with ENOTTY."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as control:
        try:
            answer = fcntl.ioctl(control, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0))
            _, flags = _IFREQ.unpack(answer)
            if not flags & _IFF_UP:
                fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))
        except OSError as error:
            if error.errno != errno.ENOTTY:
                raise


def make_mounts_private(path: str = "/") -> None:
    """Mounts made from here on stay in this mount namespace."""
    mount("none", path, None, MS_REC | MS_PRIVATE)


def bind(source: str, target: str, *, recursive: bool = False) -> None:
    """Let `source` appear at `target`, which exists and is of the same kind."""
    mount(source, target, None, MS_BIND | (MS_REC if recursive else 0))


def lay(source: int, target: int, *, recursive: bool, read_only: bool) -> None:
    """Let what `source` (O_PATH) is appear on what `target` is, both as they were opened, read-only from the first
    moment where asked for (open_tree(2), Linux 5.2; mount_setattr(2), 5.12). Raises OSError: ENOSYS or EPERM where the
    calls are not to be had; then nothing was changed."""
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    tree = syscall("open_tree", source, b"\0", _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | flags)
    try:
        if read_only:
            _set_read_only(tree)
        syscall("move_mount", tree, b"\0", target, b"\0", _MOVE_MOUNT_EMPTY_PATHS)
    finally:
        os.close(tree)


def make_read_only(place: int) -> None:
    """Make the mount that `place` (O_PATH) is the root of, and all below it, read-only (mount_setattr(2), Linux 5.12;
    one by one before that, and where the call is refused)."""
    try:
        _set_read_only(place)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        link = f"/proc/self/fd/{place}"
        for path in (link, *mount_points(os.readlink(link))):  # noqa: PTH115
            mount("none", path, None, MS_BIND | MS_REMOUNT | MS_RDONLY | _locked_flags(path))


def _set_read_only(place: int) -> None:
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)  # struct mount_attr, linux/mount.h
    syscall("mount_setattr", place, b"\0", _AT_EMPTY_PATH | _AT_RECURSIVE, attributes, len(attributes))


def is_mount_root(place: int) -> bool | None:
    """Is what is open here (O_PATH) the root of a mount? None where the kernel does not tell (statx(2): Linux 5.8).
    Raises OSError."""
    buffer = ctypes.create_string_buffer(_STATX.size)
    try:
        syscall("statx", place, b"\0", _AT_EMPTY_PATH, 0, buffer)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        return None
    attributes, told = _STATX.unpack(buffer.raw)
    return bool(attributes & _STATX_ATTR_MOUNT_ROOT) if told & _STATX_ATTR_MOUNT_ROOT else None


def mount_points(root: str) -> list[str]:
    """Mount points below `root`, each after those above it (proc_pid_mountinfo(5): the fifth field, with blanks, tabs,
    newlines and backslashes in octal)."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            fields = [line.split(b" ")[4] for line in file]
    except FileNotFoundError:
        return []
    points = [os.fsdecode(_OCTAL.sub(lambda found: bytes([int(found[1], 8)]), field)) for field in fields]
    return [point for point in dict.fromkeys(points) if point.startswith(f"{root.rstrip('/')}/")]


def tmpfs(target: str, *, mode: int = 0o755, size: str | None = None, read_only: bool = False) -> None:
    """An empty tmpfs over `target`, without devices and set-uid programs. `size` as in tmpfs(5)."""
    options = f"mode={mode:o}" + ("" if size is None else f",size={size}")
    mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV | (MS_RDONLY if read_only else 0), options)


def proc(target: str) -> None:
    """A /proc of the present process namespace at `target`: of the one that the caller is in, not of its children's."""
    mount("proc", target, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2)."""
    syscall(
        "mount",
        os.fsencode(source),
        os.fsencode(target),
        None if kind is None else kind.encode(),
        flags,
        None if options is None else options.encode(),
    )


def _locked_flags(path: str) -> int:
    """A remount in a user namespace may not clear what the mount above has set: carry it over."""
    held = os.statvfs(path).f_flag
    pairs = ((os.ST_NODEV, MS_NODEV), (os.ST_NOEXEC, MS_NOEXEC), (os.ST_NOATIME, 1024), (os.ST_RELATIME, 1 << 21))
    return sum(flag for seen, flag in pairs if held & seen)
