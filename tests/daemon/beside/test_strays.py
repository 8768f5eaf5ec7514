"""What runs beside a session is told apart by what the kernel says of it: on real processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from agent.daemon.base import processes
from agent.daemon.base.processes import Standing
from agent.daemon.beside import strays
from agent.daemon.beside.strays import Beside, Finder, confined, of_the_agent
from tests.conftest import require

WAIT = "import sys; print(flush=True); sys.stdin.read()"
CONFINED = (
    "import sys; from agent.linux import process, seccomp, bpf; process.set_no_new_privs();"
    "seccomp.install(bpf.assemble([bpf.ret(seccomp.RET_ALLOW)]));" + WAIT
)


@contextmanager
def running(code: str, *words: str, uid: int | None = None) -> Iterator[int]:
    """A process that runs the code, its pid."""
    argv = [sys.executable if uid is None else "/usr/bin/python3", "-c", code, *words]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=uid) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
            yield process.pid
        finally:
            process.kill()


def standing(pid: int) -> Standing:
    found = processes.standing(pid)
    assert found is not None
    return found


@pytest.fixture
def account() -> int:
    require(os.geteuid() == 0, "an account of its own needs root")
    return 1_000_000 + os.getpid()  # nobody else's


def finder(account: int) -> Finder:
    return Finder(Beside(only=account, session=account, egress=None, keeper=os.getppid()))


def test_a_process_of_the_session_s_account_outside_its_confinement_is_found_once_at_the_second_look(
    account: int,
) -> None:
    with running(CONFINED) as inside, running(WAIT, "a b", "--password=hunter2", uid=account) as outside:
        reference = standing(inside)
        assert reference.no_new_privs
        assert reference.seccomp == 2
        found = finder(account)
        assert [[pid for pid, _ in found.look(reference)] for _ in range(3)] == [[], [outside], []]
        words = processes.shown(processes.words(outside))
        assert "a b" in words
        assert "hunter2" not in " ".join(words)


def test_a_process_that_has_all_the_session_has_is_inside_and_one_that_lacks_a_part_is_not() -> None:
    session = Standing(parent=1, uid=1000, no_new_privs=True, seccomp=2, filters=2, zombie=False, kernel=False)
    with running(CONFINED) as inside:
        real = standing(inside)
        assert confined(real, real)
        assert not confined(standing(os.getpid()), real)
    for lacking in (
        {"no_new_privs": False},
        {"seccomp": 0},
        {"filters": 1},  # the container's own filter, by docker exec
    ):
        fields = {name: getattr(session, name) for name in Standing.__slots__} | lacking
        assert not confined(Standing(**fields), session)


def test_ten_thousand_processes_are_looked_at_in_turn_and_a_stray_among_them_is_still_found(
    account: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    reference = Standing(parent=1, uid=account, no_new_privs=True, seccomp=2, filters=1, zombie=False, kernel=False)
    stray = Standing(parent=1, uid=account, no_new_privs=False, seccomp=0, filters=0, zombie=False, kernel=False)

    def asks(pid: int) -> Standing:
        asked.append(pid)
        return stray if pid == 19_999 else reference

    monkeypatch.setattr(processes, "standing", asks)
    monkeypatch.setattr(processes, "started", lambda pid: 7)
    monkeypatch.setattr(processes, "words", lambda pid: ["sh"])
    monkeypatch.setattr(os, "listdir", lambda path: [str(pid) for pid in range(10_000, 20_000)])
    found, most = finder(account), 0
    told: list[int] = []
    for _ in range(12):
        asked.clear()
        told += [pid for pid, _ in found.look(reference)]
        most = max(most, len(asked))
    assert told == [19_999]
    assert most <= strays.MAX_LOOKS + 100  # and the line of the agent's ancestors
    asked.clear()
    found.look(reference)
    assert len(asked) <= strays.AGAIN + 100  # all are known: some of them in turn


def test_a_known_number_that_became_another_process_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    account = 4242
    inside = Standing(parent=1, uid=account, no_new_privs=True, seccomp=2, filters=1, zombie=False, kernel=False)
    outside = Standing(parent=1, uid=account, no_new_privs=False, seccomp=0, filters=0, zombie=False, kernel=False)
    now = inside
    monkeypatch.setattr(processes, "standing", lambda pid: now)
    monkeypatch.setattr(processes, "started", lambda pid: 7)
    monkeypatch.setattr(processes, "words", lambda pid: [])
    monkeypatch.setattr(os, "listdir", lambda path: ["77777"])
    found = finder(account)
    assert found.look(inside) == []
    now = outside
    assert [found.look(inside), found.look(inside)] == [[], [(77777, outside)]]


def test_the_agent_s_own_parts_and_verbs_are_no_strays_but_the_session_cannot_pass_for_one(account: int) -> None:
    with ExitStack() as stack:
        reference = standing(stack.enter_context(running(CONFINED)))
        named = stack.enter_context(running(WAIT, uid=account))
        everything = Finder(Beside(only=None, session=account, egress=None, keeper=os.getppid()))
        everything.look(reference)
        found = {pid for pid, _ in everything.look(reference)}
        assert named in found
        assert os.getpid() not in found
        assert os.getppid() not in found
    assert of_the_agent(["/opt/x/python", "-I", "-m", "agent.daemon.guard", "--keeper", "3"])
    assert of_the_agent(["/opt/x/python", "/usr/local/bin/parhelia-agent", "doctor"])
    assert not of_the_agent(["/bin/sh", "-c", "parhelia-agent"])
    assert not of_the_agent(["python", "-m", "agentx"])
    assert not of_the_agent([])
