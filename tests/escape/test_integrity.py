"""A session changes what is protected, in spite of everything or because nothing keeps it from it: the log names it.

The repositories here are made by the session itself, after its start: no mount can have covered their hooks.
"""

from __future__ import annotations

import http.server
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.escape.containers import Docker
from tests.escape.runtime import Case, Host, Outcome, Runtime, policy
from tests.escape.telling import Telling, beside
from tests.escape.test_live_policy import events, places, until
from tests.escape.test_secrets import Gateway

CHANGED = "integrity.changed"
ELSEWHERE = policy(write="/var/tmp")
"""Beside the session's own directory; in /tmp may be more than is watched."""
WATCHING = "  watch: [.git/hooks, .git/config, .env, planted]\n"
SESSION = r"""
set -e; n=0
cd "$TMPDIR"
mkdir -p deep/clone/.git/hooks
printf '[core]\n' > deep/clone/.git/config
printf 'exit 0\n' > deep/clone/.git/hooks/pre-commit
WATCHED
printf 'curl x\n' > deep/clone/.git/hooks/pre-commit
printf '[core]\n\thooksPath = /x\n' > deep/clone/.git/config.lock
mv deep/clone/.git/config.lock deep/clone/.git/config
chmod 777 deep/clone/.git/hooks/pre-commit
ln -s /etc/passwd .env
mkfifo planted
printf x > unprotected
SEEN
rm -r deep
GONE
n=0; while [ $n -lt 3000 ]; do : > "planted-$n"; n=$((n + 1)); done
"""


def changes(outcome: Outcome) -> dict[tuple[str, str], dict[str, Any]]:
    """(last names, change) to details; what the session's own directory is called does not matter."""
    return {
        ("/".join(event["resource"].split("/")[3:]), event["details"]["change"]): event["details"]
        for event in outcome.of("integrity.changed")
        if event["details"]["kind"] == "protected"
    }


def test_a_repository_made_by_the_session_is_watched_wherever_it_lies(runtime: Runtime) -> None:
    telling, (_, log) = Telling(runtime), places(runtime)
    stirs = "n=$((1 - n)); chmod 7${n}0 deep/clone/.git/hooks/pre-commit"
    script = SESSION.replace("WATCHED", telling.waits("watched", stirs))
    for name in ("seen", "gone"):
        script = script.replace(name.upper(), telling.waits(name))

    def look() -> None:
        """Says when the watching has begun, when the changes were looked at, and when that all is gone."""
        until(lambda: {("pre-commit", "attributes")} <= told(log), "the watching")
        telling.tell("watched")
        until(lambda: {("pre-commit", "other"), ("config", "moved"), (".env", "created")} <= told(log), "changes")
        telling.tell("seen")
        until(lambda: {("pre-commit", "deleted")} <= told(log), "the removal")

    with beside(look, telling, "watched", "seen", "gone"):
        outcome = runtime.run(Case(("/bin/sh", "-c", script), telling.granted(ELSEWHERE) + WATCHING))
    assert outcome.status == 0, outcome.stderr
    seen = changes(outcome)
    hook, config = "clone/.git/hooks/pre-commit", "clone/.git/config"
    names = {(f"{name.split('clone/')[-1]}", change) for name, change in seen}
    assert {
        (".git/hooks/pre-commit", "modified"),  # "created" too, where the watching had begun by then
        (".git/hooks/pre-commit", "attributes"),
        (".git/hooks/pre-commit", "deleted"),
        (".git/config", "moved"),
    } <= names, names
    assert any(name.endswith(".env") for name, change in seen if change == "created")
    assert not any("unprotected" in name or "planted-" in name for name, _ in seen)
    assert any(event["resource"].endswith(hook) and is_other(event["details"]) for event in outcome.of(CHANGED))
    assert any(name.endswith(config) for name, _ in seen)
    assert {event["actor"] for event in outcome.of("integrity.changed")} == {"agent"}
    assert outcome.verified == 0


def told(log: Path) -> set[tuple[str, str]]:
    """(last name, change) of what is in the log so far, and (last name, "other") where a file has become another."""
    found: set[tuple[str, str]] = set()
    for event in events(log, CHANGED):
        name = event["resource"].rpartition("/")[2]
        found.add((name, event["details"]["change"]))
        if is_other(event["details"]):
            found.add((name, "other"))
    return found


def is_other(details: dict[str, Any]) -> bool:
    """A file with what it was before and what it is now; what comes in one moment is looked at once."""
    return {"sha256_before", "sha256_after"} <= details.keys() and details["sha256_before"] != details["sha256_after"]


CLONE = r"""
set -e
cd "$TMPDIR"
git init --quiet source
git -C source -c user.name=x -c user.email=x@y commit --quiet --allow-empty --message x
git clone --quiet source deep/er/clone
printf 'curl x\n' > deep/er/clone/.git/hooks/post-checkout
git -C deep/er/clone config alias.st '!curl x'
"""


@pytest.mark.root
def test_what_is_planted_in_a_repository_that_git_has_just_cloned_is_told_and_counted_by_kind(host: Host) -> None:
    pushed: list[str] = []
    gateway = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Kept", (Gateway,), {"pushed": pushed}))
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{gateway.server_address[1]}"
    telling, planted = Telling(host), {"clone/.git/hooks/post-checkout", "clone/.git/config"}

    def look() -> None:
        """A session that ends before would have it said that not all was looked at, on a busy machine."""
        until(
            lambda: planted <= {e["resource"].partition("/deep/er/")[2] for e in events(host.audit, CHANGED)},
            "what was planted",
        )

    with beside(look, telling, "told"):
        case = Case(("/bin/sh", "-c", CLONE + telling.waits("told")), telling.granted(ELSEWHERE) + WATCHING)
        outcome = host.run(replace(case, env={"PARHELIA_PUSHGATEWAY_URL": url}))
    gateway.shutdown()
    gateway.server_close()
    assert outcome.status == 0, outcome.stderr
    counted: Counter[str] = Counter()
    for event in outcome.of("integrity.changed"):
        counted[event["details"]["kind"]] += event["details"].get("count", 1)
    assert counted["protected"] > 5
    for kind in ("protected", "policy", "agent", "settings"):
        line = f'parhelia_agent_integrity_changes_total{{kind="{kind}"}} {float(counted[kind])}'
        assert line in pushed[-1].splitlines()


@pytest.mark.root
@pytest.mark.docker
def test_who_changes_the_agent_its_settings_or_its_policy_in_the_container_is_on_record(
    docker_sessions: Docker,
) -> None:
    """The session cannot; whoever enters the container as root can."""
    intruder = threading.Thread(target=tamper, args=(docker_sessions,))
    intruder.start()
    outcome = docker_sessions.run(Case(("/bin/sh", "-c", f"until [ -e {DONE} ]; do sleep 0.2; done"), policy()))
    intruder.join()
    assert outcome.status == 0, outcome.stderr
    seen = {(event["details"]["kind"], event["resource"]) for event in outcome.of("integrity.changed")}
    for kind, path in TAMPERED.items():
        assert any(found == kind and name.endswith(path) for found, name in seen), (kind, seen)


DONE = "/tmp/tampered"
TAMPERED = {"agent": "/agent/gate.py", "settings": "/etc/cursor/hooks.json", "policy": "/policies/policy.yaml"}
TAMPER = (
    "for file in /opt/parhelia/lib/python3*/site-packages/agent/gate.py /etc/cursor/hooks.json"
    " /srv/shared/policies/policy.yaml; do printf '\\n' >> $file; done"
)


def tamper(sessions: Docker) -> None:
    """Again and again until it is seen: the watching begins a moment after the session."""
    _, log = places(sessions)
    until(lambda: events(log, "session.create"), "the session")
    identity = sessions._engine.must("ps", "--quiet", "--filter", f"volume={sessions.directory}").split()[0]

    def told() -> bool:
        sessions._engine.must("exec", identity, "sh", "-c", TAMPER)
        return {event["details"]["kind"] for event in events(log, "integrity.changed")} >= TAMPERED.keys()

    try:
        until(told, "the changes")
    finally:
        sessions._engine.must("exec", identity, "touch", DONE)
