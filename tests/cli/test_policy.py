"""`policy lint|schema|explain`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.policy.json_schema import json_schema
from tests.policy.authority import make_certificate


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    place = tmp_path / "p"
    place.mkdir()
    (place / "x.yaml").write_text(
        "egress: {allow: [a.test, {id: own, host: b.test, methods: [GET], addresses: [10.0.0.0/8]}], deny: [c.test]}\n"
        "commands: {deny: [{id: tree, match: {program: rm, options: [recursive], operands: [/]},\n"
        "  examples: {match: [rm -r /], no_match: [ls]}}]}\n"
        "paths: {write: [/w], read: [/etc], protect: [.env]}\n"
        "exceptions: [{rule: tree, owner: me, reason: why, expires: 2027-01-31}]\n"
    )
    return place


def test_lint_is_content_with_the_shipped_policy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PARHELIA_POLICY_DIR", raising=False)
    shipped = str(Path(__file__).parents[2] / "policies")
    assert main(["policy", "lint", shipped]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fine: ")


def test_lint_names_every_problem_and_exits_4(capsys: pytest.CaptureFixture[str], directory: Path) -> None:
    (directory / "y.yaml").write_text("version: 1\negres: {}\nuse: [nosuch]\n")
    assert main(["policy", "lint", str(directory)]) == 4
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{directory}/y.yaml:2:1: unknown key 'egres' in a policy file; did you mean 'egress'?"
    assert lines[1].startswith(f"{directory}/y.yaml:3:7: there is no bundle 'nosuch'")
    assert lines[2] == "parhelia: the policy is refused: 2 problems"


def test_lint_takes_layers_as_arguments_flags_or_environment(
    capsys: pytest.CaptureFixture[str], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARHELIA_POLICY_DIR", str(directory))
    assert main(["policy", "lint"]) == 0
    assert "1 layer" in capsys.readouterr().err
    assert main(["policy", "lint", "--policy", str(directory), str(directory)]) == 0
    captured = capsys.readouterr().err
    assert "2 layers" in captured
    assert "warning: " in captured and "cancels the whole rule tree until 2027-01-31" in captured


def test_lint_says_which_exceptions_have_ended(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        "commands: {deny: [{id: x, match: {program: mkfs}, examples: {match: [mkfs x], no_match: [ls]}}]}\n"
        "exceptions:\n"
        "  - {rule: x, match: {program: mkfs.ext4}, owner: o, reason: r, expires: 2020-01-31}\n"
        "  - {rule: x, match: {program: mkfs.xfs}, owner: o, reason: r, expires: 2999-01-31}\n"
    )
    assert main(["policy", "lint", str(tmp_path)]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert told == [f"warning: {tmp_path}/x.yaml:3: the exception of x ended on 2020-01-31; remove it"]


def test_lint_answers_in_json(capsys: pytest.CaptureFixture[str], directory: Path) -> None:
    assert main(["policy", "lint", "--json", str(directory)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["valid"] is True and len(document["digest"]) == 64 and len(document["warnings"]) == 1
    (directory / "x.yaml").write_text("a: b")
    assert main(["policy", "lint", "--json", str(directory)]) == 4
    assert json.loads(capsys.readouterr().out)["problems"][0]["line"] == 1


def test_schema_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()


def test_explain_shows_rules_built_in_ones_and_effective_grants(
    capsys: pytest.CaptureFixture[str], directory: Path
) -> None:
    assert main(["policy", "explain", "--policy", str(directory)]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""  # stdout is for --json, unless it is a terminal
    text = printed.err
    for line in (
        "egress allow  a.test 443 tls",
        "b.test 443 tls GET may be at 10.0.0.0/8",
        "c.test any port any protocol",
        "rm [recursive] /",
        "exception from tree until 2027-01-31 (me): why",
        "self-protection-files",
        "$TMPDIR, a directory made for each session",
        "/dev/null /dev/zero /dev/full",
        "\n  /proc\n",
        "the agent's own, inside granted trees and never granted\n  /etc/parhelia",
    ):
        assert line in text, line


def test_explain_in_json_holds_the_grants_of_all_layers(
    capsys: pytest.CaptureFixture[str], directory: Path, tmp_path: Path
) -> None:
    further = tmp_path / "further"
    further.mkdir()
    (further / "x.yaml").write_text("paths: {write: [/w/a]}")
    assert main(["policy", "explain", "--json", "--policy", str(directory), "--policy", str(further)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert "/w/a" in document["grants"]["write"] and "/w" not in document["grants"]["write"]
    assert "/proc" in document["grants"]["read"] and "/w" in document["grants"]["read"]
    assert document["grants"]["hidden"] == ["/etc/parhelia"]
    assert [layer["source"] for layer in document["layers"]] == [str(directory), str(further)]
    assert {rule["id"] for rule in document["built_in"]} >= {"self-protection-keeper"}


def test_explain_shows_the_limits_of_all_egress_and_the_authorities_it_trusts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _, authority = make_certificate("authority.test", ca=True)
    text = f"egress: {{allow: [a.test], limits: {{connections: 9}}, trust: [{json.dumps(authority)}]}}"
    (tmp_path / "x.yaml").write_text(text)
    assert main(["policy", "explain", "--policy", str(tmp_path)]) == 0
    shown = capsys.readouterr().err
    assert "egress in all: connections 9" in shown
    assert "egress trusts CN=authority.test, besides the system's authorities" in shown
    assert main(["policy", "explain", "--json", "--policy", str(tmp_path)]) == 0
    (layer,) = json.loads(capsys.readouterr().out)["layers"]
    assert (layer["limits"], layer["trust"]) == ({"connections": 9}, ["CN=authority.test"])


def test_explain_says_what_an_empty_layer_means(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.yaml").write_text("version: 1")
    assert main(["policy", "explain", "--policy", str(tmp_path / "a"), "--policy", str(tmp_path / "b")]) == 0
    text = capsys.readouterr().err
    assert text.count("no section egress: it allows nothing") == 1
    assert text.count("no section egress: it is neutral here") == 1


def test_an_invalid_policy_is_not_explained(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["policy", "explain", "--policy", str(tmp_path / "missing")]) == 4
    assert "cannot be read" in capsys.readouterr().err
