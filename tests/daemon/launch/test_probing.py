"""What another process has found out about the machine is what this one would have found."""

from __future__ import annotations

import os
import signal

import pytest

from agent.daemon.launch import probing
from agent.daemon.launch.probing import begin_probe
from agent.session.probe import probe


def test_another_process_finds_what_this_one_does() -> None:
    assert begin_probe().offer() == probe()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def raise_a_fault() -> None:
    raise OSError("no")


@pytest.mark.parametrize("end", [die, raise_a_fault, lambda: "no offer"])
def test_where_it_died_nothing_is_offered(end: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "probe", end)
    with pytest.raises(ChildProcessError, match="has died"):
        begin_probe().offer()
