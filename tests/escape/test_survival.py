"""Parts of the agent that die together, in a row, stopped, with a verb in hand, or on a full disk: the session goes on
whole or ends, and nothing is left half."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent.daemon.control.wire import Frames, encode
from agent.operate.control_client import Unreachable, answer, reach, run_root
from agent.session.offspring import descendants
from tests.escape.containers import Gvisor
from tests.escape.living import EGRESS, GUARD, Living, until
from tests.escape.runtime import AGENT, RUN_SECONDS, Host, read_log, verify
from tests.escape.without_notify import HostUnsupervised

pytestmark = pytest.mark.root
PIDFD_GETFD = 438
"""On every architecture."""


@contextmanager
def living(host: Host, around: tuple[str, ...] = ()) -> Iterator[Living]:
    session = Living(host, around)
    try:
        yield session
    finally:
        session.kill_all()


def test_both_parts_killed_at_once_and_a_guard_killed_as_it_takes_over_are_replaced(host: Host) -> None:
    with living(host) as session:
        for module in (EGRESS, GUARD):
            os.kill(session.part(module), signal.SIGKILL)
        session.say()
        assert session.hear() == session.well
        until(lambda: session.recovered("guard") == 1, "a first successor")
        first = session.part(GUARD)
        os.kill(first, signal.SIGKILL)
        session.say()
        until(lambda: session.part(GUARD) not in (0, first), "a second one begins")
        os.kill(session.part(GUARD), signal.SIGKILL)
        assert session.hear() == session.well
        assert session.end() == 0
    assert session.recovered("guard") >= 2, "one of the deaths may have come before it could say so"
    assert verify(host.audit) == 0


def test_while_the_keeper_is_stopped_all_is_decided_and_a_guard_that_dies_then_is_replaced_when_it_goes_on(
    host: Host,
) -> None:
    with living(host) as session:
        session.process.send_signal(signal.SIGSTOP)
        session.say()
        assert session.hear() == session.well
        os.kill(session.part(GUARD), signal.SIGKILL)
        session.say()
        session.process.send_signal(signal.SIGCONT)
        assert session.hear() == session.well
        until(lambda: session.recovered("guard") == 1, "a successor")
        assert session.end() == 0
    assert verify(host.audit) == 0


def test_a_signal_that_a_guard_did_not_live_to_pass_on_reaches_the_session(host: Host) -> None:
    with living(host) as session:
        guard = session.part(GUARD)
        os.kill(guard, signal.SIGSTOP)
        session.process.send_signal(signal.SIGTERM)
        until(lambda: unread(guard), "the keeper to have told the guard")
        os.kill(guard, signal.SIGKILL)
        assert session.process.wait(RUN_SECONDS) == 128 + signal.SIGTERM
        assert [each["signal"] for each in session.details("session.terminate")] == ["SIGTERM"]
        assert session.recovered("guard") == 1
    assert verify(host.audit) == 0


def unread(guard: int) -> bool:
    """Has this process, which is stopped, something to read from its keeper? By a copy of its end, pidfd_getfd(2)."""
    words = argv_of(guard).split(b"\0")
    process = os.pidfd_open(guard)
    held = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, process, int(words[words.index(b"--keeper") + 1]), 0)
    assert held >= 0, os.strerror(ctypes.get_errno())
    try:
        return bool(select.select([held], [], [], 0)[0])
    finally:
        os.close(held)
        os.close(process)


def test_where_execs_are_not_supervised_a_guard_that_dies_is_replaced_too(host: Host) -> None:
    with living(HostUnsupervised(host.directory, host.upstream)) as session:
        levels = {event["resource"]: event["details"].get("level") for event in read_log(host.audit)}
        assert levels["exec"] == "advisory"
        os.kill(session.part(GUARD), signal.SIGKILL)
        until(
            lambda: session.recovered("guard") == session.recovered("egress") == 1, "another guard and egress process"
        )
        session.say()
        assert session.hear() == session.well
        assert session.end() == 0
    assert verify(host.audit) == 0


def test_a_verb_that_is_in_hand_when_the_guard_dies_fails_and_leaves_nothing_half(host: Host) -> None:
    """Not read yet, of each verb; of `exec` also when its command runs; of a lockdown in the middle of a freeze."""
    with living(host) as session:
        guard = session.part(GUARD)
        until(lambda: session.agent("status").returncode == 0, "the control socket")
        os.kill(guard, signal.SIGSTOP)
        verbs = ({"verb": "status"}, {"verb": "reload"}, {"verb": "lockdown", "measure": "kill"})
        asked = [reach(run_root(None), session.id) for _ in verbs]
        for sock, verb in zip(asked, verbs, strict=True):
            sock.sendall(encode({**verb}))
        os.kill(guard, signal.SIGKILL)
        for sock in asked:
            with sock, pytest.raises(Unreachable):
                answer(sock, Frames())
        until(lambda: session.recovered("guard") == 1, "a successor")
        session.say()
        assert session.hear() == session.well

        argv = [AGENT, "exec", "--session", session.id, "--", "/bin/sh", "-c", "echo up; exec sleep 1000"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
            assert command.stdout is not None
            assert command.stdout.readline() == "up\n"
            os.kill(session.part(GUARD), signal.SIGKILL)
            command.communicate(timeout=60)
            assert command.returncode == 7
        until(lambda: session.details("session.detach"), "its command is hung up")
        until(lambda: not running(session, b"1000"), "nothing of it is left")

        assert session.agent("lockdown", "--cut").returncode == 0
        stopped = [pid for pid in descendants(session.process.pid) if b"\0-c\0" in argv_of(pid)]
        for pid in stopped:  # as far as the guard had come
            os.kill(pid, signal.SIGSTOP)
        os.kill(session.part(GUARD), signal.SIGKILL)
        until(lambda: session.recovered("guard") == 3, "a third one")
        until(lambda: session.agent("status").returncode == 0, "the control socket")
        assert session.agent("lockdown", "--lift").returncode == 0
        session.say()
        assert session.hear() == session.well
        assert session.end() == 0
    assert verify(host.audit) == 0


def argv_of(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def running(session: Living, word: bytes) -> list[int]:
    return [pid for pid in descendants(session.process.pid) if word in argv_of(pid).split(b"\0")]


def test_a_guard_that_dies_while_the_logs_disk_is_full_is_the_end_of_the_session(host: Host, tmp_path: Path) -> None:
    """What it had accepted cannot be written; nothing that was asked meanwhile is decided."""
    volume = tmp_path / "volume"
    volume.mkdir(mode=0o700)
    host.audit = volume / "log"
    mount = 'mount -t tmpfs -o size=1m,mode=700 none "$0" && exec "$@"'
    around = ("unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", mount, str(volume))
    with living(host, around) as session:
        filler = Path(f"/proc/{session.process.pid}/root{volume}/filler")
        with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
            for _ in range(1000):
                file.write(b"x" * 4096)
        session.say()
        while session.hear() == session.well:  # until the log's last page is full too
            session.say()
        below = descendants(session.process.pid)
        os.kill(session.part(GUARD), signal.SIGKILL)
        session.say()
        assert session.hear() is None
        assert session.process.wait(RUN_SECONDS) == 137
        assert session.process.stderr is not None
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), "their ends, and who reaps them")
        words = session.process.stderr.read()
        assert "the session cannot be taken over" in words and "No space left on device" in words
        assert "Traceback" not in words.partition("cannot be taken over")[2]


@pytest.mark.docker
@pytest.mark.gvisor
def test_in_gvisor_with_one_uid_for_all_no_session_starts(gvisor_2024: Gvisor) -> None:
    """It could read the agent's log, and what is left to a next guard."""
    start = (
        "cd /tmp && mkdir -m 700 policies run && echo 'version: 1' > policies/policy.yaml && exec"
        " /opt/parhelia/bin/parhelia-agent run --run-dir run --policy policies --audit-dir audit -- /bin/echo ran"
    )
    done = gvisor_2024.unprivileged("/bin/sh", "-c", start)
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    assert "can be read by the session's user" in done.stderr
