"""Containment on demand: on every runtime a session is cut, held still, let go on and ended, with its evidence kept."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.escape.containers import SHARED, Container
from tests.escape.runtime import AUDIT, Case, Host, Runtime, policy, read_log, verify
from tests.escape.test_live_policy import until
from tests.escape.test_secrets import Gateway

OPERATOR = Path(__file__).with_name("lockdown_inside.py")
COUNT = """
import os, sys, time
n = 0
while True:
    n += 1
    with open(sys.argv[1] + ".new", "w") as file: file.write(str(n))
    os.replace(sys.argv[1] + ".new", sys.argv[1])
    time.sleep(0.01)
"""
CONTROL = "control: {viewer: [daemon], operator: [bin]}\n"


def beside(
    runtime: Runtime, case: Case, script: Path, *words: str
) -> tuple[dict[str, Any], tuple[dict[str, Any], ...], Path]:
    """What `script` saw, which runs beside the agent (as root) and starts it; the log, and where that lies."""
    if isinstance(runtime, Container):
        argv = runtime.argv(case)
        at = argv.index("run") - 1
        (runtime.directory / script.name).write_bytes(script.read_bytes())
        done = runtime.execute([*argv[:at], "python3", f"{SHARED}/{script.name}", *words, *argv[at:]], case.env)
        audit = runtime.directory / AUDIT
    else:
        assert isinstance(runtime, Host)
        argv, env = ["python3", str(script), *words, *runtime.command(case)], runtime.environment(case)
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=150, check=False)
        audit = runtime.audit
    assert done.returncode == 0, done.stdout + done.stderr
    assert verify(audit) == 0
    return json.loads(done.stdout.splitlines()[-1]), read_log(audit), audit


def contained(runtime: Runtime, *, gateway: str = "") -> tuple[dict[str, Any], tuple[dict[str, Any], ...], Path]:
    """What the operator beside the session saw, the log, and where it lies."""
    session = f"lockdown-{os.getpid()}"
    env = {"PARHELIA_SESSION_ID": session, **({"PARHELIA_PUSHGATEWAY_URL": gateway} if gateway else {})}
    case = Case((), policy() + CONTROL, env=env)
    return beside(runtime, case, OPERATOR, str(runtime.upstream.ports["tls"]), session)


def of(events: tuple[dict[str, Any], ...], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["details"]["event_type"] == kind]


def test_a_session_is_cut_frozen_let_go_and_ended_on_demand(runtime: Runtime) -> None:
    seen, events, audit = contained(runtime)
    assert seen["before"]["lockdown"]["measures"] == []
    assert seen["cut"]["exit"] == 0, seen
    assert seen["tunnel"] in ("ConnectionResetError", "BrokenPipeError", "SSLEOFError", "SSLError", "end"), seen
    assert "X-Parhelia-Rule: lockdown" in seen["next"]
    assert seen["counts_while_cut"]
    assert seen["freeze"]["exit"] == 0, seen
    assert not seen["counts_while_frozen"]
    assert seen["frozen"]["lockdown"]["measures"] == ["cut", "freeze"]
    assert seen["lift"]["exit"] == 0
    assert seen["counts_after"]
    assert seen["kill"]["exit"] == 0
    assert seen["status"] == 137
    assert seen["left"] == []
    assert seen["unreachable"] == 7
    lockdowns = of(events, "agent.lockdown")
    assert [event["details"]["measures"] for event in lockdowns] == [
        ["cut"],
        ["cut", "freeze"],
        [],
        ["cut", "freeze", "kill"],
    ]
    assert {event["actor"] for event in lockdowns} == {"user:root"}
    assert (lockdowns[0]["details"]["cause"], lockdowns[0]["details"]["cut_connections"]) == ("try it", 1)
    assert lockdowns[2]["details"]["lifted"] == ["cut", "freeze"]
    blocked = [event["details"]["rule"] for event in of(events, "network.egress_blocked")]
    assert blocked.count("lockdown") >= 2  # the tunnel, and the next one
    (ended,) = of(events, "session.terminate")
    assert ended["details"]["reason"] == "lockdown: enough"
    degraded = of(events, "agent.degraded")[len(seen["degraded"]) :]
    assert [event for event in degraded if not event["resource"].startswith("process:")] == []  # the stand-in servers
    check_evidence(audit, lockdowns)


def check_evidence(audit: Path, lockdowns: list[dict[str, Any]]) -> None:
    for event in (lockdowns[0], lockdowns[1], lockdowns[3]):
        directory = audit / event["details"]["evidence"]
        assert directory.stat().st_mode & 0o777 == 0o700
        parts = {path.name: json.loads(path.read_text()) for path in directory.iterdir()}
        assert [path for path in directory.iterdir() if path.stat().st_mode & 0o077] == []
        assert "hunter2" not in json.dumps(parts["processes.json"])
        commands = [" ".join(process.get("argv", [])) for process in parts["processes.json"]]
        assert any("count" in command for command in commands), commands
        assert parts["status.json"]["lockdown"]["measures"] == event["details"]["measures"]
        assert "allowed.test" in json.dumps(parts["policy.json"])
        assert parts["audit.json"]["ok"] and parts["audit.json"]["last_seq"] >= event["details"]["seq"]


@pytest.mark.root
def test_a_lockdown_is_counted_and_pushed(host: Host) -> None:
    pushed: list[str] = []
    gateway = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Kept", (Gateway,), {"pushed": pushed}))
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    contained(host, gateway=f"http://127.0.0.1:{gateway.server_address[1]}")
    gateway.shutdown()
    gateway.server_close()
    lines = pushed[-1].splitlines()
    assert 'parhelia_agent_lockdowns_total{measure="cut"} 3.0' in lines
    assert 'parhelia_agent_lockdowns_total{measure="freeze"} 2.0' in lines
    assert 'parhelia_agent_lockdowns_total{measure="kill"} 1.0' in lines


WOKEN = r"""
import ctypes, fcntl, os, signal, sys, time
MODIFIED_OR_TOUCHED = 2 | 4
changes = ctypes.CDLL(None).inotify_init1(0)
ctypes.CDLL(None).inotify_add_watch(changes, sys.argv[1].encode(), MODIFIED_OR_TOUCHED)
signal.signal(signal.SIGCONT, lambda *_: None)
fcntl.fcntl(changes, fcntl.F_SETOWN, os.getpid())
fcntl.fcntl(changes, fcntl.F_SETSIG, signal.SIGCONT)
fcntl.fcntl(changes, fcntl.F_SETFL, os.O_ASYNC)
open(sys.argv[1], "w").write("ready")
for _ in range(60_000): time.sleep(0.01)
"""


@pytest.mark.root
def test_a_session_that_has_itself_let_go_on_is_not_held_but_ended(host: Host) -> None:
    """The kernel sends it SIGCONT, again and again, for what becomes of a file."""
    session, file = f"woken-{os.getpid()}", Path("/tmp", f"woken-{os.getpid()}")
    file.touch(0o666)
    file.chmod(0o666)
    case = Case(("/usr/bin/python3", "-c", WOKEN, str(file)), policy(), env={"PARHELIA_SESSION_ID": session})
    ended = threading.Event()

    def stir() -> None:
        while not ended.wait(0.01):
            file.write_text("changed")  # two kinds in turn: one that is like the last in the queue is not told again
            os.utime(file)

    stirring = threading.Thread(target=stir)
    try:
        with subprocess.Popen(host.command(case), env=host.environment(case), stdin=subprocess.DEVNULL) as run:
            while file.read_text() != "ready":
                assert run.poll() is None
                time.sleep(0.02)
            stirring.start()
            until(lambda: host.agent("status", "--session", session).returncode == 0, "the control socket")
            assert host.agent("lockdown", "--freeze", "--session", session).returncode == 0
            assert run.wait(60) == 137
    finally:
        ended.set()
        if stirring.ident is not None:
            stirring.join()
        file.unlink()
    lockdowns = of(read_log(host.audit), "agent.lockdown")
    assert lockdowns[-1]["details"]["measures"] == ["cut", "freeze", "kill"]
    assert verify(host.audit) == 0


@pytest.mark.root
@pytest.mark.parametrize("measure", ["cut", "freeze"])
def test_a_lockdown_outlasts_the_guard(host: Host, measure: str) -> None:
    session, counter = f"outlast-{os.getpid()}", Path(f"/tmp/outlast-{os.getpid()}-{measure}")
    case = Case(("/usr/bin/python3", "-c", COUNT, str(counter)), policy(), env={"PARHELIA_SESSION_ID": session})
    run = subprocess.Popen(host.command(case), env=host.environment(case), stdin=subprocess.DEVNULL)

    def ask(*words: str) -> dict[str, Any]:
        done = host.agent(*words, "--session", session, "--json")
        return {"exit": done.returncode, **json.loads(done.stdout or "{}")}

    def moves() -> bool:
        before, deadline = counter.read_text(), time.monotonic() + 1.5
        while time.monotonic() < deadline and counter.read_text() == before:
            time.sleep(0.05)
        return counter.read_text() != before

    try:
        until(lambda: counter.exists() and ask("status")["exit"] == 0, "the session")
        assert ask("lockdown", f"--{measure}")["exit"] == 0
        guard = ask("status")["status"]["pids"]["guard"]
        os.kill(guard, signal.SIGKILL)
        until(lambda: ask("status").get("status", {}).get("pids", {}).get("guard", guard) != guard, "another guard")
        until(lambda: ask("status")["status"]["lockdown"]["measures"][-1:] == [measure], "the measure, which holds on")
        for pid in pids_of(str(counter)):  # somebody lets them go: they are held, not only stopped
            os.kill(pid, signal.SIGCONT)
        until(lambda: moves() is (measure == "cut"), "them to go on where they may, to be held where not")
        refused = host.agent("exec", "--session", session, "--", "/bin/true")
        assert refused.returncode == (0 if measure == "cut" else 126), refused.stderr
        assert ask("lockdown", "--lift")["exit"] == 0
        until(moves, "it to go on")
        assert ask("lockdown", f"--{measure}")["exit"] == 0
        keeper = ask("status")["status"]["pids"]["keeper"]
        os.kill(keeper, signal.SIGTERM)
        assert run.wait(60) == (143 if measure == "cut" else 137)
        assert read_log(host.audit)[-1]["details"]["event_type"] == "agent.stop"
        assert verify(host.audit) == 0
    finally:
        run.kill()
        run.wait()
        for path in (counter, Path(f"{counter}.new")):
            path.unlink(missing_ok=True)


def pids_of(word: str) -> list[int]:
    """Processes of the session that have this argument."""
    found = []
    for entry in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            argv = Path(f"/proc/{entry}/cmdline").read_text().split("\0")
        except OSError:
            continue
        if word in argv and argv[0] == "/usr/bin/python3":
            found.append(entry)
    return found
