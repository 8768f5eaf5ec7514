"""Every declared attack, on each of the five runtimes: what happened is what the declaration says, in both directions.

A group's attacks share one session per runtime (`attack_runs.py`); docs/threat-model.md is made of the same
declarations.
"""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import pytest

from tests.escape.attack_runs import Assault, assault, on_this_machine
from tests.escape.attacks.declared import RUNTIMES, Attack, Control, Group, Verdict
from tests.escape.attacks.stage import unconfined, world_of
from tests.escape.attacks.suite import GROUPS
from tests.escape.threat_model import DOCUMENT, rendered

CORPUS = Path(__file__).parents[3] / "shared" / "corpora" / "path-bypasses.jsonl"
ROWS = range(1, 55)
CONTAINER = [pytest.mark.root, pytest.mark.docker]
FIXTURES = {
    "host": ("host", [pytest.mark.root]),
    "docker": ("docker_sessions", CONTAINER),
    "restricted": ("restricted_sessions", CONTAINER),
    "gvisor-2022": ("gvisor_2022", [*CONTAINER, pytest.mark.gvisor]),
    "gvisor-2024": ("gvisor_2024", [*CONTAINER, pytest.mark.gvisor]),
}
ATTACKS = [(group, attack) for group in GROUPS for attack in group.attacks]


@cache
def control(name: str) -> dict[str, dict[str, str]]:
    """What came of those attacks of a group outside of any confinement, on this machine, that must succeed there."""
    (group,) = [group for group in GROUPS if group.name == name]
    only = [attack.act for attack in group.attacks if attack.control is Control.UNCONFINED]
    stage = on_this_machine()
    try:
        stage.build({**world_of(group.doors, only, {}), "runtime": "unconfined", "audit": "", "policies": ""})
        return unconfined(stage, group.program)
    finally:
        shutil.rmtree(stage.directory)


def absent(group: Group) -> dict[str, str]:
    """The attacks that this machine's kernel cannot show, and why."""
    return {act: line["evidence"] for act, line in control(group.name).items() if line["outcome"] == "absent"}


RUNS: dict[tuple[str, str], Assault] = {}


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Assault:
    """The group's session on the runtime, run once."""
    group, runtime = request.param
    if (group.name, runtime) not in RUNS:
        found = request.getfixturevalue(FIXTURES[runtime][0])
        RUNS[group.name, runtime] = assault(found, group, absent(group))
    return RUNS[group.name, runtime]


def on_each(groups: list[tuple[Group, Attack]]) -> list[object]:
    return [
        pytest.param((group, runtime), attack, marks=FIXTURES[runtime][1], id=f"{runtime}-{group.name}-{attack.name}")
        for group in GROUPS
        for runtime in RUNTIMES
        for of, attack in groups
        if of is group
    ]


def happened(run: Assault, attack: Attack) -> Verdict:
    """The verdict that this runtime gave."""
    line = run.acts[attack.act]
    recorded = attack.record is not None and run.recorded(attack.act, attack.record)
    match line["outcome"]:
        case "succeeded":
            return Verdict.SEEN if recorded else Verdict.OPEN
        case "failed" | "killed":
            return Verdict.REFUSED if recorded else Verdict.CONTAINED
        case "absent":
            return Verdict.UNTESTED
    pytest.fail(f"{attack.act}: {json.dumps(line)}")


@pytest.mark.parametrize(("run", "attack"), on_each(ATTACKS), indirect=["run"])
def test_the_verdict_on(run: Assault, attack: Attack) -> None:
    assert attack.act in run.acts, (run.outcome.status, run.outcome.stderr)
    verdict = happened(run, attack)
    assert verdict == attack.verdicts[run.runtime], run.acts[attack.act]


@pytest.mark.root
@pytest.mark.parametrize(
    ("group", "attack"),
    [
        pytest.param(group, attack, id=f"{group.name}-{attack.name}")
        for group, attack in ATTACKS
        if attack.control is Control.UNCONFINED
    ],
)
def test_outside_of_the_confinement_it_succeeds(host: object, group: Group, attack: Attack) -> None:
    line = control(group.name)[attack.act]
    untested = set(attack.verdicts.values()) == {Verdict.UNTESTED}
    assert line["outcome"] == ("absent" if untested else "succeeded"), line


SESSIONS = [
    pytest.param((group, runtime), marks=FIXTURES[runtime][1], id=f"{runtime}-{group.name}")
    for group in GROUPS
    for runtime in RUNTIMES
]


@pytest.mark.parametrize("run", SESSIONS, indirect=True)
def test_the_session_went_on_to_its_end_and_its_log_and_counters_agree(run: Assault) -> None:
    assert (run.outcome.status, run.outcome.verified) == (0, 0), run.outcome.stderr
    assert run.denied == run.counted


@pytest.mark.parametrize("run", SESSIONS, indirect=True)
def test_nothing_is_left_outside_of_the_session_but_by_a_named_hole(run: Assault) -> None:
    """What the acts made among the victims, and what reached the process outside, whatever they printed themselves."""
    group = next(group for group in GROUPS if set(run.acts) <= {attack.act for attack in group.attacks})
    open_acts = {attack.act for attack in group.attacks if attack.verdicts[run.runtime] in (Verdict.OPEN, Verdict.SEEN)}
    traces = run.made | {line["data"] for line in run.journal}
    strangers = {trace for trace in traces if trace.removeprefix("by-").replace("-", "_") not in open_acts}
    assert strangers == set(), (run.made, run.journal)


def test_every_row_of_the_path_corpus_is_an_attack_or_shown_by_a_test() -> None:
    found = {row for _, attack in ATTACKS for row in attack.rows}
    found |= {row for group in GROUPS for shown in group.shown for row in shown.rows}
    assert sorted(found) == list(ROWS)
    if CORPUS.exists():
        assert {json.loads(line)["id"] for line in CORPUS.read_text().splitlines()} == set(ROWS)


def test_what_another_test_is_said_to_show_is_a_test() -> None:
    root = Path(__file__).parents[2]
    for group in GROUPS:
        for shown in group.shown:
            file, _, name = shown.test.partition("::")
            assert f"def {name}(" in (root / file).read_text(), shown.test


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_each_act_of_a_program_is_declared_once(group: Group) -> None:
    inside = Path(__file__).parent / "attacks" / "inside"
    text = "".join((inside / name).read_text() for name in (group.program, *group.parts))
    acts = [after.partition("def ")[2].partition("(")[0] for after in text.split("\n@attack(")[1:]]
    assert sorted(acts) == sorted(attack.act for attack in group.attacks)
    assert len({attack.name for attack in group.attacks}) == len(group.attacks)


def test_the_threat_model_is_made_of_the_declarations() -> None:
    assert DOCUMENT.read_text() == rendered(), "run: python -m tests.escape.threat_model"
