"""Reading the variables that matter from a process's memory: this process's own, laid out as for an execve(2)."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.enforce.commands.environment import MAX_VARIABLES, read_environment
from agent.enforce.memory import Memory, Unreadable
from agent.shell.environment import TABLE, is_named

PAGE = 4096


@pytest.fixture(scope="module")
def descriptor() -> Iterator[int]:
    opened = os.open("/proc/self/mem", os.O_RDONLY)
    yield opened
    os.close(opened)


def laid_out(strings: list[bytes], start: int) -> tuple[mmap.mmap, int]:
    """The strings one after the other from `start` bytes into a mapping on, and the address of their array."""
    size = -(-(start + sum(len(text) + 1 for text in strings) + 8 * (len(strings) + 2)) // PAGE) * PAGE
    place = mmap.mmap(-1, size)
    base = ctypes.addressof(ctypes.c_char.from_buffer(place))
    pointers, at = [], start
    for text in strings:
        place[at : at + len(text) + 1] = text + b"\0"
        pointers.append(base + at)
        at += len(text) + 1
    array = at + -at % 8
    place[array : array + 8 * (len(pointers) + 1)] = b"".join(p.to_bytes(8, "little") for p in [*pointers, 0])
    return place, base + array


NAMES = st.sampled_from([row.name.replace("*", "0") for row in TABLE]) | st.text(alphabet="ABGLPS_", max_size=12)


@given(
    pairs=st.lists(st.tuples(NAMES, st.text(alphabet="ab= /", max_size=30)), max_size=30),
    start=st.integers(PAGE - 80, PAGE + 8) | st.integers(0, 40),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_exactly_the_variables_of_the_table_are_found(
    descriptor: int, pairs: list[tuple[str, str]], start: int
) -> None:
    place, address = laid_out([f"{name}={value}".encode() for name, value in pairs], start)
    found = read_environment(Memory(descriptor), address)
    assert found == tuple(pair for pair in pairs if is_named(pair[0]))
    del place


def test_no_environment_is_an_empty_one(descriptor: int) -> None:
    assert read_environment(Memory(descriptor), 0) == ()
    place, address = laid_out([], 0)
    assert read_environment(Memory(descriptor), address) == ()
    del place


def test_a_string_that_is_not_there_makes_the_exec_unreadable(descriptor: int) -> None:
    place = mmap.mmap(-1, PAGE)
    place[:16] = (64).to_bytes(8, "little") + (0).to_bytes(8, "little")
    with pytest.raises(Unreadable):
        read_environment(Memory(descriptor), ctypes.addressof(ctypes.c_char.from_buffer(place)))


def test_bytes_that_are_no_text_are_escaped(descriptor: int) -> None:
    place, address = laid_out([b"PAGER=\xff"], 0)
    assert read_environment(Memory(descriptor), address) == (("PAGER", "\\xff"),)
    del place


def test_more_variables_than_are_taken_are_left(descriptor: int) -> None:
    place, address = laid_out([b"BASH_FUNC_f%d%%%%=() { :; }" % number for number in range(MAX_VARIABLES + 5)], 0)
    assert len(read_environment(Memory(descriptor), address)) == MAX_VARIABLES
    del place
