"""Nothing that a session has started outlives it, however the session ends and however the process was started."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.daemon.base.names import CANARY_HOMES, group_name
from agent.linux import cgroups
from tests.escape.containers import SHARED, Container
from tests.escape.runtime import Case, Host, policy, read_log

SCRIPT = "outliving_inside.py"
CONTAINERS = [
    pytest.param("docker_sessions", marks=[pytest.mark.root, pytest.mark.docker], id="docker"),
    pytest.param("gvisor_sessions", marks=[pytest.mark.root, pytest.mark.docker, pytest.mark.gvisor], id="gvisor"),
]


def judge(done: subprocess.CompletedProcess[str], scenarios: int = 4) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == scenarios
    for name, outcome in found.items():
        assert outcome["seen"] >= 7, (name, outcome)
        assert outcome["left"] == [], (name, outcome)
        assert (outcome["status"] == 3) is (name == "its own end"), (name, outcome)


def test_nothing_outlives_a_session_of_this_machine(either_host: Host) -> None:
    agent = either_host.command(Case((), policy()))[:-1]  # without the "--" that ends it
    script = str(Path(__file__).parent / SCRIPT)
    try:
        done = subprocess.run(
            [sys.executable, script, "session", *agent], env=either_host.environment(Case((), "")),
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
    finally:
        take_away({event["details"]["boot"] for event in read_log(either_host.audit)})
    judge(done)


def take_away(boots: set[str]) -> None:
    """The files and groups of runs of which nobody was left to remove them."""
    for boot in boots:
        cgroups.remove(group_name(boot))
    for place in (Path("/tmp"), Path("/run/parhelia"), *(Path(home) for home in CANARY_HOMES)):
        for path in (found for boot in boots for found in (place.glob(f"*{boot}*") if place.is_dir() else ())):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_nothing_outlives_a_session_in_a_container(request: pytest.FixtureRequest, kind: str) -> None:
    sessions: Container = request.getfixturevalue(kind)
    argv = sessions.argv(Case((), policy()))
    agent = argv[argv.index("run") - 1 : -1]
    inside = ["python3", f"{SHARED}/{SCRIPT}", "session"]
    judge(sessions.execute([*argv[: argv.index("run") - 1], *inside, *agent], {}))
