"""The session's init: commands are forks of it, what ends is told, and its channels decide how long it lives."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.channel import Channel, ChannelClosed, pair
from agent.session.command import GO, Account
from agent.session.init import Init
from agent.session.offspring import descendants
from agent.session.plan import Command, Proofs

PATIENCE_MS = 60_000


class Served:
    """An init in a process of its own, with this process as its guard and its keeper."""

    def __init__(self, proofs: Proofs) -> None:
        guard, theirs = pair()
        keeper, keepers = pair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                guard.close()
                keeper.close()
                account = Account(None, None)
                first = Command((), {}, "/")
                Init(Channel(theirs), Channel(keepers), account, alone=False, first=first, proofs=proofs).serve()
            finally:
                os._exit(99)
        theirs.close()
        keepers.close()
        self.guard, self.keeper = Channel(guard), Channel(keeper)

    def start(self, number: int, *argv: str, kind: str = "run", streams: int = 1, workdir: str = "/") -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = {"type": kind, "id": number, "argv": argv, "env": {"PATH": "/usr/bin:/bin"}, "workdir": workdir}
        with theirs:
            null = os.open(os.devnull, os.O_RDWR)
            self.guard.send(order, [null, streams, streams, theirs.fileno()])
            os.close(null)
        return ours

    def run(self, number: int, *argv: str, streams: int = 1) -> int:
        """The process id of a command that is let go."""
        with self.start(number, *argv, streams=streams) as birth:
            told = say(birth)
            assert told["type"] == "ready", told
            birth.send(GO)
            return int(told["pid"])

    def hear(self, channel: Channel | None = None) -> dict[str, Any]:
        channel = channel or self.guard
        channel.sock.settimeout(PATIENCE_MS / 1000)
        message, _ = channel.receive()
        return message

    def gone(self) -> bool:
        """Wait for its end."""
        descriptor = os.pidfd_open(self.pid)
        try:
            return bool(select.select([descriptor], [], [], PATIENCE_MS / 1000)[0])
        finally:
            os.close(descriptor)

    def gone_at_once(self) -> bool:
        return os.waitpid(self.pid, os.WNOHANG) != (0, 0)

    def close(self) -> None:
        for pid in (*descendants(self.pid), self.pid):
            with contextlib.suppress(ProcessLookupError):  # it was ending
                os.kill(pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.guard.close()
        self.keeper.close()


def say(birth: socket.socket) -> dict[str, Any]:
    assert select.select([birth], [], [], PATIENCE_MS / 1000)[0], "nothing is born"
    found: dict[str, Any] = json.loads(birth.recv(1 << 16))
    return found


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    made = Served(getattr(request, "param", Proofs()))
    yield made
    made.close()


def test_a_command_is_run_and_its_end_is_told_under_its_number(served: Served) -> None:
    read, write = os.pipe()
    served.run(7, "sh", "-c", 'echo $PATH; ls /proc/self/fd | tr "\\n" " "; exit 5', streams=write)
    os.close(write)
    assert served.hear() == {"type": "ended", "id": 7, "status": 5 << 8}
    with os.fdopen(read) as out:
        assert out.read().split() == ["/usr/bin:/bin", "0", "1", "2", "3"]  # the last one is of the listing itself


def test_commands_run_side_by_side_each_in_a_session_of_its_own(served: Served) -> None:
    first, second = served.run(1, "sleep", "60"), served.run(2, "sleep", "60")
    assert {os.getsid(first), os.getsid(second)} == {first, second}
    os.kill(second, signal.SIGTERM)
    assert served.hear() == {"type": "ended", "id": 2, "status": signal.SIGTERM}


def test_a_command_that_does_not_exist_or_may_not_run_has_a_status_for_it(served: Served) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    served.run(1, "/no/such/program", streams=null)
    assert served.hear()["status"] == 127 << 8
    served.run(2, "/etc/passwd", streams=null)
    assert served.hear()["status"] == 126 << 8
    os.close(null)


def test_a_step_that_fails_is_told_and_nothing_runs(served: Served, tmp_path: Path) -> None:
    with served.start(1, "touch", str(tmp_path / "ran"), workdir=str(tmp_path / "missing")) as birth:
        told = say(birth)
    assert (told["type"], told["step"]) == ("failed", "enter_workdir")
    assert served.hear()["id"] == 1
    assert not (tmp_path / "ran").exists()


def test_without_the_guards_word_nothing_runs(served: Served, tmp_path: Path) -> None:
    with served.start(1, "touch", str(tmp_path / "ran")) as birth:
        assert say(birth)["type"] == "ready"
    assert served.hear()["status"] != 0
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("served", [Proofs(ungranted=("/etc/passwd",))], indirect=True)
def test_the_attempts_are_made_in_a_fork_and_told(served: Served) -> None:
    with served.start(1, kind="prove") as birth:
        assert say(birth)["type"] == "ready"
        birth.send(GO)
        assert [what for what, _ in say(birth)["broken"]] == ["paths"]


def test_the_end_of_the_keepers_channel_ends_everything(served: Served) -> None:
    served.run(1, "sh", "-c", "setsid sleep 60 & (setsid sleep 61 &) & sleep 62")
    while len(descendants(served.pid)) < 4:
        select.select([], [], [], 0.01)
    below = descendants(served.pid)
    served.keeper.close()
    assert served.gone()
    assert [pid for pid in below if state(pid) not in ("", "Z")] == []  # whoever inherits them reaps them


def test_without_a_guard_it_goes_on_and_tells_the_next_one_what_runs_and_what_has_ended(served: Served) -> None:
    served.run(1, "sleep", "60")
    ending = served.run(2, "sleep", "60")
    served.guard.send({"type": "born", "id": 1, "pid": 4711})
    served.run(3, "true")
    assert served.hear()["id"] == 3  # so what was sent before it has been read
    served.guard.close()
    os.kill(ending, signal.SIGTERM)
    ours, theirs = pair()
    with theirs:
        served.keeper.send({"type": "adopt"}, [theirs.fileno()])
    served.guard = Channel(ours)
    adopted = served.hear()
    known = {**adopted, "ended": [*adopted["ended"]]}
    if len(known["ended"]) < 2:  # it was taken over before that end
        assert known["running"].pop()["id"] == 2
        known["ended"].append({key: value for key, value in served.hear().items() if key != "type"})
    assert known == {
        "type": "adopted",
        "running": [{"id": 1, "pid": 4711}],
        "ended": [{"id": 3, "status": 0}, {"id": 2, "status": signal.SIGTERM}],
    }
    served.run(4, "true")
    assert served.hear() == {"type": "ended", "id": 4, "status": 0}


def test_what_a_guard_said_last_counts_though_its_successor_is_there_already(served: Served) -> None:
    """A command of `exec` whose process was not known to the next guard was not hung up, and went on."""
    served.run(1, "sleep", "60")
    os.kill(served.pid, signal.SIGSTOP)
    os.waitpid(served.pid, os.WUNTRACED)
    served.guard.send({"type": "born", "id": 1, "pid": 4711})
    served.guard.close()
    ours, theirs = pair()
    with theirs:
        served.keeper.send({"type": "adopt"}, [theirs.fileno()])
    os.kill(served.pid, signal.SIGCONT)
    served.guard = Channel(ours)
    assert served.hear() == {"type": "adopted", "running": [{"id": 1, "pid": 4711}], "ended": []}


def test_what_the_guard_never_says_loses_it_the_channel_and_ends_nothing(served: Served) -> None:
    pid = served.run(1, "sleep", "60")
    served.guard.send({"type": "nonsense"}, [0])
    with pytest.raises(ChannelClosed):
        served.hear()
    assert Path(f"/proc/{pid}").exists()
    assert not served.gone_at_once()


def test_what_the_keeper_never_says_ends_everything(served: Served) -> None:
    served.run(1, "sleep", "60")
    served.keeper.send({"type": "nonsense"})
    assert served.gone()


def test_a_flood_of_orphans_is_reaped_and_holds_nothing_up(served: Served) -> None:
    flood = "for i in $(seq 1500); do (true &) & done; wait; exec sleep 60"
    served.run(1, "sh", "-c", flood)
    served.run(2, "true")
    assert served.hear() == {"type": "ended", "id": 2, "status": 0}
    while len(descendants(served.pid)) > 1 or zombies_below(served.pid):
        select.select([], [], [], 0.05)


def zombies_below(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [state(int(child)) for child in children].count("Z")


def state(pid: int) -> str:
    """As in /proc/PID/stat; empty where it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""
