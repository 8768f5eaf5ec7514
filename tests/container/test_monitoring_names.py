"""Rules, dashboard and docs speak only of what `agent.record.metrics` exports, and of all of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from agent.record.event import DENIALS
from agent.record.metrics import LEVELS, Metrics

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "container" / "monitoring"

ELSEWHERE = {"push_time_seconds", "up", "ALERTS"}
"""Made by the Pushgateway and by Prometheus."""
PUSHED_LABELS = {"job", "env", "instance"}
"""The group's labels: the agent's push adds them."""


def families() -> dict[str, tuple[str, set[str]]]:
    """Name as it is pushed -> (type, labels), of everything the agent exports."""
    metrics = Metrics(version="1", policy_digest="d", secret_names=["s"])
    return {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in metrics.families()
    }


def samples() -> dict[str, set[str]]:
    """Sample name -> labels, as Prometheus sees them."""
    found: dict[str, set[str]] = {}
    for family in Metrics(version="1", policy_digest="d", secret_names=["s"]).families():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def rule_expressions() -> list[str]:
    groups = yaml.safe_load((MONITORING / "rules" / "parhelia.rules.yml").read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def panel_expressions() -> list[str]:
    dashboard = json.loads((MONITORING / "dashboards" / "security-audit.json").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return panels + [variable["definition"] for variable in dashboard["templating"]["list"]]


def metric_names(expression: str) -> set[str]:
    """The metrics an expression reads; recorded ones (with colons) are checked where they are recorded."""
    bare = re.sub(r'"[^"]*"', '""', re.sub(r"\b\w+:\w+:\w+\b", "", expression))
    return set(re.findall(r"\b(?:parhelia_\w+|push_time_seconds|up|ALERTS)\b", bare))


def test_rules_and_dashboard_read_only_metrics_that_the_agent_exports() -> None:
    known = samples().keys() | ELSEWHERE
    read = {name: text for text in [*rule_expressions(), *panel_expressions()] for name in metric_names(text)}
    assert read
    assert {name: text for name, text in read.items() if name not in known} == {}


def test_rules_and_dashboard_read_only_labels_that_the_metric_has() -> None:
    for text in [*rule_expressions(), *panel_expressions()]:
        exported = [samples()[name] for name in metric_names(text) - ELSEWHERE]
        for name, matchers in re.findall(r"\b(parhelia_\w+)\{([^}]*)\}", text):
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', "", matchers)))
            assert labels <= samples()[name] | PUSHED_LABELS, text
        for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", text):
            labels = {label.strip() for label in group.split(",")}
            if exported:
                assert labels <= set.union(*exported) | PUSHED_LABELS, text


def test_rules_and_dashboard_ask_for_event_types_that_are_counted() -> None:
    counted = {event_type.value for event_type in DENIALS}
    asked = {
        value
        for text in [*rule_expressions(), *panel_expressions()]
        for value in re.findall(r'event_type="([^"]+)"', text)
    }
    assert asked == counted


def test_every_metric_of_the_agent_is_on_the_dashboard() -> None:
    shown = {name for text in panel_expressions() for name in metric_names(text)}
    shown |= {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown}
    assert families().keys() - shown == set()


def test_the_table_in_the_docs_is_what_the_agent_exports() -> None:
    rows = re.findall(r"^\| `(parhelia_\w+)` \| (\w+) \|([^|]*)\|", (ROOT / "docs" / "metrics.md").read_text(), re.M)
    documented = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert len(rows) == len(documented)
    assert documented == families()


def test_the_levels_in_the_docs_are_the_levels_of_the_metric() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert re.findall(r"^\| \*\*(\w+)\*\* \|", text, re.M) == list(LEVELS)
