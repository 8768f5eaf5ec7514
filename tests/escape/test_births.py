"""A session's first moments under attack: while it is made, before its first instruction, before its agent answers."""

from __future__ import annotations

import array
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from agent.daemon.control.execs import MAX_EXECS
from agent.daemon.control.wire import encode
from agent.operate.control_client import reach
from tests.escape.killer import part
from tests.escape.runtime import AGENT, Case, Host, policy, read_log, verify
from tests.escape.test_death_of_the_agent import RUN_ROOT
from tests.escape.test_live_policy import events, until

WAIT_S = 60
REPLACING = """
import os, sys
target, session = sys.argv[1:]
print("up", flush=True)
while True:
    for name in os.listdir("/tmp"):
        for path in (f"/tmp/{name}", f"/tmp/{name}/tmp", f"/tmp/{name}/home"):
            if name.startswith(f"session-{session}-") and not name.endswith(".away") and not os.path.islink(path):
                try:
                    os.rename(path, path + ".away")
                    os.symlink(target, path)
                except OSError: continue
"""
"""Takes away what is made for a session and puts a symlink in its place."""
UNGRANTED = "/var/lib/dpkg"


@contextmanager
def somebody(script: str, *words: str) -> Iterator[None]:
    """A process of the session's account, outside of any session, that runs this for as long as it is open."""
    argv = ["setpriv", "--reuid=session", "--regid=session", "--clear-groups", "/usr/bin/python3", "-c", script, *words]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == b"up\n"
            yield
        finally:
            running.kill()


def test_what_is_made_for_a_session_is_not_replaced_by_another_process_of_its_account(host: Host) -> None:
    reading = f'head -c 8 {UNGRANTED}/status; echo "$?"; touch "$TMPDIR/x"; echo "$?"; readlink "$TMPDIR"'
    session = f"births-{os.getpid()}"
    case = Case(("/bin/sh", "-c", reading), policy(write="/var/tmp"), env={"PARHELIA_SESSION_ID": session})
    with somebody(REPLACING, UNGRANTED, session):
        outcome = host.run(case)
    assert outcome.stdout == "1\n0\n", outcome.stderr
    assert outcome.verified == 0


@contextmanager
def running(host: Host, command: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A session, by its name, from when it begins: there is a run, and nothing else yet."""
    session = f"births-{os.getpid()}"
    case = Case(("/bin/sh", "-c", command), policy(), env={"PARHELIA_SESSION_ID": session})
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(host.command(case), env=host.environment(case), **pipes) as run:
        try:
            until(lambda: [*RUN_ROOT.glob(f"{session}-*/held")], "the run")
            yield session, run
        finally:
            run.terminate()
            run.wait(WAIT_S)


def alive(word: str) -> list[str]:
    """Processes with this argument that run and are not held still."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline") as words, open(f"/proc/{entry}/stat") as stat:
                if word in words.read().split("\0") and stat.read().rpartition(")")[2].split()[0] not in "TtZX":
                    found.append(entry)
        except OSError:
            continue
    return found


def test_a_lockdown_that_is_asked_for_before_the_run_can_be_seen_contains_the_session(host: Host) -> None:
    mark, session = f"304.{os.getpid()}", f"births-{os.getpid()}"
    argv = [str(AGENT), "lockdown", "--kill", "--session", session]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as asking:
        with running(host, f"while :; do sleep {mark} & sleep 0.01; done") as (_, run):
            _, said = asking.communicate(timeout=WAIT_S)
            assert asking.returncode == 0, said
            assert run.wait(WAIT_S) == 128 + signal.SIGKILL
        assert alive(mark) == []
    assert events(host.audit, "agent.lockdown")


@pytest.mark.parametrize("measure", ["--kill", "--freeze"])
def test_a_lockdown_that_comes_while_the_session_is_made_contains_it(host: Host, measure: str) -> None:
    mark = f"302.{os.getpid()}"
    with running(host, f"while :; do sleep {mark} & sleep 0.01; done") as (session, run):
        argv = [str(AGENT), "lockdown", measure, "--session", session]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=WAIT_S, check=False)
        assert done.returncode == 0, done.stderr
        assert events(host.audit, "agent.lockdown")
        if measure == "--kill":
            assert run.wait(WAIT_S) == 128 + signal.SIGKILL
        until(lambda: not alive(mark), "the end of what was waiting uninterruptibly")
    assert verify(host.audit) == 0


def test_a_signal_that_comes_while_the_session_is_made_is_not_lost(host: Host) -> None:
    with running(host, "sleep 300") as (_, run):
        run.send_signal(signal.SIGTERM)
        assert run.wait(WAIT_S) == 128 + signal.SIGTERM
    assert [event["details"]["signal"] for event in events(host.audit, "session.terminate")] == ["SIGTERM"]
    assert verify(host.audit) == 0


def begin(link: socket.socket, kind: str, script: str) -> None:
    """A caller's first words to `exec`, as far as it gets."""
    terminals = [0, 1, 2] if kind.startswith("terminal") else []
    request = encode({"verb": "exec", "argv": ["/bin/sh", "-c", script], "terminals": terminals})
    null = os.open(os.devnull, os.O_RDWR)
    try:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * 3))]
        link.sendmsg([request[: len(request) // (2 if kind == "half a request" else 1)]], rights)
    finally:
        os.close(null)
    if kind == "terminal, taken":
        _, terminal, _, _ = socket.recv_fds(link, 1 << 12, 1)
        link.sendall(encode({"type": "ready"}))
        for descriptor in terminal:
            os.close(descriptor)


def test_commands_of_exec_that_outlive_their_callers_count_to_the_most_that_may_run(host: Host) -> None:
    mark = f"305.{os.getpid()}"
    script = f"trap '' HUP; sleep {mark}"
    with running(host, "sleep 300") as (session, _):
        one_more = [str(AGENT), "exec", "--session", session, "--", "/bin/sh", "-c", script]
        with ExitStack() as callers:
            for _ in range(MAX_EXECS):
                begin(callers.enter_context(reach(RUN_ROOT, session)), "no terminal", script)
            until(lambda: len(alive(mark)) == MAX_EXECS, "their commands")
        until(lambda: len(events(host.audit, "session.detach")) == MAX_EXECS, "the ends of those who asked")
        assert len(alive(mark)) == MAX_EXECS
        done = subprocess.run(one_more, capture_output=True, text=True, timeout=WAIT_S, check=False)
        assert (done.returncode, f"{MAX_EXECS} commands" in done.stderr) == (3, True), done
        until(lambda: events(host.audit, "permission.denied"), "the record")
        shown = subprocess.run(
            [str(AGENT), "status", "--json", "--session", session], capture_output=True, timeout=WAIT_S, check=True
        )
        assert b'"permission.denied": 1' in shown.stdout
    (denied,) = events(host.audit, "permission.denied")
    assert (denied["details"]["rule"], denied["resource"]) == ("exec-limit", "exec")
    assert verify(host.audit) == 0


def test_callers_of_exec_who_vanish_at_its_birth_leave_nothing_behind(host: Host) -> None:
    mark, kinds = f"303.{os.getpid()}", ("half a request", "no terminal", "terminal, not taken", "terminal, taken")
    log = host.audit
    with running(host, "sleep 300") as (session, run):
        reach(RUN_ROOT, session).close()
        guard = part(run.pid, "agent.daemon.guard")
        until(lambda: events(log, "session.create"), "the session")
        for ends, rounds in ((3, 1), (15, 4)):  # the first ones show what the guard opens once
            before = len(os.listdir(f"/proc/{guard}/fd"))
            for kind in kinds * rounds:
                with reach(RUN_ROOT, session) as link:
                    begin(link, kind, f"sleep {mark}")
            until(lambda ends=ends: len(events(log, "session.detach")) == ends, "the ends of those who asked")
        until(lambda: not alive(mark), "their processes' ends")
        until(lambda: len(os.listdir(f"/proc/{guard}/fd")) <= before, "the descriptors that they brought to be closed")
    told = read_log(host.audit)
    by_kind = {
        kind: [event["details"]["exec"] for event in told if event["details"]["event_type"] == kind]
        for kind in ("session.attach", "session.detach")
    }
    assert by_kind["session.attach"] == [*range(1, 16)]
    assert sorted(by_kind["session.detach"]) == [*range(1, 16)]
    assert [event["details"] for event in told if event["details"]["event_type"] == "bash.dangerous"] == []
