"""System calls that the filter refuses, each made in a real session by its number; and what stays usable.

UNTESTED HERE: an x32 call that would do something (this kernel has no x32); the filter kills for its number anyway.
"""

from __future__ import annotations

import errno
import json
import signal
from pathlib import Path

from agent.linux import seccomp
from agent.linux.syscalls import AUDIT_ARCH, NEWEST_REVIEWED, Arch, native, number
from agent.session.filter import FilterOptions, build
from tests.conftest import require
from tests.escape.runtime import Case, Runtime, policy
from tests.linux import bpf_machine
from tests.session.test_filter import REFUSED

CALLS = (Path(__file__).parent / "programs" / "calls.py").read_text()
CLONE_NEWTIME = 0x80
OPTIONS = {
    "host": FilterOptions(notify_exec=True, jail=True, shared_uid=False),
    "docker": FilterOptions(notify_exec=True, jail=False, shared_uid=False, notify_connect=True),
    "gvisor": FilterOptions(notify_exec=False, jail=True, shared_uid=False, trace_exec=True),
}
BEYOND = [(NEWEST_REVIEWED + 1, ()), (4095, ()), *((beyond, ()) for beyond in (512, 520, 547))]
"""Newer than the review, and numbers that x32 once had without its bit."""


def words(arguments: tuple[int, ...]) -> tuple[int, ...]:
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    return tuple(word & 0xFFFFFFFFFFFFFFFF for word in padded)


def refusal(options: FilterOptions, nr: int, arguments: tuple[int, ...]) -> str | None:
    """What the filter answers by itself, None where it lets the call be or asks."""
    answer = bpf_machine.run(build(options), bpf_machine.call(nr, AUDIT_ARCH[native()], words(arguments)))
    return errno.errorcode[answer & 0xFFFF] if answer & ~0xFFFF == seccomp.RET_ERRNO else None


def test_every_refused_call_is_refused_in_a_session_and_filters_of_its_own_work(runtime: Runtime) -> None:
    require(native() is Arch.X86_64, "x86-64")
    options = OPTIONS[runtime.name]
    wanted = [(number(name), arguments) for name, arguments, _ in REFUSED]
    wanted += [(number("unshare"), (CLONE_NEWTIME,)), *BEYOND]
    tried = [(nr, a, said) for nr, a in wanted if nr is not None and (said := refusal(options, nr, a)) is not None]
    assert len(tried) > 60
    asked = {
        "calls": [(nr, arguments) for nr, arguments, _ in tried],
        "seccomp": number("seccomp"),
        "landlock": number("landlock_create_ruleset"),
    }
    python = "/usr/bin/python3" if runtime.name == "host" else "python3"
    outcome = runtime.run(Case((python, "-I", "-c", CALLS, json.dumps(asked)), policy()))
    assert outcome.status == 0, outcome.stderr
    seen = json.loads(outcome.stdout)
    wrong = [(*t, s) for t, s in zip(tried, seen["calls"], strict=True) if s != t[2]]
    assert wrong == []
    assert seen["own filter"] is None
    assert seen["x32"] == -signal.SIGSYS
    if runtime.name != "gvisor":
        assert seen["i386"] == -signal.SIGSYS
        assert seen["landlock"] is None
