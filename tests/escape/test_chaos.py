"""Parts of the agent die at random under mixed load: nothing escapes, nothing hangs, no refusal is lost."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.escape.runtime import Case, Host, policy
from tests.escape.test_restarts import RULES, Killed, run_case

SECONDS = 120
PARTS = ("agent.enforce.egress.main", "agent.enforce.egress.engine_worker", "agent.daemon.guard")
PROGRAM = Path(__file__).parent / "programs" / "chaos.py"
BAIT = Path("/var/tmp/.parhelia-chaos")


@pytest.fixture
def bait() -> Iterator[None]:
    """A file that everybody may read, where no grant is."""
    BAIT.write_text("outside every grant\n")
    BAIT.chmod(0o644)
    yield
    BAIT.unlink()


def refusals(killed: Killed, kind: str, rule: str, mechanism: str) -> int:
    """How many the log has of these."""
    return sum(
        event["details"].get("count", 1)
        for event in killed.events
        if (event["details"]["event_type"], event["details"].get("rule")) == (kind, rule)
        and event["details"].get("mechanism") == mechanism
    )


def counted(host: Host) -> dict[str, int]:
    """The counters of the last push."""
    pushed = Path(host.upstream.pushed).read_text()
    found = re.findall(r'^parhelia_security_denied_total\{event_type="([^"]+)"\} (\S+)$', pushed, re.M)
    return {name: int(float(value)) for name, value in found if float(value)}


@pytest.mark.usefixtures("bait")
def test_random_deaths_under_load_let_nothing_out_and_lose_no_refusal(host: Host) -> None:
    seed = int.from_bytes(os.urandom(4))
    words = [
        str(SECONDS),
        str(seed),
        ",".join(PARTS),
        str(host.upstream.ports["http"]),
        str(host.upstream.ports["raw"]),
        "sfkm",
    ]
    gateway = {"PARHELIA_PUSHGATEWAY_URL": f"http://127.0.0.1:{host.upstream.ports['http']}"}
    command = ("/usr/bin/python3", "-c", PROGRAM.read_text(), *words)
    killed = run_case(host, Case(command, policy(extra_egress=RULES), env=gateway), SECONDS + 120)
    assert killed.status == 0, (seed, killed.stderr)
    (told,) = killed.lines
    seen = {name: Counter(each) for name, each in told["seen"].items()}
    print(f"seed {seed}: {told}")

    assert all(each.endswith(" killed") for each in seen["killed"]), seen["killed"]
    assert sum(seen["killed"].values()) >= SECONDS // 20
    assert told["stuck"] == []
    assert told["back"] == {
        "allowed": "200", "refused": "403", "exec": "status 0", "refused exec": "PermissionError",
        "hook": "status 2, decided", "escape": "held",
    }  # fmt: skip

    assert (set(seen["escape"]), host.upstream.escapes) == ({"held"}, 0)
    assert not [each for each in seen["hook"] if not each.startswith("status 2") and each != "not executed"]
    assert "status 0" not in seen["refused exec"] and "200" not in seen["refused"]

    logged: Counter[str] = Counter()
    for event in killed.events:
        if event["result"] == "denied":
            logged[event["details"]["event_type"]] += event["details"].get("count", 1)
    assert counted(host) == dict(logged)
    assert refusals(killed, "network.egress_blocked", "egress-default", "proxy") >= seen["refused"]["403"]
    assert refusals(killed, "bash.dangerous", "commands.deny[0]", "exec") >= seen["refused exec"]["PermissionError"]
    assert refusals(killed, "bash.dangerous", "commands.deny[0]", "hook") >= seen["hook"]["status 2, decided"]
    deaths = Counter(event["details"]["event_type"] for event in killed.events)
    guards = seen["killed"]["agent.daemon.guard killed"]  # with each, the egress process is another one too
    kills = sum(seen["killed"].values())
    assert kills <= deaths["agent.recovered"] <= kills + guards
    assert (killed.verified, killed.left) == (0, 0)
