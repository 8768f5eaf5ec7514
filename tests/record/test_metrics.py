"""The numbers that are shown are the numbers that were counted, under closed labels."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.record.event import Event, EventType, ResourceType, Result
from agent.record.metrics import LEVELS, POINTS, Metrics
from tests.record.logs import allowed, denial


def shown(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def of(metrics: Metrics, name: str, **labels: str) -> float:
    return shown(metrics)[(name, tuple(sorted(labels.items())))]


def auth_failure(reason: object) -> Event:
    return replace(denial("control.sock", reason=reason), type=EventType.AUTH_FAILURE, resource_type=ResourceType.AGENT)


def secret(event_type: EventType, name: str, result: Result = Result.SUCCESS) -> Event:
    return replace(allowed(name), type=event_type, resource_type=ResourceType.SECRET, result=result)


def test_every_series_of_a_closed_set_is_there_at_zero_from_the_start():
    metrics = Metrics(version="1.2", policy_digest="abc", secret_names=["KEY"])
    found = shown(metrics)
    zero = {key for key, value in found.items() if value == 0}
    for event_type in ("permission.denied", "bash.dangerous", "network.egress_blocked"):
        assert ("parhelia_security_denied_total", (("event_type", event_type),)) in zero
    for reason in ("unknown_caller", "bad_credentials", "other"):
        assert ("parhelia_auth_failures_total", (("reason", reason),)) in zero
    for name in ("KEY", "other"):
        assert ("parhelia_secrets_accessed_total", (("action", "inject"), ("secret_name", name))) in zero
    for name in ("audit_lost_total", "push_failures_total", "session_ended", "audit_sequence"):
        assert ("parhelia_agent_" + name, ()) in zero
    for direction in ("up", "down"):
        assert ("parhelia_agent_egress_bytes_total", (("direction", direction),)) in zero
    assert found[("parhelia_agent_info", (("policy_digest", "abc"), ("version", "1.2")))] == 1
    assert not [name for name, _ in found if name.endswith("_created")]


@pytest.mark.parametrize(
    ("event", "counted"),
    [
        (denial(), 1),
        (denial(count=12), 12),
        (replace(denial(), result=Result.SUCCESS), 0),
        (denial(enforced=False), 0),
        (replace(denial(), result=Result.ERROR), 0),
        (allowed(), 0),
    ],
)
def test_only_enforced_denials_count_each_as_often_as_its_line_says(event, counted):
    metrics = Metrics(version="1")
    metrics.count(event)
    assert of(metrics, "parhelia_security_denied_total", event_type="network.egress_blocked") == counted
    assert metrics.denied_total()["network.egress_blocked"] == counted


@pytest.mark.parametrize(
    ("reason", "label"),
    [("bad_credentials", "bad_credentials"), ("evil\nlabel", "other"), (None, "other"), (["x"], "other"), (7, "other")],
)
def test_a_reason_outside_the_closed_set_counts_as_other(reason, label):
    metrics = Metrics(version="1")
    before = len(shown(metrics))
    metrics.count(auth_failure(reason))
    assert of(metrics, "parhelia_auth_failures_total", reason=label) == 1
    assert len(shown(metrics)) == before


def test_secrets_are_counted_by_names_of_the_policy_alone():
    metrics = Metrics(version="1")
    metrics.set_policy("digest", ["TOKEN"])
    metrics.count(secret(EventType.SECRET_INJECT, "TOKEN"))
    metrics.count(secret(EventType.SECRET_ACCESS, "TOKEN"))
    metrics.count(secret(EventType.SECRET_ACCESS, "TOKEN", Result.DENIED))
    for number in range(5):
        metrics.count(secret(EventType.SECRET_ACCESS, f"from-traffic-{number}"))
    assert of(metrics, "parhelia_secrets_accessed_total", secret_name="TOKEN", action="inject") == 1
    assert of(metrics, "parhelia_secrets_accessed_total", secret_name="TOKEN", action="access") == 1
    assert of(metrics, "parhelia_secrets_accessed_total", secret_name="other", action="access") == 5
    assert "from-traffic" not in metrics.render().decode()


def test_detections_are_counted_by_detectors_of_the_policy_alone_whatever_they_counted():
    metrics = Metrics(version="1")
    metrics.set_policy("digest", detectors={"brute-force": "critical"})
    name = "parhelia_agent_detections_total"
    assert of(metrics, name, detector="brute-force", severity="critical") == 0
    for detector in ("brute-force", "brute-force", "from-elsewhere", None):
        details = {"occurrences": 9, "detector": detector}
        metrics.count(replace(secret(EventType.SECRET_ACCESS, "x"), type=EventType.DETECTION, details=details))
    assert of(metrics, name, detector="brute-force", severity="critical") == 2
    assert of(metrics, name, detector="other", severity="high") == 2
    metrics.set_policy("digest", detectors={"brute-force": "high"})
    assert of(metrics, name, detector="brute-force", severity="high") == 2


def test_a_point_shows_one_level_at_a_time():
    metrics = Metrics(version="1")
    metrics.set_level("egress", "enforced")
    metrics.set_level("egress", "partial")
    levels = {level: of(metrics, "parhelia_agent_enforcement_level", point="egress", level=level) for level in LEVELS}
    assert levels == {"enforced": 0, "partial": 1, "advisory": 0, "off": 0}
    assert {of(metrics, "parhelia_agent_enforcement_level", point=point, level="off") for point in POINTS} == {0, 1}


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.set_level("elsewhere", "off"),
        lambda m: m.set_level("egress", "maybe"),
        lambda m: m.observe_decision("elsewhere", 0.1),
    ],
)
def test_a_label_outside_its_set_is_an_error_of_the_caller(call):
    with pytest.raises(ValueError, match="no such"):
        call(Metrics(version="1"))


def test_decisions_are_a_histogram_in_seconds():
    metrics = Metrics(version="1")
    for seconds in (0.00005, 0.0002, 0.004, 9.0):
        metrics.observe_decision("exec", seconds)
    name = "parhelia_agent_decision_seconds"
    cumulative = {le: of(metrics, name + "_bucket", point="exec", le=le) for le in ("5e-05", "0.001", "0.005", "+Inf")}
    assert cumulative == {"5e-05": 1, "0.001": 2, "0.005": 3, "+Inf": 4}
    assert of(metrics, name + "_count", point="exec") == 4
    assert of(metrics, name + "_sum", point="exec") == pytest.approx(9.00425)
    assert of(metrics, name + "_count", point="egress") == 0


def test_the_agents_own_numbers():
    metrics = Metrics(version="1")
    metrics.add_egress_bytes(10, 20, 1)
    metrics.add_egress_bytes(1, 2)
    metrics.lost(3)
    metrics.push_failed()
    metrics.set_sequence(77)
    metrics.set_policy("new")
    metrics.end_session()
    assert of(metrics, "parhelia_agent_egress_bytes_total", direction="up") == 11
    assert of(metrics, "parhelia_agent_egress_bytes_total", direction="down") == 22
    assert of(metrics, "parhelia_agent_egress_connections_total") == 1
    assert of(metrics, "parhelia_agent_audit_lost_total") == 3
    assert of(metrics, "parhelia_agent_push_failures_total") == 1
    assert of(metrics, "parhelia_agent_audit_sequence") == 77
    assert of(metrics, "parhelia_agent_session_ended") == 1
    assert of(metrics, "parhelia_agent_info", version="1", policy_digest="new") == 1


def test_increments_from_many_threads_are_exact():
    metrics = Metrics(version="1")

    def work() -> None:
        for _ in range(2000):
            metrics.count(denial())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    metrics.render()  # the library is loaded in the middle of it
    for thread in threads:
        thread.join()
    assert of(metrics, "parhelia_security_denied_total", event_type="network.egress_blocked") == 16_000


def test_prometheus_client_is_not_imported_before_the_numbers_are_shown():
    program = """
import sys
from agent.record.ledger import Ledger
from agent.record.push import Pusher
from agent.record.metrics import Metrics
metrics = Metrics(version="1")
metrics.lost(2)
assert "prometheus_client" not in sys.modules
assert b"parhelia_agent_audit_lost_total 2.0" in metrics.render()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("event", "woken"),
    [(denial(), 1), (allowed(), 0), (auth_failure("other"), 1), (secret(EventType.SECRET_INJECT, "x"), 1)],
)
def test_security_events_wake_the_watcher(event, woken):
    metrics = Metrics(version="1")
    calls: list[int] = []
    metrics.watch(lambda: calls.append(1))
    metrics.count(event)
    assert len(calls) == woken
