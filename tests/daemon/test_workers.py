"""The agent's processes begin before `run` has read what it was asked: they know nothing yet, and end with it."""

from __future__ import annotations

import os

import psutil
import pytest

from agent.cli import run
from agent.cli.main import main
from agent.daemon import workers
from agent.daemon.workers import EGRESS, GUARD, Workers

ENVIRONMENT = {"PATH": os.environ["PATH"]}


def test_workers_get_a_clean_environment_and_nothing_but_their_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "protect", lambda: None)  # it is for good, and pytest's is to stay as it is
    monkeypatch.setenv("PARHELIA_SECRET", "hunter2")
    umask = os.umask(0o077)
    mine = os.open("/", os.O_PATH)
    os.set_inheritable(mine, True)
    begun = workers.start(ENVIRONMENT)
    try:
        for pid, module in ((begun.guard, GUARD), (begun.egress, EGRESS)):
            process = psutil.Process(pid)
            assert module in process.cmdline()
            assert process.environ().items() <= {**ENVIRONMENT, "LC_CTYPE": "C.UTF-8"}.items()
            assert os.getsid(pid) == pid
            held = {os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")}
            assert "/" not in held
            assert os.readlink(f"/proc/{pid}/fd/0") == os.readlink(f"/proc/{pid}/fd/1") == "/dev/null"
    finally:
        begun.end()
        os.umask(umask)
        os.close(mine)
    assert not psutil.pid_exists(begun.guard) and not psutil.pid_exists(begun.egress)


def test_what_runs_on_in_this_process_gets_them_by_its_arguments() -> None:
    channel, last_words = os.memfd_create("channel"), os.memfd_create("words")
    try:
        arguments = Workers(7, 8, channel, last_words).arguments()
        assert os.get_inheritable(channel) and os.get_inheritable(last_words)
        assert Workers.taken_over(arguments) == (7, 8, channel, last_words)
        assert not os.get_inheritable(channel) and not os.get_inheritable(last_words)
    finally:
        os.close(channel)
        os.close(last_words)


@pytest.mark.parametrize(("words", "status"), [((), 2), (("--user", "nobody-of-this-name", "--", "true"), 5)])
def test_a_refused_request_leaves_no_process_behind(
    words: tuple[str, ...], status: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    started: list[Workers] = []
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
    assert [psutil.pid_exists(pid) for pid in started[0][:2]] == [False, False]
