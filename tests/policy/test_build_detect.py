"""The section `detect`: what is accepted, what it comes to, and what is refused where and with which fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.policy.decision import Severity
from agent.policy.model_detect import WATCHED, Detector, Outcome, Response, Sign
from agent.record.event import EventType
from tests.policy.given import layer, policy, problems

FULL = """\
version: 1
detect:
  - id: many
    when:
      - {events: [permission.denied, bash.dangerous], result: denied, severity: high, rules: "a-*"}
      - {events: permission.denied, resources: [<secret-file>, "/srv/*"]}
    count: 10
    within: 1m
    distinct: resource
    severity: critical
    reason: too many
    respond: [record, kill]
  - {id: export, upload: 10MB, within: 600}
"""


def test_every_key_is_read_as_written() -> None:
    many, export = policy(FULL).detectors
    assert many == Detector(
        "many",
        many.where,
        60,
        (
            Sign(
                ("permission.denied", "bash.dangerous"),
                rules=("a-*",),
                results=(Outcome.DENIED,),
                severity=Severity.HIGH,
            ),
            Sign(("permission.denied",), resources=("<secret-file>", "/srv/*")),
        ),
        count=10,
        distinct=True,
        severity=Severity.CRITICAL,
        reason="too many",
        respond=(Response.RECORD, Response.KILL),
    )
    assert (export.upload, export.within, export.respond) == (10_000_000, 600, (Response.RECORD,))
    assert str(many.where) == "l0/a.yaml:3"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{id: a, within: 1m}", "a detector of nothing"),
        ("{id: a, within: 1m, count: 3}", "a detector of nothing"),
        ("{id: a, within: 1m, when: {events: auth.failure}}", "a detector of nothing"),
        ("{id: a, within: 1m, when: [], count: 1}", "name one"),
        ("{id: a, within: 1m, upload: 1MB, count: 1}", "'count' beside 'upload'"),
        ("{id: a, within: 1m, upload: 1MB, when: {events: auth.failure}}", "'when' beside 'upload'"),
        ("{id: a, within: 1m, upload: 0}", "out of range"),
        ("{id: a, within: 0, upload: 1}", "out of range"),
        ("{id: a, upload: 1}", "within"),
        ("{within: 1m, upload: 1}", "id"),
        ("{id: 'a b', within: 1m, upload: 1}", "an id"),
        ("{id: a, within: 1m, when: {events: auth.failur}, count: 1}", "an event type that can be watched"),
        ("{id: a, within: 1m, when: {events: detection.triggered}, count: 1}", "an event type that can be watched"),
        ("{id: a, within: 1m, when: {rules: x}, count: 1}", "events"),
        ("{id: a, within: 1m, when: {events: auth.failure}, count: 0}", "out of range"),
        ("{id: a, within: 1m, when: {events: auth.failure}, count: 10001}", "out of range"),
        ("{id: a, within: 1m, when: {events: auth.failure, tags: x}, count: 1}", "tags are of command rules"),
        ("{id: a, within: 1m, when: {events: auth.failure, resources: <nothing>}, count: 1}", "no class of paths"),
        ("{id: a, within: 1m, when: {events: auth.failure, resources: x=<agent>}, count: 1}", "no class of paths"),
        ("{id: a, within: 1m, upload: 1, respond: shout}", "a response"),
        ("{id: a, within: 1m, upload: 1}\n  - {id: a, within: 2m, upload: 1}", "the id 'a' is given twice"),
    ],
)
def test_a_detector_with_a_mistake_is_refused_with_its_place(entry: str, said: str) -> None:
    found = problems(f"detect:\n  - {entry}\n")
    assert any(said in problem for problem in found), found
    assert all(problem.startswith("p/a.yaml:") for problem in found)


def test_further_layers_and_files_add_detectors_and_take_none_away() -> None:
    loaded = policy(
        layer("detect: [{id: a, upload: 1, within: 1m}]", "detect: [{id: b, upload: 1, within: 1m}]", name="one"),
        "detect: [{id: a, upload: 2, within: 1m}]",
        "version: 1",
        "detect: []",
    )
    assert [(each.id, each.upload) for each in loaded.detectors] == [("a", 1), ("b", 1), ("a", 2)]


def test_a_detector_is_part_of_the_digest_and_its_place_is_not() -> None:
    before = policy("detect: [{id: a, upload: 1, within: 1m}]").digest
    assert policy("# moved\ndetect:\n- {within: 60, id: a, upload: 1}").digest == before
    assert policy("detect: [{id: a, upload: 1, within: 61}]").digest != before
    assert policy("version: 1").digest != before


def test_a_tag_that_no_command_rule_has_is_warned_of() -> None:
    text = "detect: [{id: a, when: {events: bash.dangerous, tags: [ghost]}, count: 1, within: 1m}]"
    (warning,) = [said for said in policy(text).warnings if "tag" in said]
    assert warning == "l0/a.yaml:1: a looks for the tag ghost, which no command rule here has"


def test_what_can_be_watched_are_event_types_and_none_that_detecting_causes() -> None:
    known = {str(kind) for kind in EventType}
    assert set(WATCHED) <= known
    assert not {str(EventType.DETECTION), str(EventType.AGENT_LOCKDOWN)} & set(WATCHED)


def test_the_shipped_detectors_end_no_session() -> None:
    from agent.daemon.policies.store import read_policy

    shipped = read_policy([])
    assert {"brute-force", "many-denials", "privilege-escalation", "data-export"} <= {d.id for d in shipped.detectors}
    assert {each for detector in shipped.detectors for each in detector.respond} == {Response.RECORD}
    assert shipped.warnings == ()
    assert (Path(__file__).parents[2] / "policies" / "detect.yaml").exists()
