"""The assembler: what it encodes, and what it refuses before the kernel would."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.linux import bpf
from agent.linux.bpf import BpfError, Instruction, Label, assemble
from tests.linux import bpf_machine

RETURN = bpf.ret(7)


def test_instructions_are_encoded_as_the_kernels_struct() -> None:
    program = assemble([bpf.load(0), bpf.jump_equal(39, no="other"), bpf.ret(1), Label("other"), bpf.ret(2)])
    assert list(struct.iter_unpack("=HBBI", program)) == [(0x20, 0, 0, 0), (0x15, 0, 1, 39), (6, 0, 0, 1), (6, 0, 0, 2)]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ([], "0 instructions"),
        ([bpf.load(0)], "falls off the end"),
        ([RETURN, Label("a"), Label("a"), RETURN], "set twice"),
        ([bpf.jump("nowhere"), RETURN], "no label 'nowhere'"),
        ([Label("back"), RETURN, bpf.jump("back")], "not ahead"),
        ([bpf.jump_equal(1, yes="end"), RETURN, Label("end")], "not ahead"),
        ([bpf.load(2), RETURN], "no word at 2"),
        ([bpf.load(64), RETURN], "no word at 64"),
        ([bpf.ret(1 << 32)], "32 bits"),
        ([bpf.mask(-1), RETURN], "32 bits"),
        ([Instruction(0x61, 0), RETURN], "unknown code"),
        ([bpf.jump_equal(1, yes="far"), *[RETURN] * 256, Label("far"), RETURN], "reaches 255"),
        ([RETURN] * 4097, "4097 instructions"),
    ],
)
def test_a_program_the_kernel_would_refuse_is_refused(source: list[Instruction | Label], complaint: str) -> None:
    with pytest.raises(BpfError, match=complaint):
        assemble(source)


def test_an_unconditional_jump_reaches_further() -> None:
    program = assemble([bpf.jump("far"), *[bpf.ret(1)] * 1000, Label("far"), bpf.ret(2)])
    assert bpf_machine.run(program, bytes(64)) == 2


@pytest.mark.parametrize("index", [-1, 6])
def test_there_is_no_seventh_argument(index: int) -> None:
    with pytest.raises(BpfError):
        bpf.argument(index)


@given(st.integers(0, 2**64 - 1), st.integers(0, 5), st.booleans())
def test_an_argument_is_found_where_seccomp_data_has_it(value: int, index: int, high: bool) -> None:
    half = value >> 32 if high else value & 0xFFFFFFFF
    data = bpf_machine.call(1, 2, tuple(value if i == index else ~value % 2**64 for i in range(6)))
    program = assemble(
        [bpf.load(bpf.argument(index, high=high)), bpf.jump_equal(half, no="no"), bpf.ret(1), Label("no"), bpf.ret(0)]
    )
    assert bpf_machine.run(program, data) == 1
