"""A machine for the classic BPF that seccomp allows, so that a filter for another architecture can be tried here.

Written from the instruction set's description (Linux Documentation/networking/filter.rst), not from the assembler.
"""

from __future__ import annotations

import struct


def run(program: bytes, data: bytes) -> int:
    """What the filter returns for this `struct seccomp_data` (64 bytes). Raises where the kernel would not load it."""
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator = at = 0
    for _ in range(len(instructions)):
        code, yes, no, k = instructions[at]
        at += 1
        if code == 0x06:
            return k
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == 0x54:
            accumulator &= k
        elif code == 0x05:
            at += k
        else:
            at += yes if {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[code] else no
    raise AssertionError("no return reached")


def call(number: int, arch: int, arguments: tuple[int, ...]) -> bytes:
    """The `struct seccomp_data` of a system call."""
    return struct.pack("=iIQ6Q", number - (1 << 32) if number >> 31 else number, arch, 0, *arguments)
