"""The compiled seccomp program against its table, for both machines."""

from __future__ import annotations

import errno
import os
import signal
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.linux import process, seccomp
from agent.linux.syscalls import AUDIT_ARCH, NEWEST_REVIEWED, NUMBERS, Arch, native, number
from agent.session import filter_table as table
from agent.session.filter import FilterOptions, build, entries
from agent.session.filter_table import CLONE_UNTRACED, Only, Op
from agent.session.levels import Level, Offer, Point, reached
from tests.linux import bpf_machine
from tests.linux.forked import outcome, raw
from tests.session.test_filter import ALL, HIGH, MPTCP, MSG_FASTOPEN, NOTIFY, OPEN, OWN_UID, TRACE, under


def expected(options: FilterOptions, arch: Arch, nr: int, word: int, arguments: tuple[int, ...]) -> int:
    """What the table says, evaluated plainly."""
    if word != AUDIT_ARCH[arch]:
        return seccomp.RET_KILL_PROCESS
    if arch is Arch.X86_64 and nr >= 0x40000000 and nr != 0xFFFFFFFF:
        return seccomp.RET_KILL_PROCESS
    if nr > NEWEST_REVIEWED:
        return seccomp.RET_ERRNO | errno.ENOSYS
    named = {number(name, arch): name for name in NUMBERS}
    for entry in entries(options):
        if named.get(nr) in entry.calls and all(holds(test, arguments) for test in entry.tests):
            return entry.action
    return seccomp.RET_ALLOW


def holds(test: table.Test, arguments: tuple[int, ...]) -> bool:
    value = arguments[test.argument]
    if test.op is Op.NOT_NULL:
        return value != 0
    return ((value & 0xFFFFFFFF & test.mask) == test.value) is (test.op is Op.EQUAL)


INTERESTING = st.sampled_from(
    [0, 1, 2, 3, 5, 6, 8, 10, 16, 17, 0x1002, 0x5412, 0x541C, MPTCP, MSG_FASTOPEN, 0x200, 0x10F00]
)


WORDS = st.one_of(
    INTERESTING, INTERESTING.map(lambda n: n | HIGH), st.integers(0, 2**64 - 1), st.sampled_from([HIGH, 1 << 40])
)


NRS = st.one_of(
    st.integers(0, 480), st.integers(0, 2**32 - 1), st.sampled_from([0xFFFFFFFF, 0x40000000, 0x40000027, 0x3FFFFFFF])
)


@pytest.mark.parametrize("arch", list(Arch))
@given(
    options=st.sampled_from(ALL),
    nr=NRS,
    foreign=st.sampled_from([False] * 9 + [True]),
    arguments=st.tuples(*[WORDS] * 6),
)
@settings(max_examples=600, deadline=None)
def test_the_program_says_what_the_table_says(
    arch: Arch, options: FilterOptions, nr: int, foreign: bool, arguments: tuple[int, ...]
) -> None:
    word = 0x40000003 if foreign else AUDIT_ARCH[arch]
    answer = bpf_machine.run(build(options, arch), bpf_machine.call(nr, word, arguments))
    assert answer == expected(options, arch, nr, word, arguments)


@pytest.mark.parametrize("arch", list(Arch))
def test_every_entry_decides_something_on_some_machine(arch: Arch) -> None:
    """A call matching an entry's own tests gets that entry's action, or an earlier entry's of the same call."""
    for options in ALL:
        for entry in entries(options):
            for name in entry.calls:
                nr = number(name, arch)
                if nr is None:
                    continue
                arguments = [0] * 6
                for test in entry.tests:
                    arguments[test.argument] |= test.value if test.op is Op.EQUAL else test.mask & 0xFFFFFFFF
                data = bpf_machine.call(nr, AUDIT_ARCH[arch], tuple(arguments))
                answer = bpf_machine.run(build(options, arch), data)
                if entry.tests:
                    assert answer != seccomp.RET_ALLOW or entry.action == seccomp.RET_ALLOW, (name, entry.reason)
                else:
                    assert answer in (entry.action, seccomp.RET_ALLOW), (name, entry.reason)


@pytest.mark.parametrize("arch", Arch)
def test_exec_is_enforced_only_where_a_call_of_libc_shows_what_runs(
    arch: Arch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: str(arch))
    offer = Offer(root=True, jail=None, mounts=False, landlock=0, seccomp=True, notify=True)
    shown = any("arch_prctl" in entry.calls for entry in entries(NOTIFY)) and number("arch_prctl", arch) is not None
    assert (reached(offer)[Point.EXEC].level is Level.ENFORCED) is shown


def test_every_entry_gives_a_reason_and_knows_its_calls() -> None:
    for entry in table.TABLE:
        assert entry.reason
        assert all(name in NUMBERS for name in entry.calls)
        assert isinstance(entry.only, Only)


def test_a_listener_of_the_sessions_own_is_refused_even_with_a_real_program() -> None:
    allow = struct.pack("=HBBI", 6, 0, 0, seccomp.RET_ALLOW)
    assert outcome(lambda: (process.set_no_new_privs(), seccomp.install(allow, seccomp.FLAG_NEW_LISTENER))) == 0
    assert under(OPEN, lambda: seccomp.install(allow, seccomp.FLAG_NEW_LISTENER)) == errno.EPERM


def test_a_traced_session_starts_nothing_that_its_tracer_does_not_follow() -> None:
    def untraced() -> None:
        if raw(56, CLONE_UNTRACED | signal.SIGCHLD, 0, 0, 0, 0) == 0:
            os._exit(0)

    if native() is Arch.X86_64:
        assert under(TRACE, untraced) == errno.EPERM
        assert under(OWN_UID, untraced) == 0


def test_without_its_tracer_a_traced_session_executes_nothing() -> None:
    assert under(TRACE, lambda: os.execv("/bin/true", ["true"])) == errno.ENOSYS
