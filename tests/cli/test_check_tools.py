"""`check tool`: the same answer as the hook's, by flags and by lines; and `policy explain` shows the rules."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from agent.cli.main import main

POLICY = "version: 1\ntools: {allow: ['mcp__a__*'], deny: [{id: no-search, tool: WebSearch, reason: it leaves}]}\n"


@pytest.fixture
def policy(tmp_path: Path) -> str:
    (tmp_path / "p.yaml").write_text(POLICY)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("tool", "code", "rule"),
    [
        ("mcp__a__b", 0, "tools.allow[0]"),
        ("mcp__b__c", 3, "tools-unlisted"),
        ("Bash", 0, "tools-default"),
        ("WebSearch", 3, "no-search"),
    ],
)
def test_a_tool_is_answered(capsys: pytest.CaptureFixture[str], policy: str, tool: str, code: int, rule: str) -> None:
    assert main(["check", "--json", "--policy", policy, "tool", tool]) == code
    assert json.loads(capsys.readouterr().out)["rule"] == rule


def test_an_empty_name_is_no_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "tool", ""]) == 2
    assert "the tool's name is empty" in capsys.readouterr().err


def test_lines_ask_about_tools_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    lines = b'{"id":1,"kind":"tool","tool":"WebSearch"}\n{"id":2,"kind":"tool"}\n{"id":3,"kind":"tool","tool":"Read"}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert main(["check", "--jsonl", "--policy", policy]) == 2
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer.get("verdict") for answer in answers] == ["deny", None, "allow"]


def test_the_rules_are_on_the_page_of_policy_explain(capsys: pytest.CaptureFixture[str], policy: str) -> None:
    assert main(["policy", "explain", "--policy", policy]) == 0
    shown = capsys.readouterr()
    page = " ".join((shown.out + shown.err).split())
    assert "tool allow mcp__a__* tools.allow[0]" in page
    assert "tool deny WebSearch no-search" in page
