"""The keeper's judgement of who died; what comes of it is tried in tests/escape/test_restarts.py and test_chaos.py."""

from __future__ import annotations

import os
import socket

import pytest

from agent.channel import pair
from agent.daemon import keeper as module
from agent.daemon.keeper import Keeper
from agent.daemon.keeping.workers import First
from tests.daemon.base.test_spec import SPEC


class Replaced(Exception):
    """Another egress process was about to be started."""


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> tuple[Keeper, socket.socket]:
    """One whose egress process has been reaped, and not its guard (this process); the guard's end of their channel."""

    def start(environment: object) -> None:
        raise Replaced

    monkeypatch.setattr(module.workers, "start_egress", start)
    ours, guards = pair()
    made = Keeper(SPEC, First(os.getpid(), ours.detach()))
    made._take({"type": "hold", "doors": ["proxy"]}, [], made._first)
    made._take({"type": "started", "pid": os.getpid()}, [], made._first)
    made._egress_pid = 1
    made._dead.add(1)
    return made, guards


def test_an_egress_process_that_dies_alone_is_replaced(keeper: tuple[Keeper, socket.socket]) -> None:
    made, guards = keeper
    with guards, pytest.raises(Replaced):
        made._check_workers(made._first)


def test_one_that_follows_a_dying_guard_is_no_death_of_its_own(keeper: tuple[Keeper, socket.socket]) -> None:
    """The guard has closed what it had open, and cannot be waited for yet."""
    made, guards = keeper
    guards.close()
    made._check_workers(made._first)


def test_nor_is_one_whose_guard_has_begun_to_end_and_has_closed_the_channel_to_it_only(
    keeper: tuple[Keeper, socket.socket],
) -> None:
    """Descriptors are closed one after another, and those that watch files are slow."""
    made, guards = keeper
    guard = os.fork()
    if guard == 0:
        os._exit(0)
    os.waitid(os.P_PID, guard, os.WEXITED | os.WNOWAIT)  # it can be waited for, and nobody has
    made._guard_pid = guard
    try:
        with guards:
            made._check_workers(made._first)
    finally:
        os.waitpid(guard, 0)
