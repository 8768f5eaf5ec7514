"""From a refused request to a firing alert: a real Pushgateway and a real Prometheus, counts equal to the log's."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import held_port, require
from tests.escape.runtime import CHECKOUT, Case, Host, policy

SECONDS = 120.0


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


def until(found: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            if result := found():
                return result
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.1)
    raise AssertionError(f"still waiting for {what}")


@pytest.fixture
def monitoring(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A Pushgateway and a Prometheus with the shipped rules; their URLs."""
    require(shutil.which("prometheus-pushgateway") and shutil.which("prometheus"), "Debian's prometheus packages")
    with held_port() as gateway, held_port() as prometheus, started(tmp_path, gateway, prometheus) as urls:
        yield urls


@contextlib.contextmanager
def started(tmp_path: Path, gateway: int, prometheus: int) -> Iterator[tuple[str, str]]:
    (tmp_path / "prometheus.yml").write_text(
        f"""
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{CHECKOUT}/container/monitoring/rules/parhelia.rules.yml"]
scrape_configs:
  - {{job_name: pushgateway, honor_labels: true, static_configs: [{{targets: ["127.0.0.1:{gateway}"]}}]}}
"""
    )
    commands = [
        ["prometheus-pushgateway", f"--web.listen-address=127.0.0.1:{gateway}"],
        ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
         f"--web.listen-address=127.0.0.1:{prometheus}"],
    ]  # fmt: skip
    with (tmp_path / "servers.log").open("w") as log:
        servers = [subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path) for command in commands]
    urls = (f"http://127.0.0.1:{gateway}", f"http://127.0.0.1:{prometheus}")
    try:
        for url in urls:
            until(lambda url=url: get(f"{url}/-/ready") is not None, url)
        yield urls
    finally:
        for server in servers:
            server.kill()
            server.wait()


def pushed(url: str, session: str) -> dict[str, dict[str, Any]]:
    """metric -> what the gateway shows of this session's group."""
    groups = json.loads(get(f"{url}/api/v1/metrics"))["data"]
    (group,) = [g for g in groups if g["labels"]["instance"].startswith(f"{session}-")]
    assert group["labels"]["job"] == "parhelia_agent"
    assert group["labels"]["env"] == "testing"
    return {name: found for name, found in group.items() if isinstance(found, dict) and "metrics" in found}


def test_the_first_refusal_is_counted_shown_and_alerted(host: Host, monitoring: tuple[str, str]) -> None:
    gateway, prometheus = monitoring
    env = {"PARHELIA_PUSHGATEWAY_URL": gateway, "PARHELIA_ENV": "testing", "PARHELIA_SESSION_ID": "alert-1"}
    curl = f"curl -sS --noproxy '' http://forbidden.test:{host.upstream.ports['http']}/ -o /dev/null"
    script = f"{curl}; $(id -un | sed s/session/rm/) -rf /etc/x; sleep 4"
    outcome = host.run(Case(("/bin/sh", "-c", script), policy(), env=env))
    assert outcome.status == 0, outcome.stderr
    shown = pushed(gateway, "alert-1")
    denied = {
        metric["labels"]["event_type"]: int(float(metric["value"]))
        for metric in shown["parhelia_security_denied_total"]["metrics"]
    }
    in_the_log = {
        kind: sum(event["details"].get("count", 1) for event in outcome.of(kind) if event["result"] == "denied")
        for kind in denied
    }
    assert denied == in_the_log
    assert denied == {"network.egress_blocked": 1, "bash.dangerous": 1, "permission.denied": 0}
    timed = {row["labels"]["point"]: int(row["count"]) for row in shown["parhelia_agent_decision_seconds"]["metrics"]}
    assert timed["egress"] >= 1
    assert timed["exec"] >= 3
    assert shown["parhelia_agent_session_ended"]["metrics"][0]["value"] == "1"

    def firing() -> set[str]:
        alerts = json.loads(get(f"{prometheus}/api/v1/alerts"))["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    until(lambda: len(firing()) >= 2, "the alerts of the first egress and the first dangerous command")
