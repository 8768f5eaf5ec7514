"""Whoever starts a program beside the session starts it outside of every wall: the log says so, with its words."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.escape.conftest import RUNTIMES
from tests.escape.containers import Container, Docker, Restricted
from tests.escape.runtime import Case, Host, Outcome, policy
from tests.escape.telling import Telling, beside
from tests.escape.test_integrity import WATCHING
from tests.escape.test_live_policy import events, places, until

SECONDS = 600
RESTRICTED = pytest.param("restricted_sessions", marks=[pytest.mark.root, pytest.mark.docker], id="restricted")
SESSION = f"for n in 1 2 3; do sleep {SECONDS} & done; "


ENTERED = {"0": "sleep 607", "1000": "sleep 608"}
"""Who enters a container, and with what."""


@pytest.fixture(params=[*RUNTIMES[1:], RESTRICTED])
def container(request: pytest.FixtureRequest) -> Container:
    """Each kind of container in turn."""
    found: Container = request.getfixturevalue(request.param)
    return found


def outside(outcome: Outcome) -> list[dict[str, Any]]:
    return [event for event in outcome.of("agent.degraded") if event["resource"].startswith("process:")]


@pytest.mark.root
def test_a_process_of_the_session_s_account_that_nothing_confines_is_reported(host: Host) -> None:
    started: list[int] = []

    def intrude() -> None:
        until(lambda: events(host.audit, "session.create"), "the session")
        argv = ["/bin/sleep", f"{SECONDS * 4}"]
        with subprocess.Popen(argv, user=pwd.getpwnam("session").pw_uid, group=pwd.getpwnam("session").pw_gid) as one:
            started.append(one.pid)
            try:
                until(lambda: any(e["details"].get("pid") == one.pid for e in degraded(host.audit)), "it to be found")
            finally:
                one.kill()

    telling = Telling(host)
    with beside(intrude, telling, "found"):
        outcome = host.run(Case(("/bin/sh", "-c", SESSION + telling.waits("found")), policy()))
    assert outcome.status == 0, outcome.stderr
    mine = [event for event in outside(outcome) if event["details"]["pid"] == started[0]]
    (event,) = mine
    details = event["details"]
    assert details["argv"] == ["/bin/sleep", f"{SECONDS * 4}"]
    assert details["uid"] == pwd.getpwnam("session").pw_uid
    assert details["ppid"] == os.getpid()
    assert details["exe"].endswith(("/sleep", "/coreutils"))
    assert not [event for event in outside(outcome) if event["details"]["argv"] == ["sleep", str(SECONDS)]]


def test_what_runs_in_the_container_beside_the_agent_is_reported_and_what_is_the_session_s_or_agent_s_is_not(
    container: Container,
) -> None:
    """The stand-in servers are such a program; whoever enters with `docker exec` is another."""
    telling, (_, log) = Telling(container), places(container)
    script = SESSION + telling.waits("found", "n=$((n+1)); echo $n > $TMPDIR/planted")

    def look() -> None:
        enter(container)
        until(lambda: all(any(word in words for words in said(log)) for word in wanted(container)), "them to be found")
        until(lambda: any(e["resource"].endswith("/planted") for e in events(log, "integrity.changed")), "the change")

    with beside(look, telling, "found"):
        outcome = run(container, Case(("/bin/sh", "-c", script), telling.granted(policy()) + WATCHING))
    assert outcome.status == 0, outcome.stderr
    found = {" ".join(event["details"]["argv"]) for event in outside(outcome)}
    assert any("upstream.py" in words for words in found) is not isinstance(container, Restricted), found
    entered = {words for words in found if "upstream.py" not in words}
    assert entered == {words for words in wanted(container) if words != "upstream.py"}
    assert any(event["resource"].endswith("/planted") for event in outcome.of("integrity.changed"))
    assert outcome.verified == 0


def degraded(log: Path) -> list[dict[str, Any]]:
    return events(log, "agent.degraded")


def said(log: Path) -> set[str]:
    """The words of the programs that the log names so far."""
    return {" ".join(event["details"].get("argv", [])) for event in degraded(log)}


def wanted(container: Container) -> set[str]:
    """What is to be found."""
    if isinstance(container, Restricted):
        return set()
    return {"upstream.py", *(ENTERED.values() if isinstance(container, Docker) else ())}


def run(container: Container, case: Case) -> Outcome:
    """Without the stand-in servers where they would need root."""
    if not isinstance(container, Restricted):
        return container.run(case)
    argv = container.argv(case)
    container.own()
    return container.outcome(container.execute(argv[argv.index("inside") + 1 :], case.env))


def enter(runtime: Container) -> None:
    """As root, and as the session's account."""
    if isinstance(runtime, Restricted) or not isinstance(runtime, Docker):
        return
    _, log = places(runtime)
    until(lambda: events(log, "session.create"), "the session")
    for user, words in ENTERED.items():
        identity = runtime._engine.must("ps", "--quiet", "--filter", f"volume={runtime.directory}").split()[0]
        runtime._engine.must("exec", "--detach", "--user", user, identity, *words.split())
