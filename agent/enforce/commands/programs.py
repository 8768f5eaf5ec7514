"""Which of the machine's programs a file is, whatever it is called and wherever it lies.

Rules kept here:
- The machine's programs are the regular files in the directories of the standard PATH, and the dynamic loaders. They
  are looked up by (device, inode); a file that is none of them is compared by its build id (elf(5), a note of type
  NT_GNU_BUILD_ID, which survives appended bytes and stripped symbols), then by size and SHA-256.
- What is found only adds names under which an exec is decided; nothing here takes one away.
- A program at its own path that the session cannot change costs one look-up. Others that it cannot change are
  remembered by device, inode, size and both times; what it can change is looked at each time, since a file's times do
  not show every change (a shared mapping on a tmpfs leaves none).
- Files above `MAX_HASHED` bytes are not hashed: they go by inode and build id.

Not seen: a program that the machine does not have itself, and one that was changed with its build id.
"""

from __future__ import annotations

import glob
import hashlib
import os
import stat
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from agent.values import dataclass

DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
LOADERS = ("/lib*/ld-*.so*", "/lib/*/ld-*.so*", "/usr/lib*/ld-*.so*")
MAX_HASHED = 64 << 20

_REMEMBERED = 4096
_MOST_LINKS = 40  # path_resolution(7)
_HEAD = 4096
_PROGRAM_HEADERS = 32
_PT_NOTE = 4
_NT_GNU_BUILD_ID = 3  # elf.h
_O_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK

type _Key = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Program:
    """One of the machine's programs: `path` (the first of `names`, which are all its paths), bytes, and identity."""

    path: str
    names: tuple[str, ...]
    size: int
    device: int
    inode: int


class Programs:
    """The machine's programs, read when they are first needed and again when a directory changes.

    `session_uid`: who must not be able to change a program for its path to be believed; None: whoever runs this. For
    one thread only.
    """

    def __init__(
        self,
        session_uid: int | None = None,
        *,
        directories: Sequence[str] = DIRECTORIES,
        loaders: Sequence[str] = LOADERS,
    ) -> None:
        self._uid = os.getuid() if session_uid is None else session_uid
        self._directories = tuple(directories)
        self._loaders = tuple(loaders)
        self._table: dict[tuple[int, int], Program] = {}
        self._by_size: dict[int, list[Program]] = {}
        self._by_build: dict[bytes, list[Program]] | None = None
        self._digests: dict[Program, bytes | None] = {}
        self._names: OrderedDict[_Key, tuple[str, ...]] = OrderedDict()
        self._state: tuple[int, ...] = ()

    def prepare(self) -> None:
        """Read the machine's programs now (ten milliseconds, or some hundred in gVisor) and not at the first exec."""
        if not self._state:
            self._read()

    def names(self, path: str, status: os.stat_result, descriptor: int) -> tuple[str, ...]:
        """The other names of the file at `path` that is open for reading as `descriptor`: paths of the machine's own
        programs that are the same file, hold the same bytes, or were built as the same program."""
        self.prepare()
        known = self._table.get((status.st_dev, status.st_ino))
        if known is not None and path in known.names and not self.changeable(status):
            return ()
        found = self._seen(status, descriptor)
        own = path.removesuffix(" (deleted)").rpartition("/")[2]
        return tuple(name for name in found if name.rpartition("/")[2] != own)

    def _seen(self, status: os.stat_result, descriptor: int) -> tuple[str, ...]:
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        found = self._names.get(key)
        if found is not None:
            return found
        if self._times() != self._state:
            self._read()
        found = self._identify(status, descriptor)
        if not self.changeable(status):
            self._names[key] = found
            if len(self._names) > _REMEMBERED:
                self._names.popitem(last=False)
        return found

    def changeable(self, status: os.stat_result) -> bool:
        """Could the session have written this file? (An access control list shows in the group's bits, acl(5).)"""
        return status.st_uid == self._uid or bool(status.st_mode & (stat.S_IWOTH | stat.S_IWGRP))

    def _identify(self, status: os.stat_result, descriptor: int) -> tuple[str, ...]:
        found: list[Program] = []
        known = self._table.get((status.st_dev, status.st_ino))
        if known is not None:
            found.append(known)
        build = build_id(os.pread(descriptor, _HEAD, 0))
        found += self._of_build(build) if build is not None else []
        same_size = self._by_size.get(status.st_size, [])
        if not found and same_size and status.st_size <= MAX_HASHED:
            digest = _digest(descriptor)
            found += [program for program in same_size if self._digest_of(program) == digest]
        return tuple(dict.fromkeys(name for program in found for name in program.names))

    def _digest_of(self, program: Program) -> bytes | None:
        if program not in self._digests:
            self._digests[program] = _of_file(program, _digest)
        return self._digests[program]

    def _of_build(self, build: bytes) -> list[Program]:
        if self._by_build is None:
            self._by_build = {}
            for program in self._table.values():
                head = _of_file(program, lambda opened: os.pread(opened, _HEAD, 0))
                own = build_id(head) if head is not None else None
                if own is not None:
                    self._by_build.setdefault(own, []).append(program)
        return self._by_build.get(build, [])

    def _times(self) -> tuple[int, ...]:
        return tuple(_modified(directory) for directory in self._directories) or (0,)

    def _read(self) -> None:
        self._state = self._times()
        paths: dict[tuple[int, int], list[str]] = {}
        sizes: dict[tuple[int, int], int] = {}
        for path, status in self._files():
            identity = (status.st_dev, status.st_ino)
            if path not in paths.setdefault(identity, []):
                paths[identity].append(path)
            sizes[identity] = status.st_size
        self._table = {
            identity: Program(names[0], tuple(names), sizes[identity], *identity) for identity, names in paths.items()
        }
        self._by_size = {}
        for program in self._table.values():
            self._by_size.setdefault(program.size, []).append(program)
        self._by_build = None
        self._digests.clear()
        self._names.clear()

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        resolved = cache(os.path.realpath)
        for directory in dict.fromkeys(os.path.realpath(directory) for directory in self._directories):
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if entry.is_file(follow_symlinks=False):
                            yield entry.path, entry.stat(follow_symlinks=False)
                        elif entry.is_symlink():
                            yield from _target(entry.path, resolved)
            except OSError:
                continue
        for pattern in self._loaders:
            for path in glob.glob(pattern):  # noqa: PTH207
                yield from _target(path, resolved)


def build_id(head: bytes) -> bytes | None:
    """The build id of the 64-bit ELF file that starts with `head`, None where it has none there."""
    if head[:5] != b"\x7fELF\x02" or len(head) < 64:
        return None
    order = "<" if head[5] == 1 else ">"
    (start,) = struct.unpack_from(f"{order}Q", head, 32)
    size, count = struct.unpack_from(f"{order}HH", head, 54)
    for index in range(min(count, _PROGRAM_HEADERS)):
        at = start + index * size
        if at + 56 > len(head):
            break
        kind, _, offset, _, _, length = struct.unpack_from(f"{order}IIQQQQ", head, at)
        if kind == _PT_NOTE:
            found = _noted(head[offset : offset + length], order)
            if found is not None:
                return found
    return None


def _noted(notes: bytes, order: str) -> bytes | None:
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from(f"{order}III", notes, at)
        name = at + 12
        value = name + -(-name_size // 4) * 4
        if kind == _NT_GNU_BUILD_ID and notes[name : name + name_size] == b"GNU\0" and size >= 8:
            found = notes[value : value + size]
            return found if len(found) == size else None
        at = value + -(-size // 4) * 4
    return None


def _target(path: str, resolved: Callable[[str], str]) -> Iterator[tuple[str, os.stat_result]]:
    """What a symlink leads to, under its own path: ``awk`` is mawk, not whatever else is called so. `resolved`:
    os.path.realpath, which remembers directories: most links of a machine lead to a few of them."""
    try:
        for _ in range(_MOST_LINKS):
            directory, name = os.path.split(path)
            named = name not in ("", ".", "..")
            path = os.path.join(resolved(directory), name) if named else resolved(path)  # noqa: PTH118
            status = os.lstat(path)
            if not stat.S_ISLNK(status.st_mode):
                break
            path = os.path.join(os.path.dirname(path), os.readlink(path))  # noqa: PTH115, PTH118, PTH120
        else:
            return
    except OSError:
        return
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o111:
        yield path, status


def _modified(directory: str) -> int:
    try:
        return os.stat(directory).st_mtime_ns  # noqa: PTH116
    except OSError:
        return -1


def _of_file[T](program: Program, read: Callable[[int], T]) -> T | None:
    """What `read` says of a program, None where it can no longer be read or is another file by now."""
    try:
        opened = os.open(program.path, _O_READ)
    except OSError:
        return None
    try:
        status = os.fstat(opened)
        if (status.st_dev, status.st_ino) != (program.device, program.inode):
            return None
        return read(opened)
    finally:
        os.close(opened)


def _digest(descriptor: int) -> bytes:
    digest, offset = hashlib.sha256(), 0
    while part := os.pread(descriptor, 1 << 20, offset):
        digest.update(part)
        offset += len(part)
        if offset > MAX_HASHED:
            break  # it grows while it is read
    return digest.digest()
