"""`check command --explain`: what was understood, every rule that fits, and the one that decided."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.exits import Exit

POLICY = """\
version: 1
commands:
  deny:
    - {id: low, match: {program: rm}, severity: low, examples: {match: [rm x], no_match: [ls]}}
    - {id: tree, match: {program: rm, options: [recursive], operands: [<system>]}, severity: critical,
       examples: {match: [rm -r /], no_match: [rm -r x]}}
    - {id: read, match: {program: cat, operands: [<secret-file>]}, in_doubt: allow,
       examples: {match: [cat .env], no_match: [cat x]}}
exceptions:
  - {rule: low, match: {program: rm, operands: [/opt/scratch]}, owner: o, reason: r, expires: 2999-01-31}
"""


@pytest.fixture(autouse=True)
def own_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.yaml").write_text(POLICY)
    monkeypatch.setenv("PARHELIA_POLICY_DIR", str(tmp_path))


def ask(capsys: pytest.CaptureFixture[str], text: str, *flags: str) -> tuple[int, str, str]:
    status = main(["check", *flags, "command", text, "--explain"])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_most_severe_rule_decides_and_every_rule_that_fits_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, page = ask(capsys, "cd / && sudo rm -rf usr")
    lines = page.splitlines()
    assert status == Exit.DENIED
    assert any(line.startswith("  3. rm -rf usr   (in /, behind sudo)") for line in lines)
    assert [line.split(" (")[0].strip() for line in lines if " describes it" in line] == ["low", "=> tree"]
    assert next(line for line in lines if line.startswith("deny: ")).startswith("deny: tree (")


def test_an_exception_that_lets_pass_and_a_doubt_that_does_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, page = ask(capsys, 'rm /opt/scratch; cat "$F"')
    assert status == Exit.OK
    assert "     lets it pass: the exception of o (" in page
    assert "     lets it pass: the rule says in_doubt: allow" in page


def test_what_is_not_known_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, page = ask(capsys, 'eval "$X"')
    assert (status, "not known before it runs: " in page, "rules that fit: none" in page) == (Exit.DENIED, True, True)


def test_control_characters_of_the_text_are_not_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, page = ask(capsys, "echo '\x1b[2J\u202e'")
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_programs_get_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ask(capsys, "FOO=1 rm -r /etc > log", "--json")
    answer = json.loads(out)
    assert (status, answer["verdict"], answer["rule"]) == (Exit.DENIED, "deny", "tree")
    (command,) = answer["commands"]
    assert (command["program"], command["argv"], command["redirects"]) == ("rm", ["rm", "-r", "/etc"], [[">", "log"]])
    assert command["environment"] == [["FOO", "1"]]
    assert {(entry["rule"], entry["fit"], entry["command"]) for entry in answer["rules"]} == {
        ("low", "yes", 0),
        ("tree", "yes", 0),
    }
