"""Killing the keeper, or the session's tracer or init, never leaves a session that can do more than before: it ends."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from agent.daemon.base.names import CANARY_HOMES
from agent.session.offspring import descendants
from tests.escape.containers import SHARED, Container
from tests.escape.runtime import AUDIT, Case, Host, policy, read_log, verify

PARTS = {"keeper": "agent.daemon.keeper", "launcher": "agent.session.launch"}
"""What was the launcher is the tracer, where execs are traced, else the init."""
RUN_ROOT = Path("/run/parhelia")
WAIT_SECONDS = 100.0
CONTAINERS = [
    pytest.param("docker_sessions", "keeper", marks=[pytest.mark.root, pytest.mark.docker], id="docker-keeper"),
    *(
        pytest.param(
            "gvisor_sessions",
            part,
            marks=[pytest.mark.root, pytest.mark.docker, pytest.mark.gvisor],
            id=f"gvisor-{part}",
        )
        for part in PARTS
    ),
]


def until(found: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not found():
        assert time.monotonic() < deadline, f"still waiting: {what}"
        time.sleep(0.02)


def part(root: int, module: str) -> int:
    """The process below `root` that runs this module."""
    for pid in (root, *descendants(root)):
        try:
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if module.encode() in argv:
            return pid
    return 0


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def running(either_host: Host) -> tuple[Host, subprocess.Popen[str], list[int]]:
    """A session with a background process in a session of its own that tries to get out for ever."""
    host = either_host
    mark = f"/tmp/parhelia-mark-{os.getpid()}-{random.randrange(1 << 30)}"
    attack = (
        "import os, socket, sys, time\n"
        f"port = {host.upstream.ports['raw']}\n"
        "while True:\n"
        "    try: socket.create_connection(('127.0.0.1', port), 1).close()\n"
        "    except OSError: pass\n"
        "    time.sleep(0.05)\n"
    )
    script = f'setsid python3 -c "$0" & echo up > {mark}; wait'
    process = subprocess.Popen(
        host.command(Case(("/bin/sh", "-c", script, attack), policy())),
        env=host.environment(Case((), "")), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        until(lambda: Path(mark).exists() or process.poll() is not None, "the session to start")
        assert process.poll() is None, process.communicate()
        until(lambda: session_processes(process.pid), "the session's processes")
        yield host, process, session_processes(process.pid)  # type: ignore[misc]
    finally:
        Path(mark).unlink(missing_ok=True)
        for pid in (*descendants(process.pid), process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=WAIT_SECONDS)


def session_processes(root: int) -> list[int]:
    found = []
    for pid in descendants(root):
        try:
            if b"socket.create_connection" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found if len(found) >= 2 else []  # the shell that started it and the attacker itself


def kill_at_once(root: int) -> None:
    """Kill keeper and guard; neither sees the other's end."""
    victims = [part(root, name) for name in (PARTS["keeper"], "agent.daemon.guard")]
    assert 0 not in victims
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for victim in victims:
            os.kill(victim, number)


@pytest.mark.parametrize("victim", list(PARTS))
def test_the_session_ends_with_its_keeper_and_with_its_tracer_or_init(
    running: tuple[Host, subprocess.Popen[str], list[int]], victim: str
) -> None:
    host, process, session = running
    before = host.upstream.escapes
    pid = part(process.pid, PARTS[victim])
    ours = read_log(host.audit)[0]["details"]["boot"]
    assert pid, f"no {victim}"
    everything = [*descendants(process.pid)]
    os.kill(pid, signal.SIGKILL)
    until(lambda: not any(alive(one) for one in session), "the session to end")
    until(lambda: not any(alive(one) for one in everything), "the agent to end")
    assert process.wait(WAIT_SECONDS) != 0
    assert host.upstream.escapes == before
    places = [Path("/tmp"), Path("/run/parhelia"), *(Path(home) for home in CANARY_HOMES)]
    assert [path for place in places if place.is_dir() for path in place.glob(f"*{ours}*")] == []
    assert verify(host.audit) == 0
    kinds = [event["details"]["event_type"] for event in read_log(host.audit)]
    assert kinds[-2:] == ["session.terminate", "agent.stop"]


@pytest.mark.parametrize(("kind", "victim"), CONTAINERS)
def test_in_containers_too_the_session_ends_with_its_keeper_and_its_tracer(
    request: pytest.FixtureRequest, kind: str, victim: str
) -> None:
    sessions: Container = request.getfixturevalue(kind)
    argv = sessions.argv(Case((), policy()))
    agent = argv[argv.index("run") - 1 : -1]  # without the "--" that ends it
    inside = ["python3", f"{SHARED}/death_inside.py", PARTS[victim], "session", str(sessions.upstream.ports["raw"])]
    done = sessions.execute([*argv[: argv.index("run") - 1], *inside, *agent], {})
    assert done.returncode == 0, done.stdout + done.stderr
    left = json.loads(done.stdout.splitlines()[-1])
    assert left["left"] == []
    assert left["status"] != 0
    assert sessions.upstream.escapes == 0
    assert verify(sessions.directory / AUDIT) == 0


def test_the_log_of_a_guard_killed_with_its_keeper_is_whole_and_is_continued(
    running: tuple[Host, subprocess.Popen[str], list[int]],
) -> None:
    host, process, _ = running
    kill_at_once(process.pid)
    assert process.wait(WAIT_SECONDS) != 0
    before = read_log(host.audit)
    assert "session.create" in {event["details"]["event_type"] for event in before}
    again = host.run(Case(("/bin/true",), policy()))
    assert again.status == 0, again.stderr
    assert again.verified == 0
    assert again.events[: len(before)] == before


@pytest.mark.root
def test_what_a_killed_agent_left_on_the_machine_goes_with_the_next_session(host: Host) -> None:
    granted = policy(write="/tmp, /home/session") + "  protect: [~/.bash_login]\n"
    process = subprocess.Popen(
        host.command(Case(("/bin/sh", "-c", "echo up; sleep 600"), granted)), env=host.environment(Case((), "")),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    (created,) = [event for event in read_log(host.audit) if event["details"]["event_type"] == "session.create"]
    instance = f"{created['details']['session_id']}-{created['details']['boot']}"
    kill_at_once(process.pid)
    process.communicate(timeout=WAIT_SECONDS)
    left = [Path("/tmp", f"session-{instance}"), *Path("/home/session").glob(".bash_login"), *RUN_ROOT.glob(instance)]
    assert len(left) == 3, left
    for _ in range(2):  # where the names were free, and where placeholders lay
        assert host.run(Case(("/bin/true",), granted)).status == 0
        assert [path for path in left if path.exists()] == []


def test_a_signal_to_the_agent_reaches_the_session_and_its_status_comes_back(either_host: Host) -> None:
    host = either_host
    # dash forgets a signal that comes between its vfork(2) and the exec: it has none in hand here
    script = "trap 'echo caught; exit 9' TERM; sleep 300 & echo up; wait"
    process = subprocess.Popen(
        host.command(Case(("/bin/sh", "-c", script), policy())), env=host.environment(Case((), "")),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n", process.communicate()
    os.kill(part(process.pid, PARTS["keeper"]), signal.SIGTERM)
    out, err = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, out) == (9, "caught\n"), err


def test_nothing_that_the_session_started_outlives_it(either_host: Host) -> None:
    mark = f"3600.{random.randrange(1 << 30)}"
    script = f"setsid sleep {mark} & nohup sleep {mark} & (sleep {mark} &) & sleep 0.2; exit 3"
    outcome = either_host.run(Case(("/bin/sh", "-c", script), policy()))
    assert outcome.status == 3, outcome.stderr
    assert [path for path in Path("/proc").glob("[0-9]*/cmdline") if mark.encode() in commandline(path)] == []


def commandline(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
