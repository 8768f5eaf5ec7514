"""What an exec costs to decide: the work for an argv of 100,000 words is counted, not timed."""

from __future__ import annotations

import ctypes
import os
import sys
from datetime import date

import pytest

from agent.daemon.policies.store import read_policy
from agent.enforce.memory import MAX_ARGUMENTS, Memory, Unreadable
from agent.policy.decide import decide
from agent.policy.request import Origin
from agent.shell.requests import from_argv

POLICY = read_policy(())
CALLS_PER_WORD = 60
"""Python calls that reading and deciding one more word may cost; at some 0.1 us each, 100,000 words take 0.6 s."""


def calls(argv: list[str]) -> int:
    counted = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal counted
        counted += event == "call"

    sys.setprofile(count)
    try:
        request = from_argv(
            argv,
            exe=f"/usr/bin/{argv[0]}",
            cwd="/work/project",
            home="/home/s",
            today=date(2026, 11, 22),
            origin=Origin("t"),
        )
        decision = decide(POLICY, request)
    finally:
        sys.setprofile(None)
    assert decision.permitted, decision
    return counted


@pytest.mark.parametrize("program", ["true", "rm", "cp", "sed", "grep", "chmod", "python3", "find", "sh", "git", "tar"])
def test_each_further_word_costs_the_same_little(program: str) -> None:
    def argv(count: int) -> list[str]:
        first = {"sh": ["script"], "python3": ["x.py"], "sed": ["s/a/b/"], "git": ["add"], "tar": ["cf", "x.tar"]}
        return [program, *first.get(program, []), *(f"file{number}" for number in range(count))]

    calls(argv(100))
    small, large = calls(argv(500)), calls(argv(1500))
    assert (large - small) / 1000 <= CALLS_PER_WORD
    assert large <= 3.3 * small


def test_more_words_than_are_looked_at_are_not_read() -> None:
    word = ctypes.create_string_buffer(b"a")
    pointers = (ctypes.c_uint64 * (MAX_ARGUMENTS + 2))(*[ctypes.addressof(word)] * (MAX_ARGUMENTS + 1))
    descriptor = os.open("/proc/self/mem", os.O_RDONLY)
    try:
        with pytest.raises(Unreadable, match="arguments"):
            Memory(descriptor).vector(ctypes.addressof(pointers))
        pointers[MAX_ARGUMENTS] = 0
        assert len(Memory(descriptor).vector(ctypes.addressof(pointers))) == MAX_ARGUMENTS
    finally:
        os.close(descriptor)
