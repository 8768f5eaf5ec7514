"""paths.audit: reads: opens of sensitive files that the session may not read are refused, recorded and counted, and
show nothing whatever becomes of the guard; other reads pass as without it."""

from __future__ import annotations

import http.server
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.escape.runtime import Case, Host, Outcome, policy
from tests.escape.test_restarts import TOOLS, run_case
from tests.escape.test_secrets import Gateway

READS = (Path(__file__).parent / "programs" / "reads.py").read_text()
NAMED = "/var/lib/dpkg/status"
AUDITED = policy() + f"  audit: reads\n  sensitive: [{NAMED}]\n"
FILES = {"shadow": "/etc/shadow", "key": "/root/.ssh/id_ed25519", "named": NAMED}
MANY = 2500
WAYS = 9
REFUSED = {"hard link", "rename", "remove", "write", "run", "mode"}


def denials(events: tuple[dict[str, Any], ...]) -> Counter[tuple[str, str]]:
    """Path and rule of what was refused to be read, each as often as it stands for."""
    found = Counter[tuple[str, str]]()
    for event in events:
        details = event["details"]
        if details["event_type"] == "permission.denied" and details["mechanism"] == "fanotify":
            found[event["resource"], details["rule"]] += details.get("count", 1)
    return found


def attack(host: Host, many: int, env: dict[str, str]) -> tuple[Outcome, dict[str, Any]]:
    files = FILES | {"policy": f"{host.policies}/policy.yaml", "log": f"{host.audit}/audit.jsonl"}
    command = ("/usr/bin/python3", "-I", "-c", READS, json.dumps(files), str(many))
    outcome = host.run(Case(command, AUDITED, env=env))
    assert outcome.status == 0, outcome.stderr
    return outcome, json.loads(outcome.stdout)


@pytest.mark.root
def test_no_way_to_read_a_sensitive_file_shows_anything_and_each_is_recorded_and_counted(host: Host) -> None:
    pushed: list[str] = []
    gateway = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Kept", (Gateway,), {"pushed": pushed}))
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{gateway.server_address[1]}"
    outcome, found = attack(host, MANY, {"PARHELIA_PUSHGATEWAY_URL": url})
    gateway.shutdown()
    gateway.server_close()
    assert found["ways"] == dict.fromkeys(found["ways"], ["EPERM"] * WAYS)
    assert found["listed"] == dict.fromkeys(found["listed"], "EPERM")
    for name, beside in found["beside"].items():
        assert beside["size"] == "0", name
        assert {way: beside[way] for way in REFUSED} == {
            way: beside[way] for way in REFUSED if beside[way].startswith("E")
        }
    assert found["refused"] == 4 * MANY
    assert found["passwd"] > 0
    seen = denials(outcome.events)
    assert seen == {
        ("/etc/shadow", "file-permissions"): WAYS + 4 * MANY,
        ("/root/.ssh/id_ed25519", "paths-default"): WAYS,
        (NAMED, "paths-default"): WAYS,
        (f"{host.policies}/policy.yaml", "agent-files"): WAYS,
        (f"{host.audit}/audit.jsonl", "agent-files"): WAYS,
        ("/root", "paths-default"): 1,
        ("/root/.ssh", "paths-default"): 1,
    }
    (first, *_) = [event["details"] for event in outcome.of("permission.denied")]
    assert (first["access"], first["mechanism"], Path(first["exe"]).name[:6]) == ("read", "fanotify", "python")
    everything = sum(event["details"].get("count", 1) for event in outcome.of("permission.denied"))
    counted = f'parhelia_security_denied_total{{event_type="permission.denied"}} {float(everything)}'
    assert counted in pushed[-1].splitlines()
    assert len([event for event in outcome.of("permission.denied") if event["resource"] == "/etc/shadow"]) < MANY
    assert outcome.of("audit.gap") == []
    assert outcome.verified == 0


KILLED = """
import threading, collections
ends, came = threading.Event(), collections.Counter()
def storm():
    while not ends.is_set():
        try:
            with open("/etc/shadow") as file: came[file.read()] += 1
        except OSError as error: came[type(error).__name__] += 1
threads = [threading.Thread(target=storm) for _ in range(4)]
for thread in threads: thread.start()
time.sleep(1)  # a guard that has not left anything yet has no successor
for _ in range(2):
    kill("agent.daemon.guard")
    before = sum(came.values())
    while sum(came.values()) < before + 50: time.sleep(0.05)
ends.set()
for thread in threads: thread.join(60)
tell(came=came, hung=sum(thread.is_alive() for thread in threads))
"""


@pytest.mark.root
def test_while_guards_die_no_open_goes_on_and_none_is_forgotten(host: Host) -> None:
    ports = [str(host.upstream.ports[name]) for name in ("http", "tls", "raw")]
    killed = run_case(host, Case(("/usr/bin/env", "python3", "-c", TOOLS + KILLED, *ports), AUDITED))
    assert killed.status == 0, killed.stderr
    (found,) = killed.lines
    assert found["hung"] == 0
    assert set(found["came"]) == {"PermissionError"}
    recorded = sum(denials(killed.events).values())
    assert 0 <= recorded - found["came"]["PermissionError"] <= 2, "one may be on record and unanswered at each death"
    assert killed.kinds("agent.recovered").count("agent.recovered") >= 2
    assert (killed.verified, killed.left) == (0, 0)
