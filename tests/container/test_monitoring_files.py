"""The compose file, the provisioning and the dashboard fit together, publish on loopback only and hold no secret."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

MONITORING = Path(__file__).parents[2] / "container" / "monitoring"


def load(name: str) -> dict[str, Any]:
    document = yaml.safe_load((MONITORING / name).read_text())
    assert isinstance(document, dict)
    return document


def services() -> dict[str, dict[str, Any]]:
    found = load("compose.yaml")["services"]
    assert set(found) == {"pushgateway", "prometheus", "alertmanager", "grafana"}
    return dict(found)


@pytest.mark.parametrize("service", sorted(services()))
def test_a_service_publishes_on_loopback_only_and_names_a_version(service: str) -> None:
    definition = services()[service]
    assert definition["ports"]
    for port in definition["ports"]:
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)
    assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", definition["image"])
    assert not definition.get("network_mode")


@pytest.mark.parametrize("service", sorted(services()))
def test_a_service_mounts_files_that_exist_read_only(service: str) -> None:
    mounted = services()[service]["volumes"]
    named = load("compose.yaml")["volumes"]
    for volume in mounted:
        source, target, *mode = volume.split(":")
        assert target.startswith("/")
        if source.startswith("."):
            assert (MONITORING / source).exists()
            assert mode == ["ro"]
        else:
            assert source in named


def test_the_programs_find_each_other_by_their_service_names_and_ports() -> None:
    published = {name: definition["ports"][0].rsplit(":", 1)[1] for name, definition in services().items()}
    prometheus = load("prometheus.yml")
    targets = [
        *prometheus["scrape_configs"][0]["static_configs"][0]["targets"],
        *prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"],
        *(
            source["url"].removeprefix("http://")
            for source in load("grafana/provisioning/datasources/prometheus.yml")["datasources"]
        ),
    ]
    assert len(targets) == 4
    for target in targets:
        host, port = target.split(":")
        assert published[host] == port


def test_prometheus_scrapes_often_enough_for_exact_counts_and_keeps_the_pushed_labels() -> None:
    config = load("prometheus.yml")
    (scrape,) = config["scrape_configs"]
    assert int(config["global"]["scrape_interval"].removesuffix("s")) <= 15
    assert "scrape_interval" not in scrape
    assert scrape["honor_labels"] is True


def test_grafana_is_provisioned_with_the_data_source_and_the_dashboard_it_needs() -> None:
    dashboard = json.loads((MONITORING / "dashboards" / "security-audit.json").read_text())
    provisioned = load("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    uids = {source["uid"] for source in provisioned if source["type"] == "prometheus"}
    asked = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    for panel in asked:
        assert panel["datasource"]["uid"] in uids
        assert panel["description"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] in uids
    identifiers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    (provider,) = load("grafana/provisioning/dashboards/parhelia.yml")["providers"]
    mounts = [volume.split(":")[:2] for volume in services()["grafana"]["volumes"]]
    assert ["./dashboards", provider["options"]["path"]] in mounts


def test_panels_do_not_overlap() -> None:
    dashboard = json.loads((MONITORING / "dashboards" / "security-audit.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_critical_alerts_page_with_a_key_from_a_file_and_no_secret_is_in_the_files() -> None:
    config = load("alertmanager.yml")
    (critical,) = config["route"]["routes"]
    assert critical["matchers"] == ['severity="critical"']
    (pager,) = [receiver for receiver in config["receivers"] if receiver["name"] == critical["receiver"]]
    (pagerduty,) = pager["pagerduty_configs"]
    assert pagerduty["routing_key_file"] == "/run/secrets/pagerduty_routing_key"
    compose = load("compose.yaml")
    assert "pagerduty_routing_key" in compose["services"]["alertmanager"]["secrets"]
    assert compose["secrets"]["pagerduty_routing_key"]["file"].startswith("${PARHELIA_PAGERDUTY_KEY_FILE:-")
    for path in MONITORING.rglob("*"):
        if path.is_file():
            secret = r"(?i)\b[0-9a-z]{32}\b|(?<!_)(routing_key|service_key|\w*password): *\S"
            assert not re.search(secret, path.read_text()), path
