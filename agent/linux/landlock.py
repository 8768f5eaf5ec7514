"""Landlock: a ruleset that the thread puts on itself and can never widen again.

Rules: what a ruleset handles is denied unless a rule grants it; rights the running kernel does not know are left out
here (`Ruleset` asks the ABI), never silently by a caller. Constants are from include/uapi/linux/landlock.h up to ABI 7
(Linux 6.15); behaviour from landlock(7).
"""

from __future__ import annotations

import os
import stat
import struct
from enum import IntFlag
from types import TracebackType
from typing import Self

from agent.linux.syscalls import syscall

_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_RULE_NET_PORT = 2


class Fs(IntFlag):
    """LANDLOCK_ACCESS_FS_*. ABI 1 unless said."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13  # ABI 2; before it, linking and renaming across directories is always denied
    TRUNCATE = 1 << 14  # ABI 3; before it, truncating is never denied
    IOCTL_DEV = 1 << 15  # ABI 5


class Net(IntFlag):
    """LANDLOCK_ACCESS_NET_*, ABI 4. TCP only, ports only: not UDP, not MPTCP, not addresses, not TCP Fast Open."""

    BIND_TCP = 1 << 0
    CONNECT_TCP = 1 << 1


class Scope(IntFlag):
    """LANDLOCK_SCOPE_*, ABI 6: what may not reach outside the domain."""

    ABSTRACT_UNIX_SOCKET = 1 << 0
    SIGNAL = 1 << 1


NO_NET = Net(0)
NO_SCOPE = Scope(0)

READ = Fs.EXECUTE | Fs.READ_FILE | Fs.READ_DIR
"""Reading, which includes executing."""

WRITE = (
    READ
    | Fs.WRITE_FILE
    | Fs.REMOVE_DIR
    | Fs.REMOVE_FILE
    | Fs.MAKE_DIR
    | Fs.MAKE_REG
    | Fs.MAKE_SOCK
    | Fs.MAKE_FIFO
    | Fs.MAKE_SYM
    | Fs.REFER
    | Fs.TRUNCATE
)
"""Writing, which includes reading. Not: device nodes, and ioctls on devices."""

DEVICE = Fs.READ_FILE | Fs.WRITE_FILE | Fs.TRUNCATE | Fs.IOCTL_DEV
"""What /dev/null, /dev/tty, /dev/ptmx and the pts directory need (TRUNCATE: ``> /dev/null``)."""

_ON_FILES = Fs.EXECUTE | Fs.WRITE_FILE | Fs.READ_FILE | Fs.TRUNCATE | Fs.IOCTL_DEV


def abi() -> int:
    """The kernel's Landlock ABI, 0 where there is none (not built, not booted with it, or refused by a filter)."""
    try:
        return syscall("landlock_create_ruleset", None, 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def fs_rights(version: int) -> Fs:
    """Every file right that this ABI knows: what a ruleset should handle."""
    rights = Fs(0)
    if version >= 1:
        rights = Fs(Fs.REFER - 1)
    if version >= 2:
        rights |= Fs.REFER
    if version >= 3:
        rights |= Fs.TRUNCATE
    if version >= 5:
        rights |= Fs.IOCTL_DEV
    return rights


def net_rights(version: int) -> Net:
    return Net.BIND_TCP | Net.CONNECT_TCP if version >= 4 else Net(0)


def scopes(version: int) -> Scope:
    return Scope.ABSTRACT_UNIX_SOCKET | Scope.SIGNAL if version >= 6 else Scope(0)


class Ruleset:
    """A ruleset being built. Handles what is asked for as far as the kernel's ABI knows it (`fs`, `net`, `scope`).

    Raises OSError where the kernel has no Landlock or refuses. Use as a context manager, or `close`.
    """

    def __init__(self, *, fs: Fs | None = None, net: Net = NO_NET, scope: Scope = NO_SCOPE) -> None:
        version = abi()
        self.abi = version
        self.fs = fs_rights(version) if fs is None else fs & fs_rights(version)
        self.net = net & net_rights(version)
        self.scope = scope & scopes(version)
        attributes = struct.pack("=QQQ", self.fs, self.net, self.scope)
        # An older kernel takes only its own size of the structure, and rejects set bits beyond it.
        size = 8 if version < 4 else 16 if version < 6 else 24
        self._fd = syscall("landlock_create_ruleset", attributes[:size], size, 0)

    def allow_path(self, path: str | int, rights: Fs) -> None:
        """Grant `rights` (as far as handled) at `path` and below; a descriptor may stand for the path.

        Rights that only directories have are left out on anything else. Raises OSError (ENOENT: nothing there).
        """
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC) if isinstance(path, str) else path
        try:
            allowed = rights & self.fs
            if not stat.S_ISDIR(os.fstat(opened).st_mode):
                allowed &= _ON_FILES
            if allowed:
                self._add(_RULE_PATH_BENEATH, struct.pack("=Qi", allowed, opened))
        finally:
            if isinstance(path, str):
                os.close(opened)

    def allow_tcp_connect(self, port: int) -> None:
        """Grant connecting to `port` at any address. Nothing to grant where the ABI does not handle it."""
        if self.net & Net.CONNECT_TCP:
            self._add(_RULE_NET_PORT, struct.pack("=QQ", Net.CONNECT_TCP, port))

    def restrict_self(self) -> None:
        """Put it on the calling thread and all it starts. Needs no_new_privs or CAP_SYS_ADMIN (EPERM without)."""
        syscall("landlock_restrict_self", self._fd, 0)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, kind: int, rule: bytes) -> None:
        syscall("landlock_add_rule", self._fd, kind, rule, 0)
