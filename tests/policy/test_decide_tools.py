"""Tools: what may be called, by which rule, and that a further layer only narrows."""

from __future__ import annotations

import pytest

from agent.policy.decide import decide
from agent.policy.decision import Decision
from agent.policy.request import ToolRequest
from tests.policy.given import ORIGIN, TODAY, policy, problems

LISTED = "tools: {allow: ['mcp__github__*', {id: search, tool: mcp__docs__search, reason: reviewed}]}"
CLOSED = """
tools:
  deny:
    - {id: no-browser, tool: 'mcp__browser__*', severity: high, reason: it leaves the sandbox, instead: use curl}
    - WebSearch
"""


def asked(layers: tuple[str, ...], tool: str, *, known: bool = False) -> Decision:
    return decide(policy(*layers), ToolRequest(tool, known, TODAY, ORIGIN))


@pytest.mark.parametrize(
    ("layers", "tool", "known", "verdict", "rule"),
    [
        (("version: 1",), "mcp__x__y", False, "allow", "tools-default"),
        (("tools:",), "mcp__x__y", False, "allow", "tools-default"),
        ((LISTED,), "mcp__github__create_issue", False, "allow", "tools.allow[0]"),
        ((LISTED,), "MCP__GitHub__create_issue", False, "allow", "tools.allow[0]"),
        ((LISTED,), "mcp__docs__search", False, "allow", "search"),
        ((LISTED,), "mcp__docs__searches", False, "deny", "tools-unlisted"),
        ((LISTED,), "xmcp__github__y", False, "deny", "tools-unlisted"),
        ((LISTED,), "Bash", True, "allow", "tools-default"),
        (("tools: {allow: []}",), "mcp__x__y", False, "deny", "tools-unlisted"),
        ((CLOSED,), "mcp__browser__open", False, "deny", "no-browser"),
        ((CLOSED,), "websearch", True, "deny", "tools.deny[1]"),
        ((CLOSED,), "mcp__x__y", False, "allow", "tools-default"),
        ((LISTED, CLOSED), "mcp__docs__search", False, "allow", "search"),
        ((LISTED, CLOSED), "mcp__browser__open", False, "deny", "no-browser"),
        ((CLOSED, LISTED), "mcp__x__y", False, "deny", "tools-unlisted"),
        ((LISTED, "tools: {allow: ['mcp__github__create_*']}"), "mcp__github__delete", False, "deny", "tools-unlisted"),
        (("tools: {allow: ['*']}", "egress:"), "mcp__x__y", False, "allow", "tools.allow[0]"),
    ],
)
def test_a_tool_is_decided_by_every_layer(
    layers: tuple[str, ...], tool: str, known: bool, verdict: str, rule: str
) -> None:
    decision = asked(layers, tool, known=known)
    assert (decision.verdict, decision.rule) == (verdict, rule)


def test_a_denial_carries_the_rules_words_and_place() -> None:
    decision = asked((CLOSED,), "mcp__browser__open")
    assert (decision.reason, decision.instead, decision.severity) == ("it leaves the sandbox", "use curl", "high")
    assert decision.where == "l0/a.yaml:4"


def test_what_a_coding_agent_calls_its_tool_cannot_act_on_a_terminal() -> None:
    decision = asked((LISTED,), "mcp__\x1b[2J\n" + "x" * 1000)
    assert decision.reason.isprintable()
    assert len(decision.reason) < 500


def test_observing_lets_through_what_one_layer_that_enforces_refuses() -> None:
    observing = "tools: {mode: observe, allow: []}"
    assert asked((observing,), "mcp__x__y").permitted
    assert not asked((observing, "tools: {mode: enforce}"), "mcp__x__y").permitted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tools: {allow: [mcp__a__b], deny: ['mcp__*']}", "mcp__a__b is refused by tools.deny[0]"),
        ("tools: {deny: [{tool: 'a*', examples: {match: [b]}}]}", "does not match its example 'b'"),
        ("tools: {deny: [{tool: 'a*', examples: {no_match: [ab]}}]}", "matches its example 'ab'"),
        ("tools: {deny: [{tool: 'a b'}]}", "a tool's name"),
        ("tools: {deny: [{id: tools-default, tool: a}]}", "the agent's own"),
        ("tools: {unknown: deny}", "unknown"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_a_problem(text: str, words: str) -> None:
    found = problems("version: 1\n" + text)
    assert len(found) == 1
    assert words in found[0]


def test_tools_are_part_of_the_digest() -> None:
    texts = ("version: 1", "tools:", "tools: {allow: []}", LISTED, CLOSED, "tools: {deny: [a]}", "tools: {allow: [a]}")
    digests = {policy(text).digest for text in texts}
    assert len(digests) == len(texts)
