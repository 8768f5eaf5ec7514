"""paths.audit: each denied call that would change a file is refused, recorded and counted; ordinary work passes. Denied
reads are audited beside it (test_read_audit.py)."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from pathlib import Path

import pytest

from agent.enforce.paths.calls import CALLS
from agent.linux.syscalls import number
from tests.conftest import require
from tests.escape.runtime import Case, Host, Outcome, Runtime, policy
from tests.escape.test_exec_ordinary import RUNNER, SAYS, WORK
from tests.escape.test_secrets import Gateway

WRITES = (Path(__file__).parent / "programs" / "writes.py").read_text()
AUDITED = policy() + "  audit: [writes, reads]\n"
ONE, MANY = 3000, 2000
NEW = {"fchmodat2", "setxattrat", "removexattrat", "file_setattr"}
"""Calls that the container's own seccomp profile may not know; its ENOSYS comes before the session's filter."""
NUMBERS = {name: found for name in CALLS if (found := number(name)) is not None}


def attack(runtime: Runtime, one: int, many: int, env: dict[str, str] | None = None) -> Outcome:
    command = ("/usr/bin/python3", "-I", "-c", WRITES, json.dumps(NUMBERS), str(one), str(many))
    if runtime.name != "host":
        command = ("python3", *command[1:])
    outcome = runtime.run(Case(command, AUDITED, env=env or {}))
    assert outcome.status == 0, outcome.stderr
    return outcome


def denials(outcome: Outcome) -> list[tuple[str, str]]:
    """Call and path of what the audit refused, each as often as it stands for."""
    return [
        (event["details"]["syscall"], event["resource"])
        for event in outcome.of("permission.denied")
        if event["details"]["mechanism"] == "notify"
        for _ in range(event["details"].get("count", 1))
    ]


def test_every_writing_call_on_what_is_not_granted_is_refused_and_recorded(runtime: Runtime) -> None:
    outcome = attack(runtime, 20, 20)
    outcomes, refused = json.loads(outcome.stdout)
    degraded = [event["details"].get("reason", "") for event in outcome.of("agent.degraded")]
    said = [why for why in degraded if why.startswith("paths.audit: writes needs seccomp user notification")]
    unread = [why for why in degraded if why.startswith("paths.audit: reads needs mounts of the session's own")]
    assert len(unread) == (runtime.name != "host")
    if runtime.name == "gvisor":
        assert said
        assert denials(outcome) == []
        return
    assert said == []
    unknown = {name for name, found in outcomes.items() if found == "ENOSYS"}
    assert unknown <= (NEW if runtime.name == "docker" else set())
    tried = [name for name in NUMBERS if name not in unknown]
    assert {outcomes[name] for name in tried} == {"EACCES"}
    assert refused == 40
    seen = denials(outcome)
    assert [name for name, path in seen if not path.startswith("/etc/")] == tried
    assert len(seen) == len(tried) + 40
    assert outcome.verified == 0


@pytest.mark.root
def test_a_flood_of_refused_opens_is_counted_exactly_in_few_lines(host: Host) -> None:
    pushed: list[str] = []
    gateway = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Kept", (Gateway,), {"pushed": pushed}))
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{gateway.server_address[1]}"
    outcome = attack(host, ONE, MANY, {"PARHELIA_PUSHGATEWAY_URL": url})
    gateway.shutdown()
    gateway.server_close()
    _, refused = json.loads(outcome.stdout)
    assert refused == ONE + MANY
    assert len(denials(outcome)) == ONE + MANY + len(NUMBERS)
    lines = outcome.of("permission.denied")
    assert len([event for event in lines if event["resource"] == "/etc/passwd"]) < ONE / 10
    assert outcome.of("audit.gap") == []
    assert outcome.verified == 0
    counted = f'parhelia_security_denied_total{{event_type="permission.denied"}} {float(len(denials(outcome)))}'
    assert counted in pushed[-1].splitlines()


@pytest.mark.root
def test_git_venv_npm_make_and_tar_work_as_without_the_audit(host: Host) -> None:
    for tool in ("git", "node", "npm", "make", "cc", "perl"):
        require(shutil.which(tool), tool)
    command = ("/usr/bin/python3", "-c", RUNNER, WORK.read_text())
    outcome = host.run(Case(command, AUDITED, env={"PATH": "/usr/local/bin:/usr/bin:/bin"}))
    assert outcome.status == 0, outcome.stderr
    assert [(event["resource"], event["details"]) for event in outcome.of("permission.denied")] == []
    said = iter(outcome.stdout.splitlines())
    assert [word for word in SAYS if not any(word in line for line in said)] == [], outcome.stdout + outcome.stderr
