"""The session's init is out of the session's reach, where it has another uid."""

from __future__ import annotations

import json

import pytest

from agent.linux.process import Capability
from agent.session.launch import KEPT, REOPENS
from tests.escape.runtime import Case, Outcome, Runtime, policy

SEPARATE = [
    pytest.param("host", marks=pytest.mark.root),
    pytest.param("docker_sessions", marks=[pytest.mark.root, pytest.mark.docker], id="docker"),
]
ON_INIT = r"""
import ctypes, json, os, resource, signal
init, found = os.getppid(), {}
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, act):
    try:
        act()
        found[name] = "succeeded"
    except (OSError, ValueError) as error:
        found[name] = type(error).__name__
def call(number, *arguments):
    if libc.syscall(number, *arguments) == -1:
        raise OSError(ctypes.get_errno(), "refused")
def held(number, flags):
    if os.fstat(os.open(f"/proc/{init}/fd/{number}", flags)).st_rdev == os.makedev(1, 3):
        raise OSError("only /dev/null")
attempt("names of descriptors", lambda: os.listdir(f"/proc/{init}/fd"))
for number in range(32):
    for flags in (os.O_RDONLY, os.O_WRONLY | os.O_NONBLOCK):
        attempt(f"descriptor {number} {flags}", lambda: held(number, flags))
for name in "mem root cwd exe map_files".split():
    path = f"/proc/{init}/{name}"
    if not os.path.lexists(path): continue  # gVisor of 2022 has not all of them
    for flags in (os.O_RDONLY, os.O_RDWR):
        attempt(f"{name} {flags}", lambda: os.listdir(os.open(path, flags)) if name == "map_files" else
                os.pwrite(os.open(path, flags), b"x", 1) if name == "mem" else os.open(path, flags))
word = ctypes.create_string_buffer(8)
vector = (ctypes.c_void_p * 2)(ctypes.addressof(word), 8)
attempt("ptrace", lambda: call(101, 16, init, 0, 0))
attempt("read memory", lambda: call(310, init, vector, 1, vector, 1, 0))
attempt("write memory", lambda: call(311, init, vector, 1, vector, 1, 0))
attempt("limits", lambda: resource.prlimit(init, resource.RLIMIT_NOFILE, (0, 0)))
attempt("scheduler", lambda: os.sched_setaffinity(init, {0}))
for number in (0, signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL):
    attempt(f"signal {number}", lambda: os.kill(init, number))
if group := os.getpgid(init):  # 0: it has none that this process namespace knows
    attempt("signal its group", lambda: os.killpg(group, signal.SIGKILL))
print(json.dumps(found), flush=True)
"""


def judge(outcome: Outcome) -> list[str]:
    """What succeeded."""
    assert outcome.stdout, outcome.stderr
    found = json.loads(outcome.stdout.splitlines()[-1])
    assert len(found) >= 5, found
    return [name for name, what in found.items() if what == "succeeded"]


@pytest.mark.parametrize("kind", SEPARATE)
def test_the_init_cannot_be_signalled_read_written_or_starved(request: pytest.FixtureRequest, kind: str) -> None:
    runtime: Runtime = request.getfixturevalue(kind)
    outcome = runtime.run(Case(("/usr/bin/python3", "-c", ON_INIT), policy()))
    assert judge(outcome) == []
    assert (outcome.status, outcome.verified) == (0, 0), outcome.stderr


SETS = """
import json, os
def sets(pid):
    lines = [line.split() for line in open(f"/proc/{pid}/status") if line.startswith("Cap")]
    return {name[3:-1]: int(value, 16) for name, value in lines}
print(json.dumps([sets("self"), sets(os.getppid())]))
"""


@pytest.mark.root
@pytest.mark.parametrize(("kind", "more"), [("host", ()), ("host_without_notify", REOPENS)])
def test_the_init_keeps_the_rights_it_needs_and_what_it_forks_has_none(
    request: pytest.FixtureRequest, kind: str, more: tuple[Capability, ...]
) -> None:
    """Where execs are traced also those to open the jail's doors again."""
    runtime: Runtime = request.getfixturevalue(kind)
    outcome = runtime.run(Case(("/usr/bin/python3", "-c", SETS), policy()))
    session, init = json.loads(outcome.stdout)
    assert set(session.values()) == {0}, session
    wanted = sum(1 << capability for capability in (*KEPT, *more))
    assert init == {"Inh": 0, "Prm": wanted, "Eff": wanted, "Bnd": 0, "Amb": 0}
