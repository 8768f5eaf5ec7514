"""The monitoring stack live: a real Pushgateway, Prometheus and Alertmanager on loopback, the shipped files in them.

What is changed in the shipped files for the test: addresses, and intervals (1 s, so that nobody waits). What is pushed
is rendered by the agent's own `agent.record.metrics`, from events that did not happen.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.record.event import Action, AuthFailure, Event, EventType, ResourceType, Result
from agent.record.metrics import DECISION_POINTS, Metrics
from tests.conftest import held_port, require

MONITORING = Path(__file__).parents[2] / "container" / "monitoring"
PATIENCE = 60.0
"""Seconds until something that must happen counts as not happening; a busy machine needs some."""

EXACT = {
    "Sessions running": 1,
    "Dangerous commands refused": 9,
    "Egress refused": 9,
    "Paths refused": 9,
    "Authentication failures": 9,
    "Audit events lost": 9,
    "Agent versions and policies": 1,
    "Enforcement levels": 1,
    "Denials by session": 9,
}
"""What the panels that show one number (or the same in each row) must show after a load of nine of everything."""


def event(event_type: EventType, count: int, **details: str) -> Event:
    """So many occurrences of something that a session was refused (or a secret that it used), coalesced."""
    return Event(
        type=event_type,
        actor="session:synthetic",
        action=Action.READ,
        resource="github-token",
        resource_type=ResourceType.SECRET,
        result=Result.SUCCESS if event_type is EventType.SECRET_ACCESS else Result.DENIED,
        details={"count": count, **details},
    )


def agent(*, bash: int = 0, egress: int = 0, paths: int = 0, auth: int = 0) -> Metrics:
    """An agent's numbers after so many refusals of each kind."""
    metrics = Metrics(version="0.1.0", policy_digest="abc", secret_names=["github-token"])
    for event_type, count in (
        (EventType.BASH_DANGEROUS, bash),
        (EventType.NETWORK_EGRESS_BLOCKED, egress),
        (EventType.PERMISSION_DENIED, paths),
    ):
        metrics.count(event(event_type, count))
    metrics.count(event(EventType.AUTH_FAILURE, auth, reason=AuthFailure.UNKNOWN_CALLER.value))
    return metrics


def loaded(number: int) -> Metrics:
    """An agent to which everything happened so many times."""
    metrics = agent(bash=number, egress=number, paths=number, auth=number)
    metrics.count(event(EventType.SECRET_ACCESS, number, secret_name="github-token"))
    metrics.set_policy("abc", detectors={"data-export": "high"})
    for _ in range(number):
        metrics.count(event(EventType.DETECTION, 1, detector="data-export"))
        metrics.count(replace(event(EventType.AGENT_LOCKDOWN, 1), details={"measures": ["cut"]}))
        metrics.count(event(EventType.INTEGRITY_CHANGED, 1, kind="policy"))
    metrics.set_level("egress", "enforced")
    metrics.set_sequence(number)
    metrics.lost(number)
    metrics.add_egress_bytes(number, number, number)
    for _ in range(number):
        metrics.push_failed()
        metrics.restarted("egress")
        for point in DECISION_POINTS:
            metrics.observe_decision(point, 0.0002)
    return metrics


def get(url: str, **query: str) -> Any:
    with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(query)}", timeout=60) as answer:
        return json.load(answer)


def eventually[T](look: Callable[[], T], what: str) -> T:
    """The first true answer of `look`, asked for up to PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while not (seen := look()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {PATIENCE:.0f} s: {what}")
        time.sleep(0.25)
    return seen


@dataclass
class Stack:
    pushgateway: str
    prometheus: str
    alertmanager: str
    pages: list[dict[str, Any]] = field(default_factory=list)

    def push(self, instance: str, metrics: Metrics) -> None:
        url = f"{self.pushgateway}/metrics/job/parhelia_agent/env/test/instance/{instance}"
        request = urllib.request.Request(url, data=metrics.render(), method="PUT")
        urllib.request.urlopen(request, timeout=60).close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = get(f"{self.prometheus}/api/v1/query", query=expression)
        assert answer["status"] == "success"
        return list(answer["data"]["result"])

    def query_range(self, expression: str) -> list[dict[str, Any]]:
        now = time.time()
        answer = get(
            f"{self.prometheus}/api/v1/query_range", query=expression, start=f"{now - 20}", end=f"{now}", step="1"
        )
        assert answer["status"] == "success"
        return list(answer["data"]["result"])

    def firing(self, instance: str) -> set[str]:
        alerts = get(f"{self.prometheus}/api/v1/alerts")["data"]["alerts"]
        return {
            alert["labels"]["alertname"]
            for alert in alerts
            if alert["state"] == "firing" and alert["labels"].get("instance") == instance
        }


@contextmanager
def process(log: Path, ready: str, *argv: str) -> Iterator[None]:
    """The program, from when `ready` answers until the end; ended by its own process object."""
    with log.open("wb") as output:
        started = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent)
    try:

        def answers() -> bool:
            assert started.poll() is None, f"{argv[0]} ended: {log.read_text()[-2000:]}"
            try:
                urllib.request.urlopen(ready, timeout=2).close()
            except OSError:
                return False
            return True

        eventually(answers, f"{argv[0]} answers: {log}")
        yield
    finally:
        started.terminate()
        try:
            started.wait(60)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait(60)


@contextmanager
def pager(pages: list[dict[str, Any]]) -> Iterator[str]:
    """Stands where PagerDuty's Events API is, and keeps what it is sent."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            pages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(202)
            self.end_headers()
            self.wfile.write(b'{"status":"success"}')

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v2/enqueue"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)


def hurried_prometheus(directory: Path, pushgateway: int, alertmanager: int) -> Path:
    """The shipped configuration and rules with this test's addresses and one-second intervals."""
    rules = yaml.safe_load((MONITORING / "rules" / "parhelia.rules.yml").read_text())
    for group in rules["groups"]:
        group["interval"] = "1s"
    (directory / "rules").mkdir()
    (directory / "rules" / "parhelia.rules.yml").write_text(yaml.safe_dump(rules))
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{pushgateway}"]
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alertmanager}"]
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def hurried_alertmanager(directory: Path, pager_url: str) -> Path:
    """The shipped configuration with a key file of this test, its pager, and no waiting."""
    config = yaml.safe_load((MONITORING / "alertmanager.yml").read_text())
    config["route"] |= {"group_wait": "0s", "group_interval": "1s"}
    (directory / "key").write_text("the-routing-key")
    for receiver in config["receivers"]:
        for pagerduty in receiver.get("pagerduty_configs", []):
            pagerduty |= {"routing_key_file": str(directory / "key"), "url": pager_url}
    path = directory / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    programs = {
        name: shutil.which(name) for name in ("prometheus", "prometheus-pushgateway", "prometheus-alertmanager")
    }
    for name, found in programs.items():
        require(found, f"{name} is not installed")
    directory = tmp_path_factory.mktemp("monitoring")
    with held_port() as gateway, held_port() as prometheus, held_port() as alerts:
        yield from started(directory, gateway, prometheus, alerts)


def started(directory: Path, gateway: int, prometheus: int, alerts: int) -> Iterator[Stack]:
    running = Stack(
        pushgateway=f"http://127.0.0.1:{gateway}",
        prometheus=f"http://127.0.0.1:{prometheus}",
        alertmanager=f"http://127.0.0.1:{alerts}",
    )
    with ExitStack() as held:
        pager_url = held.enter_context(pager(running.pages))
        held.enter_context(
            process(
                directory / "pushgateway.log",
                f"{running.pushgateway}/-/ready",
                "prometheus-pushgateway",
                f"--web.listen-address=127.0.0.1:{gateway}",
                "--persistence.file=",
                "--push.disable-consistency-check",
            )
        )
        held.enter_context(
            process(
                directory / "alertmanager.log",
                f"{running.alertmanager}/-/ready",
                "prometheus-alertmanager",
                f"--config.file={hurried_alertmanager(directory, pager_url)}",
                f"--web.listen-address=127.0.0.1:{alerts}",
                "--cluster.listen-address=",
                f"--storage.path={directory / 'alertmanager'}",
            )
        )
        held.enter_context(
            process(
                directory / "prometheus.log",
                f"{running.prometheus}/-/ready",
                "prometheus",
                f"--config.file={hurried_prometheus(directory, gateway, alerts)}",
                f"--web.listen-address=127.0.0.1:{prometheus}",
                f"--storage.tsdb.path={directory / 'tsdb'}",
            )
        )
        yield running


def test_the_first_event_of_a_session_fires_and_pages_with_the_name_of_the_session(stack: Stack) -> None:
    stack.push("first-1", agent())
    zero = 'parhelia_security_denied_total{instance="first-1",event_type="bash.dangerous"} == 0'
    eventually(lambda: stack.query(zero), "the session is scraped at zero")
    assert stack.firing("first-1") == set()
    stack.push("first-1", agent(bash=1))
    eventually(lambda: stack.firing("first-1") == {"ParheliaDangerousCommand"}, "the alert for the first event")

    def page() -> list[dict[str, Any]]:
        return [page for page in stack.pages if page["payload"]["custom_details"]["session"] == "first-1"]

    (paged,) = eventually(page, "PagerDuty is called")[:1]
    assert paged["routing_key"] == "the-routing-key"
    assert paged["payload"]["severity"] == "critical"
    assert paged["payload"]["summary"] == "first-1 (test): dangerous command refused (1 in 5 minutes)"
    assert paged["payload"]["custom_details"]["runbook"] == "docs/operations.md#parheliadangerouscommand"


def test_a_session_seen_only_by_its_final_push_fires(stack: Stack) -> None:
    metrics = agent(egress=1)
    metrics.end_session()
    stack.push("final-1", metrics)
    eventually(lambda: stack.firing("final-1") == {"ParheliaEgressToUnknownDomain"}, "the alert from the final push")
    assert not [page for page in stack.pages if page["payload"]["custom_details"]["session"] == "final-1"]


def shows(stack: Stack, expression: str, value: str) -> bool:
    """Is this the one value that the expression has?"""
    return [series["value"][1] for series in stack.query(expression)] == [value]


def test_five_authentication_failures_and_ten_denials_are_seen_and_do_not_fire(stack: Stack) -> None:
    stack.push("limit-1", agent())
    eventually(
        lambda: stack.query('parhelia_auth_failures_total{instance="limit-1",reason="unknown_caller"}'),
        "the session is scraped",
    )
    stack.push("limit-1", agent(auth=5, paths=10))
    for name, value in (
        ("instance:parhelia_auth_failures:delta5m", "5"),
        ('instance_event:parhelia_security_denied:delta1m{event_type="permission.denied"}', "10"),
    ):
        expression = f'{name} and on (instance) parhelia_agent_session_ended{{instance="limit-1"}}'
        eventually(partial(shows, stack, expression, value), f"{name} is exactly {value}")
    assert stack.firing("limit-1") == set()
    stack.push("limit-1", agent(auth=6, paths=11))
    eventually(
        lambda: stack.firing("limit-1") == {"ParheliaAuthenticationFailures", "ParheliaPermissionDenials"},
        "one more of each fires",
    )


def queries() -> list[tuple[str, str, bool]]:
    dashboard = json.loads((MONITORING / "dashboards" / "security-audit.json").read_text())
    return [
        (panel["title"], target["expr"], target["instant"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]


def fill(expression: str) -> str:
    """The expression with Grafana's variables replaced, as Grafana does it."""
    for variable, value in {
        "$__rate_interval": "20s",
        "$__interval": "10s",
        "$__range": "30m",
        "$env": "test",
        "$instance": "load-1",
    }.items():
        expression = expression.replace(variable, value)
    return expression


def positive(stack: Stack, expression: str, instant: bool) -> list[float]:
    """The values above zero that the expression has on Prometheus now."""
    if instant:
        found = [float(series["value"][1]) for series in stack.query(expression)]
    else:
        found = [float(value) for series in stack.query_range(expression) for _, value in series["values"]]
    return [number for number in found if not math.isnan(number) and number > 0]


def test_every_panel_of_the_dashboard_shows_the_load(stack: Stack) -> None:
    stack.push("load-1", loaded(4))
    eventually(lambda: stack.query('parhelia_agent_audit_sequence{instance="load-1"} == 4'), "a part is scraped")
    stack.push("load-1", loaded(9))
    eventually(
        lambda: stack.query('parhelia_agent_audit_sequence{instance="load-1"} == 9'), "the whole load is scraped"
    )
    assert queries()
    for title, expression, instant in queries():
        filled = fill(expression)
        assert "$" not in filled, title
        shown = eventually(partial(positive, stack, filled, instant), f"data in panel {title!r}: {filled}")
        if title in EXACT:
            assert set(shown) == {EXACT[title]}, title
