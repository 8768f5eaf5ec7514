"""The limits of a session are held by what the machine has, and what nothing holds is said."""

from __future__ import annotations

import os

import pytest

from agent.daemon.base.names import group_name
from agent.daemon.ring import limiting
from agent.daemon.ring.limiting import DEFAULT_PIDS, hold
from agent.linux import cgroups
from agent.policy.model_session import ProcessLimits
from tests.conftest import require

NAME = group_name(f"test-limiting-{os.getpid()}")
NOBODY = 65533


def refuse(controller: str, name: str, most: int) -> cgroups.Limit:
    del controller, name, most
    raise PermissionError(13, "Permission denied")


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that gives no control group, as most containers are."""
    monkeypatch.setattr(limiting.cgroups, "find", refuse)


@pytest.mark.usefixtures("nowhere")
def test_without_control_groups_a_named_number_of_processes_is_held_by_the_account() -> None:
    require(os.geteuid() == 0, "an account of its own needs root")
    limits = hold(ProcessLimits(pids=300), NAME, account=NOBODY)
    assert (limits.by_account, limits.missing) == (300, ())


@pytest.mark.usefixtures("nowhere")
def test_the_default_is_never_held_by_an_account_that_others_may_share() -> None:
    limits = hold(ProcessLimits(), NAME, account=NOBODY)
    assert (limits.by_account, limits.missing) == (None, ())


@pytest.mark.usefixtures("nowhere")
def test_what_nothing_holds_is_said_by_its_key() -> None:
    limits = hold(ProcessLimits(pids=300, memory=1 << 30), NAME, account=None)
    assert limits.by_account is None
    assert [text.partition(":")[0] for text in limits.missing] == ["session.limits.pids", "session.limits.memory"]


def test_what_can_be_had_is_what_is_offered() -> None:
    offered = limiting.available()
    limits = hold(ProcessLimits(pids=300, memory=1 << 30), NAME, account=None)
    try:
        assert [key for key, how in offered.items() if how != "control group"] == [
            text.split(":")[0].rpartition(".")[2] for text in limits.missing
        ]
        with pytest.raises(OSError):
            limits.place(2**22 + 1)  # no such process
            os.kill(2**22 + 1, 0)  # where there is no group to put it in
    finally:
        cgroups.remove(NAME)
    assert DEFAULT_PIDS > 300
