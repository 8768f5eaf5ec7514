"""The files of one chain: opened, locked, recovered, appended to, rotated.

Rules:
- One directory holds one chain. Its writer holds an exclusive flock(2) on `audit.lock` for as long as it lives; a
  second one gets `WriterBusy`.
- `audit.jsonl` is opened O_APPEND, 0600; the directory is made 0700, and refused where others could rename in it.
- Nothing is ever appended to an unterminated or unparsable line: such a tail is copied to a sidecar file, synced, and
  only then cut off. A *whole* line that was edited is evidence, not a torn write: it stays, and the chain goes on.
- What `append` returned from is on disk (fdatasync(2)). What it raised for leaves no byte behind: the file is cut back
  to its last good length, at once or before the next append. After a failed sync the pages are in an unknown state, so
  the same bytes are cut and written again, never just synced again.
- Everything is done relative to the directory's descriptor and without following symlinks.

Not thread-safe: whoever owns it serialises.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from agent.record.chain import MAX_LINE, Head, LineError, Link, read
from agent.record.event import RecordError
from agent.values import dataclass

CURRENT = "audit.jsonl"
LOCK = "audit.lock"
ROTATED = re.compile(r"audit-(\d{12})\.jsonl", re.ASCII)
DEFAULT_ROTATE_BYTES = 64 * 1024 * 1024
_PENDING = re.compile(r"quarantine-\d{12}-\d+\.bin\.pending", re.ASCII)
_BLOCK = 64 * 1024


class LogError(RecordError):
    """The log's files could not be opened, read or written. The text says what failed, on what, and what to try."""


class WriterBusy(LogError):
    """Another process writes this chain."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found amiss: a tail set aside (`sidecar`, `size` bytes with that SHA-256), or what was left in place."""

    reason: str
    sidecar: str | None = None
    size: int = 0
    sha256: str = ""


class Log:
    """`open`, then `append` batches of whole lines, then `close`.

    `recovered` collects what had to be set aside; the owner writes an `audit.recovered` event for each and calls
    `settle` once those are synced. A sidecar keeps the suffix ``.pending`` until then, so that a crash in between is
    made good at the next open.
    """

    def __init__(self, directory: Path, *, rotate_bytes: int = DEFAULT_ROTATE_BYTES) -> None:
        self.directory = directory
        self.recovered: list[Recovered] = []
        self.rotate_bytes = rotate_bytes
        self._dir = self._lock = self._fd = -1
        self._size = 0
        self._first = 0
        self._next = 1
        self._dirty = False

    def open(self) -> Head | None:
        """Lock and recover; the head to go on from, None for a new chain. Raises WriterBusy, LogError."""
        try:
            self._dir = _open_directory(self.directory)
            self._lock = self._take_lock()
            last = self._open_current()
            for name in sorted(self._names()):
                if _PENDING.fullmatch(name) and all(name != known.sidecar for known in self.recovered):
                    self.recovered.append(self._describe(name, "left over from an interrupted recovery"))
        except LogError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise self._failed("open", error) from error
        return None if last is None else Head(last.stream, last.seq, last.hash)

    def open_new(self) -> None:
        """Lock a directory that holds no chain yet. Raises WriterBusy, LogError."""
        if self.open() is not None:
            self.close()
            raise LogError(f"{self.directory}: there is a chain already; give an empty directory")

    def append(self, lines: bytes, first_seq: int, last_seq: int) -> None:
        """Write whole lines and sync them. Raises LogError, having left the file as it was (see the module's rules)."""
        try:
            self._restore()
            if self._size and self._size + len(lines) > self.rotate_bytes:
                self._rotate()
            if not self._size:
                self._first = first_seq
            self._write(lines)
        except OSError as error:
            raise self._failed("write", error) from error
        self._next = last_seq + 1

    def settle(self, count: int) -> None:
        """The first `count` recoveries are told in the log: give their sidecars their final names. Raises LogError."""
        told, self.recovered = self.recovered[:count], self.recovered[count:]
        try:
            for entry in told:
                if entry.sidecar is not None:
                    final = entry.sidecar.removesuffix(".pending")
                    os.rename(entry.sidecar, final, src_dir_fd=self._dir, dst_dir_fd=self._dir)
            if told:
                os.fsync(self._dir)
        except OSError as error:
            raise self._failed("settle a recovery in", error) from error

    def close(self) -> None:
        """Release the files and the lock. Raises nothing: all that was acknowledged is synced already."""
        for descriptor in (self._fd, self._lock, self._dir):
            if descriptor >= 0:
                os.close(descriptor)
        self._dir = self._lock = self._fd = -1

    # -- opening and recovering ------------------------------------------------------------------------------------

    def _take_lock(self) -> int:
        lock = self._open_file(LOCK, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise WriterBusy(
                f"{self.directory}: another process writes this audit log; give each session its own directory"
            ) from None
        except OSError:
            os.close(lock)
            raise
        return lock

    def _open_current(self) -> Link | None:
        """Open `audit.jsonl`, make its end sound, and find the last event of the chain (maybe in a rotated file)."""
        self._fd = self._open_file(CURRENT, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        os.fsync(self._dir)
        last, edited = self._sound_end(self._fd)
        if last is None:
            last, edited = self._last_rotated()
        self._next = last.seq + 1 if last else self._next
        if edited:
            self.recovered.append(Recovered("the last event was edited: " + edited))
        self._cut_tail()
        first = _first_seq(self._fd) if self._size else None
        self._first = first or self._next - 1
        self._dirty = False
        return last

    def _sound_end(self, fd: int) -> tuple[Link | None, str]:
        """The last line that claims a place in the chain, and what is wrong with it; `_size` becomes its end."""
        for start, end in lines_backwards(fd, os.fstat(fd).st_size):
            line = os.pread(fd, end - start, start) if end - start <= MAX_LINE else b""
            if not line.endswith(b"\n"):
                continue
            self._size = end
            try:
                return read(line), ""
            except LineError as error:
                if error.link is not None:
                    return error.link, str(error)
        self._size = 0
        return None, ""

    def _last_rotated(self) -> tuple[Link | None, str]:
        for name in sorted(filter(ROTATED.fullmatch, self._names()), reverse=True):
            fd = self._open_file(name, os.O_RDONLY)
            try:
                last, edited = self._sound_end(fd)
            finally:
                os.close(fd)
                self._size = 0
            if last is not None:
                return last, edited
        return None, ""

    def _cut_tail(self) -> None:
        """Set aside what follows `_size`: into a sidecar first, synced, then off the log."""
        size = os.fstat(self._fd).st_size
        if size == self._size:
            return
        name, sidecar = self._new_sidecar()
        try:
            offset = self._size
            while offset < size:
                block = os.pread(self._fd, min(_BLOCK, size - offset), offset)
                if not block:
                    break
                offset += _write_all(sidecar, block)
            os.fsync(sidecar)
        except OSError:
            os.unlink(name, dir_fd=self._dir)
            raise
        finally:
            os.close(sidecar)
        os.fsync(self._dir)
        os.ftruncate(self._fd, self._size)
        os.fsync(self._fd)
        self.recovered.append(self._describe(name, "torn tail"))

    def _new_sidecar(self) -> tuple[str, int]:
        taken = self._names()
        number = 0
        while {f"quarantine-{self._next:012d}-{number}.bin{end}" for end in ("", ".pending")} & taken:
            number += 1
        name = f"quarantine-{self._next:012d}-{number}.bin.pending"
        return name, self._open_file(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def _describe(self, name: str, reason: str) -> Recovered:
        fd = self._open_file(name, os.O_RDONLY)
        with os.fdopen(fd, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return Recovered(reason, name, stream.tell(), digest)

    def _names(self) -> set[str]:
        return set(os.listdir(self._dir))  # noqa: PTH208 - a descriptor, not a path

    def _open_file(self, name: str, flags: int) -> int:
        fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600, dir_fd=self._dir)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            os.close(fd)
            raise LogError(f"{self.directory / name}: not a regular file of the agent's own user; move it away")
        if stat.S_IMODE(found.st_mode) != 0o600:
            os.fchmod(fd, 0o600)
        return fd

    # -- appending -------------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        """Before a write: our own failed write is cut off; a file that others changed or replaced is made sound again.

        Then the chain goes on from the head in memory, and the verifier names what is missing in between.
        """
        if self._fd < 0:
            self._open_current()
        here = os.fstat(self._fd)
        try:
            there = os.stat(CURRENT, dir_fd=self._dir, follow_symlinks=False)
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            os.close(self._fd)
            self._fd = -1
            self._foreign("audit.jsonl was removed or replaced")
        elif self._dirty and here.st_size >= self._size:
            os.ftruncate(self._fd, self._size)
            self._dirty = False
        elif here.st_size != self._size:
            os.close(self._fd)
            self._fd = -1
            self._foreign(f"audit.jsonl had {here.st_size} bytes instead of {self._size}")

    def _foreign(self, what: str) -> None:
        expected = self._next
        self._open_current()
        self._next = expected
        self.recovered.append(Recovered(f"changed by another process: {what}"))

    def _rotate(self) -> None:
        target = f"audit-{self._first:012d}.jsonl"
        if target in self._names():
            raise FileExistsError(errno.EEXIST, f"cannot rotate: {target} is there already")
        os.rename(CURRENT, target, src_dir_fd=self._dir, dst_dir_fd=self._dir)
        os.fsync(self._dir)
        os.close(self._fd)
        self._fd, self._size = -1, 0
        self._fd = self._open_file(CURRENT, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL)
        os.fsync(self._dir)

    def _write(self, lines: bytes) -> None:
        self._dirty = True
        try:
            _write_all(self._fd, lines)
            os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._size)  # where this fails too, `_restore` repeats it before the next write
            self._dirty = False
            raise
        self._size += len(lines)
        self._dirty = False

    def _failed(self, doing: str, error: OSError) -> LogError:
        fix = {
            errno.ENOSPC: "; free space on that volume",
            errno.EDQUOT: "; raise that quota",
            errno.EROFS: "; mount that volume writable",
            errno.EACCES: "; give a directory of the agent's own user",
        }.get(error.errno or 0, "")
        return LogError(f"cannot {doing} the audit log in {self.directory}: {error.strerror or error}{fix}")


def _open_directory(directory: Path) -> int:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
        _sync_directory(directory.parent)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    found = os.fstat(fd)
    if found.st_uid not in {os.geteuid(), 0} or found.st_mode & 0o022:
        os.close(fd)
        raise LogError(
            f"{directory}: others could replace the audit log here (owner {found.st_uid}, mode "
            f"{stat.S_IMODE(found.st_mode):04o}); give a directory of the agent's own user, mode 0700"
        )
    return fd


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def open_files(directory: Path) -> list[tuple[str, int]]:
    """(name, descriptor) of a log's files at one moment, oldest first, for reading, while a writer may rotate them.

    The current file is opened before the others are listed, and a rotated name never changes: so whatever happens in
    between, no file before the newest that is returned is missing. Raises OSError.
    """
    current = -1
    with contextlib.suppress(FileNotFoundError):  # none yet, or just renamed: then it is listed below
        current = os.open(directory / CURRENT, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    files: list[tuple[str, int]] = []
    try:
        for path in sorted(path for path in directory.iterdir() if ROTATED.fullmatch(path.name)):
            files.append((path.name, os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)))
    except OSError:
        for fd in [current, *(fd for _, fd in files)]:
            if fd >= 0:
                os.close(fd)
        raise
    if current >= 0:
        if any(os.path.sameopenfile(current, fd) for _, fd in files):
            os.close(current)
        else:
            files.append((CURRENT, current))
    return files


def lines_backwards(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each line in the first `size` bytes, last line first; that one may lack its newline."""
    end = position = size
    while position > 0:
        begin = max(0, position - _BLOCK)
        block = os.pread(fd, position - begin, begin)
        at = block.rfind(b"\n")
        while at >= 0:
            if begin + at + 1 != end:
                yield begin + at + 1, end
                end = begin + at + 1
            at = block.rfind(b"\n", 0, at)
        position = begin
    if end:
        yield 0, end


def _first_seq(fd: int) -> int | None:
    line, newline, _ = os.pread(fd, MAX_LINE, 0).partition(b"\n")
    if not newline:
        return None
    try:
        return read(line).seq
    except LineError as error:
        return error.link.seq if error.link else None


def _write_all(fd: int, data: bytes) -> int:
    """write(2) until all is written; a short write goes on with the rest and thus finds the error that cut it."""
    done = 0
    while done < len(data):
        done += os.write(fd, memoryview(data)[done:])
    return done
