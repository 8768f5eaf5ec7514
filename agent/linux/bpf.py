"""A small assembler for the classic BPF that seccomp runs, with labels and checks.

Rules: a program only jumps forwards (the kernel's rule), every path ends in a return, and what the kernel would refuse
is refused here with a reason (`BpfError`). Opcodes are from linux/bpf_common.h and linux/filter.h, the field offsets of
`struct seccomp_data` from linux/seccomp.h. Both supported machines are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from agent.values import dataclass

LD_W_ABS = 0x20  # BPF_LD | BPF_W | BPF_ABS
ALU_AND_K = 0x54  # BPF_ALU | BPF_AND | BPF_K
JMP_JA = 0x05  # BPF_JMP | BPF_JA
JMP_JEQ_K = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JMP_JGT_K = 0x25  # BPF_JMP | BPF_JGT | BPF_K
JMP_JGE_K = 0x35  # BPF_JMP | BPF_JGE | BPF_K
RET_K = 0x06  # BPF_RET | BPF_K

NR_OFFSET = 0  # seccomp_data.nr
ARCH_OFFSET = 4  # seccomp_data.arch
DATA_SIZE = 64  # sizeof(struct seccomp_data)
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS, linux/bpf_common.h

_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
_JUMPS = frozenset({JMP_JEQ_K, JMP_JGT_K, JMP_JGE_K})
_KNOWN = _JUMPS | {LD_W_ABS, ALU_AND_K, JMP_JA, RET_K}


class BpfError(ValueError):
    """The program is not one the kernel would take."""


@dataclass(frozen=True, slots=True)
class Label:
    """A place to jump to."""

    name: str


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction. `yes` and `no` name labels; None means the next instruction. JA jumps to `yes`."""

    code: int
    k: int
    yes: str | None = None
    no: str | None = None


def load(offset: int) -> Instruction:
    """A = the 32-bit word at `offset` of seccomp_data."""
    return Instruction(LD_W_ABS, offset)


def mask(bits: int) -> Instruction:
    """A &= bits."""
    return Instruction(ALU_AND_K, bits)


def jump(label: str) -> Instruction:
    return Instruction(JMP_JA, 0, yes=label)


def jump_equal(k: int, yes: str | None = None, no: str | None = None) -> Instruction:
    return Instruction(JMP_JEQ_K, k, yes, no)


def jump_greater(k: int, yes: str | None = None, no: str | None = None) -> Instruction:
    return Instruction(JMP_JGT_K, k, yes, no)


def jump_at_least(k: int, yes: str | None = None, no: str | None = None) -> Instruction:
    return Instruction(JMP_JGE_K, k, yes, no)


def ret(k: int) -> Instruction:
    return Instruction(RET_K, k)


def argument(index: int, *, high: bool = False) -> int:
    """The offset of the low (or high) half of a system call's argument, 0 to 5."""
    if not 0 <= index <= 5:
        raise BpfError(f"a system call has arguments 0 to 5, not {index}")
    return 16 + 8 * index + (4 if high else 0)


def assemble(source: Sequence[Instruction | Label]) -> bytes:
    """The program as an array of `struct sock_filter`. Raises BpfError where the kernel would refuse it."""
    places: dict[str, int] = {}
    instructions: list[Instruction] = []
    for item in source:
        if isinstance(item, Label):
            if item.name in places:
                raise BpfError(f"label {item.name!r} is set twice")
            places[item.name] = len(instructions)
        else:
            instructions.append(item)
    if not 0 < len(instructions) <= MAX_INSTRUCTIONS:
        raise BpfError(f"{len(instructions)} instructions; the kernel takes 1 to {MAX_INSTRUCTIONS}")
    if instructions[-1].code not in (RET_K, JMP_JA):
        raise BpfError("the last instruction falls off the end")
    return b"".join(_encode(at, one, places, len(instructions)) for at, one in enumerate(instructions))


def _encode(at: int, one: Instruction, places: dict[str, int], length: int) -> bytes:
    if one.code not in _KNOWN:
        raise BpfError(f"instruction {at}: unknown code {one.code:#x}")
    if not 0 <= one.k < 1 << 32:
        raise BpfError(f"instruction {at}: {one.k} does not fit in 32 bits")
    if one.code == LD_W_ABS and (one.k % 4 or one.k >= DATA_SIZE):
        raise BpfError(f"instruction {at}: seccomp_data has no word at {one.k}")
    yes, no = _distance(at, one.yes, places, length), _distance(at, one.no, places, length)
    if one.code == JMP_JA:
        return _INSTRUCTION.pack(JMP_JA, 0, 0, yes)
    if max(yes, no) > 255:
        raise BpfError(f"instruction {at}: a conditional jump reaches 255 instructions, not {max(yes, no)}")
    return _INSTRUCTION.pack(one.code, yes, no, one.k)


def _distance(at: int, label: str | None, places: dict[str, int], length: int) -> int:
    if label is None:
        return 0
    if label not in places:
        raise BpfError(f"instruction {at}: no label {label!r}")
    distance = places[label] - at - 1
    if distance < 0 or places[label] >= length:
        raise BpfError(f"instruction {at}: {label!r} is not ahead of it")
    return distance
