"""Memory that outlives the guard: its latest words to a successor, in two files that have no name (memfd_create(2)).

The keeper holds the descriptors and looks at nothing. Rules kept here: the two are written in turn, so that a writer
that dies in the middle of one leaves the other whole; a header with length and checksum tells a whole one, a number the
later one. What is kept is as secret as the guard's memory: it is in no file system, and no descriptor of it goes to
anything but guard and keeper.
"""

from __future__ import annotations

import os
import struct
import weakref
import zlib
from collections.abc import Sequence
from typing import Final

from agent.linux.memory import nameless

_HEADER: Final = struct.Struct("=QQI")  # number, length, CRC-32 of both and the data


class Kept:
    """One value, of which the last whole version counts. `descriptors`: of one that was kept before. They are closed
    when it is gone."""

    def __init__(self, descriptors: Sequence[int] | None = None) -> None:
        given = descriptors or [nameless("parhelia-kept") for _ in range(2)]
        self.descriptors = (given[0], given[1])
        self._closed = [weakref.finalize(self, os.close, descriptor) for descriptor in self.descriptors]
        versions = [_read(descriptor) for descriptor in self.descriptors]
        self._number, self._data = max((found for found in versions if found is not None), default=(0, b""))

    @property
    def data(self) -> bytes:
        """The last version, empty where there is none."""
        return self._data

    def save(self, data: bytes) -> None:
        """Make `data` the last version. Raises OSError: then the one before is."""
        if data == self._data:
            return
        number = self._number + 1
        descriptor = self.descriptors[number % 2]
        os.ftruncate(descriptor, 0)
        header = struct.pack("=QQ", number, len(data))
        whole = memoryview(_HEADER.pack(number, len(data), zlib.crc32(data, zlib.crc32(header))) + data)
        at = 0
        while at < len(whole):
            at += os.pwrite(descriptor, whole[at:], at)
        self._number, self._data = number, data

    def close(self) -> None:
        for close in self._closed:
            close()


def _read(descriptor: int) -> tuple[int, bytes] | None:
    size = os.fstat(descriptor).st_size
    raw = b""
    while len(raw) < size and (more := os.pread(descriptor, size - len(raw), len(raw))):
        raw += more
    if len(raw) < _HEADER.size:
        return None
    number, length, checksum = _HEADER.unpack_from(raw)
    data = raw[_HEADER.size :]
    header = struct.pack("=QQ", number, length)
    if len(data) != length or zlib.crc32(data, zlib.crc32(header)) != checksum:
        return None
    return number, data
