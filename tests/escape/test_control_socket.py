"""The control socket is out of the session's reach on every runtime, and whoever else is not meant is refused."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.escape.runtime import Case, Host, Runtime, policy
from tests.escape.test_lockdown import beside, of

TRIES = Path(__file__).with_name("control_inside.py")
CONTROL = "control: {viewer: [daemon]}\n"
REFUSED = {f"control.sock {verb}": 3 for verb in ("status", "reload", "lockdown", "lift")}


@pytest.fixture
def tried(runtime: Runtime) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    """What each account came to, and the log."""
    session = f"asked-{os.getpid()}"
    case = Case((), policy() + CONTROL, env={"PARHELIA_SESSION_ID": session})
    seen, events, _ = beside(runtime, case, TRIES, session)
    return seen, events


def test_only_who_has_a_role_is_answered(
    runtime: Runtime, tried: tuple[dict[str, Any], tuple[dict[str, Any], ...]]
) -> None:
    seen, events = tried
    unknown = [event for event in of(events, "auth.failure") if event["details"]["reason"] == "unknown_caller"]
    assert seen["root"] == {
        "control.sock status": 0,
        "control.sock reload": 0,
        "control.sock lockdown": 0,
        "control.sock lift": 0,
    }
    if seen["mode"] == 0o600:  # a kernel that does not tell callers apart: the file's mode keeps them out, unrecorded
        assert runtime.name == "gvisor"
        for account in ("nobody", "session", "parhelia", "daemon"):
            assert set(seen[account].values()) == {"PermissionError"}, seen
        assert unknown == []
    else:
        for account in ("nobody", "session", "parhelia"):
            assert seen[account] == REFUSED, seen
        assert seen["daemon"] == {**REFUSED, "control.sock status": 0}
        counts: dict[str, int] = {}
        for event in unknown:
            counts[event["actor"]] = counts.get(event["actor"], 0) + event["details"].get("count", 1)
        assert {actor: counts.get(f"user:{actor}") for actor in ("nobody", "session", "parhelia")} == {
            "nobody": 4,
            "session": 4,
            "parhelia": 4,
        }
        denied = [event for event in of(events, "permission.denied") if event["actor"] == "user:daemon"]
        assert [event["resource"] for event in denied] == ["reload", "lockdown", "lift"]
    assert {event["actor"] for event in of(events, "agent.lockdown")} == {"user:root"}
    assert set(seen["inside"].values()) <= {"FileNotFoundError", "PermissionError", "ConnectionRefusedError"}, seen
    assert seen["inside"], seen["stderr"]


@pytest.mark.root
def test_a_policy_that_gives_the_session_a_role_is_refused(host: Host) -> None:
    outcome = host.run(Case(("/bin/true",), policy() + "control: {viewer: [session]}\n"))
    assert outcome.status == 4
    assert "session is the session's account" in outcome.stderr
    (rejected,) = outcome.of("policy.rejected")
    assert "session is the session's account" in rejected["details"]["reason"]


@pytest.mark.root
@pytest.mark.parametrize("verb", ["status", "reload", "lockdown"])
def test_where_no_agent_runs_the_verbs_say_so(host: Host, verb: str) -> None:
    done: subprocess.CompletedProcess[str] = host.agent(verb, "--run-dir", str(host.directory / "none"))
    assert done.returncode == 7
    assert "No such file" in done.stderr
    assert ("nothing was contained" in done.stderr) == (verb == "lockdown")
