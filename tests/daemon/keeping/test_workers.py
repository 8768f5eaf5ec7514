"""The guard begins before `run` has read what it was asked: it knows nothing yet, and ends with it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from agent.cli import run
from agent.cli.main import main
from agent.daemon.keeping import workers
from agent.daemon.keeping.workers import GUARD, First

ENVIRONMENT = {"PATH": os.environ["PATH"]}


def led_to(opened: Path) -> set[str]:
    """Where its descriptors lead; it opens and closes files meanwhile."""
    found = set()
    for each in opened.iterdir():
        with suppress(FileNotFoundError):
            found.add(os.readlink(each))
    return found


def test_the_guard_gets_a_clean_environment_and_nothing_but_its_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "protect", lambda: None)  # it is for good, and pytest's is to stay as it is
    monkeypatch.setenv("PARHELIA_SECRET", "hunter2")
    umask = os.umask(0o077)
    mine = os.open("/", os.O_PATH)
    os.set_inheritable(mine, True)
    begun = workers.start(ENVIRONMENT)
    try:
        process = psutil.Process(begun.guard)
        while not process.cmdline():  # the spawn returns in the middle of the exec
            time.sleep(0.001)
        assert GUARD in process.cmdline()
        assert process.environ().items() <= {**ENVIRONMENT, "LC_CTYPE": "C.UTF-8"}.items()
        assert os.getsid(begun.guard) == begun.guard
        opened = Path(f"/proc/{begun.guard}/fd")
        assert "/" not in led_to(opened)
        assert os.readlink(opened / "0") == os.readlink(opened / "1") == "/dev/null"
    finally:
        begun.end()
        os.umask(umask)
        os.close(mine)
    assert not psutil.pid_exists(begun.guard)


def test_what_runs_on_in_this_process_gets_it_by_its_arguments() -> None:
    channel = os.memfd_create("channel")
    try:
        arguments = First(7, channel).arguments()
        assert os.get_inheritable(channel)
        assert First.taken_over(arguments) == (7, channel)
        assert not os.get_inheritable(channel)
    finally:
        os.close(channel)


@pytest.mark.parametrize(("words", "status"), [((), 2), (("--user", "nobody-of-this-name", "--", "true"), 5)])
def test_a_refused_request_leaves_no_process_behind(
    words: tuple[str, ...], status: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    started: list[First] = []
    begin = workers.start
    monkeypatch.setattr(workers, "protect", lambda: None)
    monkeypatch.setattr(run, "start", lambda environment: started.append(begin(environment)) or started[0])
    monkeypatch.setattr("os.geteuid", lambda: 0)
    umask = os.umask(0o022)
    try:
        assert main(["run", *words]) == status
    finally:
        os.umask(umask)
    assert capfd.readouterr().err.startswith("parhelia: ")
    assert not psutil.pid_exists(started[0].guard)
