"""The trial of tracing: it says yes where all of it works, and no where a part is missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.linux import process, ptrace, seccomp
from agent.linux.syscalls import Arch, native
from agent.session import probe as trials
from agent.session import tracing
from agent.session.filter import FilterOptions, build
from tests.conftest import require


@pytest.fixture(autouse=True)
def _needs_root() -> None:
    require(os.geteuid() == 0, "root, to give the traced child a uid of its own")


def trial(*, user_namespace: bool = False, before: Callable[[], None] = lambda: None) -> bool:
    def attempt() -> int:
        before()
        return tracing.attempt(user_namespace=user_namespace)

    return trials._succeeds(attempt)


def children() -> set[str]:
    """The processes that this one has not waited for."""
    tasks = Path("/proc/self/task").iterdir()
    return {child for task in tasks for child in (task / "children").read_text().split()}


@pytest.mark.skipif(native() is not Arch.X86_64, reason="tracing is for x86-64 only")
@pytest.mark.parametrize("user_namespace", [False, True])
def test_this_machine_can_be_traced_on(user_namespace: bool) -> None:
    before = children()
    assert trial(user_namespace=user_namespace)
    assert children() == before


def test_a_process_that_others_may_not_look_at_can_make_the_trial_too() -> None:
    assert trial(before=lambda: process.set_dumpable(False)), "as the guard is"


def test_where_ptrace_is_refused_there_is_no_tracing() -> None:
    def without_ptrace() -> None:
        process.set_no_new_privs()
        seccomp.install(build(FilterOptions(notify_exec=False, jail=True)))

    assert not trial(before=without_ptrace)


@pytest.mark.parametrize("part", ["refuse_call", "stopped_call", "wait"])
def test_a_missing_part_is_no_tracing(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    def missing(*given: object) -> None:
        raise OSError(38, "not here")

    monkeypatch.setattr(ptrace, part, missing)
    assert not trial()


def test_a_refusal_that_does_not_hold_is_no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptrace, "refuse_call", lambda tid, error: ptrace.go_on(tid))
    assert not trial()


def test_tracing_is_not_tried_where_there_is_notification(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr(trials, "_trace", lambda jail, root: asked.append(jail) or "plain")
    monkeypatch.setattr(seccomp, "notification_available", lambda: True)
    assert (trials.probe().trace, asked) == (None, [])
    monkeypatch.setattr(seccomp, "notification_available", lambda: False)
    assert trials.probe().trace == "plain"
    assert len(asked) == 1
