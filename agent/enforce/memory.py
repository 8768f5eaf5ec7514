"""Reading a stopped task: its ids, its memory, its directories.

Everything here goes through one open /proc/TID, where TID may be reused the moment the task dies: whoever opens a
`Task` checks that its notification is still valid afterwards (seccomp_unotify(2)), and only then believes what it
reads. Rules: the memory belongs to an adversary and may change while it is read; every length is bounded.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence, Set
from types import TracebackType
from typing import Self

from agent.linux.pidfd import task_info
from agent.values import dataclass

MAX_ARGUMENTS = 1 << 17
"""Words of one argv that are looked at; so many need less than the time that a decision has."""
MAX_ARGUMENT_BYTES = 2 << 20
"""The kernel's own bound with the usual 8 MiB stack limit (execve(2): a quarter of it)."""
MAX_STRING = 1 << 17
"""MAX_ARG_STRLEN of linux/binfmts.h: the kernel takes no longer argument."""
MAX_PATH = 4096

_PAGE = 4096
_CACHED_PAGES = 64
_POINTERS_AT_ONCE = 32
_O_READ = os.O_RDONLY | os.O_CLOEXEC
_O_PATH = os.O_PATH | os.O_CLOEXEC


class Unreadable(Exception):
    """The task's memory cannot be read, or holds more than the supervisor reads: what would run is not known."""


class TooLong(Unreadable):
    """A string is longer than the kernel takes there."""


class Memory:
    """Reads strings and pointers of another process through an open /proc/PID/mem (proc_pid_mem(5))."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        self._pages: dict[int, bytes] = {}

    def string(self, address: int, limit: int) -> bytes:
        """The bytes at `address` up to a NUL. Raises TooLong past `limit` bytes, Unreadable where nothing is mapped."""
        page, offset = self._at(address)
        end = page.find(b"\0", offset)
        if 0 <= end - offset <= limit:
            return page[offset:end]
        parts: list[bytes] = []
        length = 0
        while length <= limit:
            page, offset = self._at(address + length)
            end = page.find(b"\0", offset)
            parts.append(page[offset:] if end < 0 else page[offset:end])
            length += len(parts[-1])
            if end >= 0:
                break
        if length > limit:
            raise TooLong(f"a string is longer than {limit} bytes")
        return b"".join(parts)

    def starting(self, addresses: Sequence[int], heads: Set[bytes], length: int) -> list[int]:
        """Those of `addresses` where the first `length` bytes are one of `heads`. Raises Unreadable."""
        found: list[int] = []
        base, page = -1, b""
        for address in addresses:
            offset = address % _PAGE
            if address - offset != base:
                base = address - offset
                page, _ = self._at(address)
            head = page[offset : offset + length]
            if len(head) < length:  # at the end of a page
                head = self.string(address, MAX_STRING)[:length]
            if head in heads:
                found.append(address)
        return found

    def pointers(self, address: int, limit: int) -> list[int]:
        """The NULL-terminated array of 64-bit pointers at `address`. Raises Unreadable past `limit` entries."""
        found: list[int] = []
        while len(found) <= limit:
            page, offset = self._at(address + 8 * len(found))
            usable = min((len(page) - offset) // 8, _POINTERS_AT_ONCE)
            if usable == 0:  # one pointer across the end of a page
                usable, page, offset = 1, self._eight(address + 8 * len(found)), 0
            batch = struct.unpack_from(f"={usable}Q", page, offset)
            if 0 in batch:
                found.extend(batch[: batch.index(0)])
                break
            found.extend(batch)
        if len(found) > limit:
            raise Unreadable(f"more than {limit} arguments")
        return found

    def exactly(self, address: int, length: int) -> bytes:
        """The `length` bytes at `address`, each read once. Raises Unreadable where not all of them are mapped."""
        parts: list[bytes] = []
        while length > 0:
            page, offset = self._at(address)
            parts.append(page[offset : offset + length])
            length -= len(parts[-1])
            address += len(parts[-1])
        return b"".join(parts)

    def vector(self, address: int) -> tuple[bytes, ...]:
        """The strings of an argv array. Raises Unreadable past the bounds of this module."""
        if address == 0:
            return ()
        strings: list[bytes] = []
        total = 0
        for pointer in self.pointers(address, MAX_ARGUMENTS):
            strings.append(self.string(pointer, MAX_STRING))
            total += len(strings[-1]) + 9
            if total > MAX_ARGUMENT_BYTES:
                raise Unreadable(f"the arguments are longer than {MAX_ARGUMENT_BYTES} bytes")
        return tuple(strings)

    def _at(self, address: int) -> tuple[bytes, int]:
        offset = address % _PAGE
        base = address - offset
        page = self._pages.get(base)
        if page is None:
            try:
                page = os.pread(self._fd, _PAGE, base)
            except (OSError, OverflowError) as error:
                raise Unreadable(f"no readable memory at {address:#x}") from error
            if len(self._pages) >= _CACHED_PAGES:
                self._pages.clear()
            self._pages[base] = page
        if offset >= len(page):
            raise Unreadable(f"no readable memory at {address:#x}")
        return page, offset

    def _eight(self, address: int) -> bytes:
        return b"".join(page[offset : offset + 1] for page, offset in (self._at(address + i) for i in range(8)))


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the task is: `tgid` is the process, `uid` its real user."""

    tid: int
    tgid: int
    ppid: int
    uid: int


class Task:
    """A stopped task, looked at through one open /proc/TID: what is found there later is the same task, or nothing
    (ESRCH), whoever has its number by then. Use as a context manager.

    Raises ProcessLookupError where it is gone, Unreadable where the kernel does not let us look.
    """

    def __init__(self, tid: int) -> None:
        self.tid = tid
        self._open: list[int] = []
        self._root = self._cwd = -1
        self.names = 0
        """Names that were walked one by one for it (agent.enforce.walk)."""
        self._identity: Identity | None = None
        try:
            self._proc = self._keep(os.open(f"/proc/{tid}", _O_PATH))
            self.memory = Memory(self._keep(os.open("mem", _O_READ, dir_fd=self._proc)))
        except (FileNotFoundError, ProcessLookupError) as error:
            self.close()
            raise ProcessLookupError(f"task {tid} is gone") from error
        except PermissionError as error:
            self.close()
            raise Unreadable("the process does not let its memory be read (PR_SET_DUMPABLE 0)") from error

    @property
    def root(self) -> int:
        """Its root directory, open as a place. Raises ProcessLookupError and Unreadable, as the following do."""
        if self._root < 0:
            self._root = self._keep(self._inside("root"))
        return self._root

    @property
    def cwd(self) -> int:
        """Its working directory, the same one whenever it is asked for."""
        if self._cwd < 0:
            self._cwd = self._keep(self._inside("cwd"))
        return self._cwd

    @property
    def tgid(self) -> int:
        """The process it belongs to."""
        return self.identity.tgid

    @property
    def identity(self) -> Identity:
        """Who it is. Raises ProcessLookupError where it is gone."""
        if self._identity is None:
            try:
                self._identity = _identity(self.tid, self._proc)
            except (FileNotFoundError, ProcessLookupError) as error:
                raise ProcessLookupError(f"task {self.tid} is gone") from error
        return self._identity

    def own_ids(self) -> tuple[int, int]:
        """Task and process id as the task itself has them, in its own process namespace; zeros where the kernel does
        not say (proc_pid_status(5), NSpid and NStgid: Linux 4.1). Raises OSError where it is gone."""
        ids = dict.fromkeys((b"NSpid", b"NStgid"), 0)
        for line in _read("status", self._proc).splitlines():
            key, _, value = line.partition(b":")
            if key in ids:
                ids[key] = int(value.split()[-1])
        return ids[b"NSpid"], ids[b"NStgid"]

    def directory(self, descriptor: int) -> int:
        """A new descriptor for what the task has open as `descriptor`. Raises OSError (ENOENT: nothing)."""
        return os.open(f"fd/{descriptor}", _O_PATH, dir_fd=self._proc)

    def image(self) -> tuple[str, os.stat_result]:
        """The program that it runs now: its path as the kernel names it, and the file. Raises OSError."""
        return os.readlink("exe", dir_fd=self._proc), os.stat("exe", dir_fd=self._proc)

    def umask(self) -> int:
        """The task's file mode creation mask (proc_pid_status(5), Linux 4.7). Raises OSError where it is gone."""
        for line in _read("status", self._proc).splitlines():
            if line.startswith(b"Umask:"):
                return int(line[6:], 8)
        return 0o077

    def cwd_path(self) -> str:
        return path_of(self.cwd)

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop())

    def _inside(self, name: str) -> int:
        try:
            return os.open(name, _O_PATH, dir_fd=self._proc)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessLookupError(f"task {self.tid} is gone") from error
        except PermissionError as error:
            raise Unreadable("the process does not let itself be looked at (PR_SET_DUMPABLE 0)") from error

    def _keep(self, descriptor: int) -> int:
        self._open.append(descriptor)
        return descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def path_of(descriptor: int) -> str:
    """The path of an open file, symlinks resolved; ends in `` (deleted)`` where it has none any more."""
    return readable(os.readlink(f"/proc/self/fd/{descriptor}".encode()))  # noqa: PTH115 - bytes, of a descriptor


def readable(raw: bytes) -> str:
    """Text for decisions and records: bytes that are not UTF-8 as ``\\xNN`` (the audit log's spelling)."""
    return raw.decode("utf-8", "backslashreplace")


def _read(name: str, directory: int) -> bytes:
    descriptor = os.open(name, _O_READ, dir_fd=directory)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def identity_of(tid: int) -> Identity:
    """Who the task of this number is now. Raises OSError where there is none."""
    directory = os.open(f"/proc/{tid}", _O_PATH)
    try:
        return _identity(tid, directory)
    finally:
        os.close(directory)


def _identity(tid: int, directory: int) -> Identity:
    """Of the task whose /proc/TID is open as `directory`."""
    try:
        info = task_info(tid)
        os.stat("status", dir_fd=directory)  # still the same task, not another of its number
    except (FileNotFoundError, ProcessLookupError):
        raise
    except OSError:  # a kernel without the call
        return _by_status(tid, directory)
    return Identity(tid, info.tgid, info.ppid, info.uid)


def _by_status(tid: int, directory: int) -> Identity:
    tgid = ppid = uid = -1
    text = _read("status", directory)  # proc_pid_status(5); the name in the first line has its newlines escaped
    for line in text.splitlines():
        if line.startswith(b"Tgid:"):
            tgid = int(line[5:])
        elif line.startswith(b"PPid:"):
            ppid = int(line[5:])
        elif line.startswith(b"Uid:"):
            uid = int(line[4:].split()[0])
            break
    return Identity(tid, tgid, ppid, uid)
