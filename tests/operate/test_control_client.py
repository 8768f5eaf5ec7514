"""Reaching an agent: one that is starting is waited for, one that is over is not."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.daemon.base.names import control_socket
from agent.daemon.keeping.leavings import hold
from agent.exits import Exit
from agent.operate import control_client
from agent.operate.control_client import Unreachable, reach

FOR_EVER = 3600.0
"""No test ends by it: pytest's own limit would."""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """The directory of a run whose keeper lives, and which has no control socket yet."""
    made = tmp_path / "named-0123456789ab"
    control_socket(str(made)).parent.mkdir(parents=True)
    descriptor = hold(str(made))
    yield made
    try:
        os.close(descriptor)
    except OSError:
        return


def listening(run: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(control_socket(str(run))))
    sock.listen()
    return sock


def asked(
    root: Path, session: str | None, appearing: float = 0.0
) -> tuple[threading.Thread, list[socket.socket | Unreachable]]:
    """Somebody who asks in the background, and what he got."""
    got: list[socket.socket | Unreachable] = []

    def ask() -> None:
        try:
            got.append(reach(root, session, FOR_EVER, appearing))
        except Unreachable as error:
            got.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, got


@pytest.mark.parametrize("session", [None, "named"])
def test_an_agent_that_is_starting_is_waited_for(run: Path, session: str | None) -> None:
    thread, got = asked(run.parent, session)
    with listening(run) as sock:
        thread.join()
        with got[0] as reached:  # type: ignore[union-attr]
            assert reached.getpeername() == sock.getsockname()


def test_an_agent_whose_guard_is_being_replaced_is_waited_for(run: Path) -> None:
    listening(run).close()
    thread, got = asked(run.parent, "named")
    control_socket(str(run)).unlink()
    with listening(run):
        thread.join()
        got[0].close()  # type: ignore[union-attr]


def test_one_that_ends_before_it_answers_is_not_waited_for_any_longer(tmp_path: Path) -> None:
    made = tmp_path / "named-0123456789ab"
    made.mkdir()
    descriptor = hold(str(made))
    thread, got = asked(tmp_path, "named")
    os.close(descriptor)
    thread.join()
    assert isinstance(got[0], Unreachable)
    assert got[0].exit is Exit.UNREACHABLE


@pytest.mark.parametrize("stale", [False, True])
def test_what_a_killed_run_left_is_no_agent(tmp_path: Path, stale: bool) -> None:
    made = tmp_path / "named-0123456789ab"
    control_socket(str(made)).parent.mkdir(parents=True)
    os.close(hold(str(made)))
    if stale:
        listening(made).close()
    with pytest.raises(Unreachable):
        reach(tmp_path, "named", FOR_EVER)


def test_another_sessions_start_is_not_waited_for(run: Path) -> None:
    with pytest.raises(Unreachable, match="no agent of the session other"):
        reach(run.parent, "other", FOR_EVER)


@pytest.mark.parametrize("session", [None, "named"])
def test_one_that_has_left_no_trace_yet_is_waited_for_by_who_must_not_miss_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session: str | None
) -> None:
    looked, runs = threading.Event(), control_client._runs

    def seen(root: Path, wanted: str | None) -> list[Path]:
        found = runs(root, wanted)
        looked.set()
        return found

    monkeypatch.setattr(control_client, "_runs", seen)
    thread, got = asked(tmp_path, session, FOR_EVER)
    assert looked.wait()
    made = tmp_path / "named-0123456789ab"
    control_socket(str(made)).parent.mkdir(parents=True)
    with listening(made):
        thread.join()
        got[0].close()  # type: ignore[union-attr]


def test_patience_has_an_end(run: Path) -> None:
    with pytest.raises(Unreachable):
        reach(run.parent, "named", 0.0)
    with pytest.raises(Unreachable):
        reach(run.parent, "later", 0.0, FOR_EVER)
