"""The alert rules, through the real promtool: what fires, what does not, and that the tests would notice."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import require

MONITORING = Path(__file__).parents[2] / "container" / "monitoring"
RULES = MONITORING / "rules" / "parhelia.rules.yml"
PROMISES = MONITORING / "rules" / "tests.promtool.yml"


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = shutil.which(tool)
    require(path, f"{tool} is not installed")
    return subprocess.run([str(path), *arguments], capture_output=True, text=True, timeout=60, check=False)


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_promtool_accepts_the_rules() -> None:
    checked = run("promtool", "check", "rules", str(RULES))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_promtool_accepts_the_configuration_and_finds_the_rules_through_it() -> None:
    checked = run("promtool", "check", "config", str(MONITORING / "prometheus.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(rules())} rules found" in checked.stdout


def test_amtool_accepts_the_alertmanager_configuration() -> None:
    checked = run("amtool", "check-config", str(MONITORING / "alertmanager.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_rules_keep_every_promise_of_the_promtool_tests() -> None:
    tested = run("promtool", "test", "rules", str(PROMISES))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def naive(text: str) -> str:
    """The rules as one would write them first: `increase()` in place of each delta."""
    document = yaml.safe_load(text)
    for group in document["groups"]:
        for rule in group["rules"]:
            if "record" in rule and "last_over_time" in rule["expr"]:
                head, _, _ = rule["expr"].partition("(last_over_time(")
                series = rule["expr"].split("last_over_time(")[-1].split(")")[0]
                rule["expr"] = f"{head}increase({series}))"
    return yaml.safe_dump(document)


MUTATIONS: dict[str, Callable[[str], str]] = {
    "increase() in place of the exact delta": naive,
    "six in place of more than five": lambda text: text.replace("delta5m > 5", "delta5m > 6"),
    "five in place of more than five": lambda text: text.replace("delta5m > 5", "delta5m > 4"),
    "ten denials are enough": lambda text: text.replace("delta1m) > 10", "delta1m) > 9"),
    "twelve denials are needed": lambda text: text.replace("delta1m) > 10", "delta1m) > 11"),
    "the first event is not enough": lambda text: text.replace("}) > 0", "}) > 1"),
    "sessions are added up": lambda text: text.replace("by (env, instance)", "by (env)"),
    "a born session is not counted": lambda text: text.replace(
        "or\n              last_over_time(parhelia_security_denied_total[5m])\n", ""
    ),
    "no look back before the window": lambda text: text.replace("[1h] offset 5m", "[1s] offset 5m"),
    "a dangerous command only warns": lambda text: text.replace("severity: critical", "severity: warning"),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_rules_that_break_a_promise_fail_the_promtool_tests(mutation: str, tmp_path: Path) -> None:
    original = RULES.read_text()
    mutated = MUTATIONS[mutation](original)
    assert mutated != original
    (tmp_path / RULES.name).write_text(mutated)
    assert run("promtool", "check", "rules", str(tmp_path / RULES.name)).returncode == 0
    shutil.copy(PROMISES, tmp_path)
    tested = run("promtool", "test", "rules", str(tmp_path / PROMISES.name))
    assert tested.returncode != 0
    assert "FAILED" in tested.stdout + tested.stderr


def test_every_alert_names_the_session_its_severity_and_a_runbook_that_exists() -> None:
    operations = (MONITORING.parents[1] / "docs" / "operations.md").read_text()
    headings = {
        line.removeprefix("### ").strip().lower() for line in operations.splitlines() if line.startswith("### ")
    }
    alerts = [rule for rule in rules() if "alert" in rule]
    assert alerts
    for rule in alerts:
        annotations = rule["annotations"]
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert annotations["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["alert"].lower() in headings
        if rule["alert"] != "ParheliaPushgatewayDown":
            assert "{{ $labels.instance }}" in annotations["summary"]
            assert "{{ $labels.env }}" in annotations["summary"]
