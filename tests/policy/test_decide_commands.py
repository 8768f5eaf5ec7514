"""Command decisions: rules by meaning, self-protection, what cannot be known beforehand, exceptions."""

from __future__ import annotations

from datetime import date

import pytest

from agent.policy.decide import decide
from agent.policy.decision import Decision, Severity, Verdict
from tests.policy.given import command, policy

RULES = """\
commands:
  deny:
    - mkfs
    - {id: tree, match: {program: rm, options: [recursive], operands: [/, /*, /etc/**, /opt/**]}, severity: critical,
       reason: deletes the system, instead: delete inside the workspace,
       examples: {match: [rm -r /], no_match: [rm -r x]}}
"""


def ask(*layers: str, text: str, supervised: bool = False, today: date = date(2026, 11, 22)) -> Decision:
    return decide(policy(*layers), command(text, supervised=supervised, today=today))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("rm -rf /", "tree"),
        ("sudo rm --recursive --force /etc", "tree"),
        ('bash -c "sudo rm -r -f /*"', "tree"),
        ("ls; rm -r /opt/x", "tree"),
        ("mkfs.ext4 /dev/sda", "commands.deny[0]"),
        ("rm -rf ./build", "commands-default"),
        ("echo 'rm -rf /'", "commands-default"),
        ("# nothing", "commands-default"),
    ],
)
def test_a_rule_denies_by_meaning(text: str, rule: str) -> None:
    decision = ask(RULES, text=text)
    assert decision.rule == rule
    assert decision.verdict is (Verdict.ALLOW if rule == "commands-default" else Verdict.DENY)


def test_a_denial_carries_the_words_of_its_rule_and_its_place() -> None:
    decision = ask(RULES, text="rm -rf /")
    assert (decision.reason, decision.instead) == ("deletes the system", "delete inside the workspace")
    assert (decision.severity, decision.where) == (Severity.CRITICAL, "l0/a.yaml:4")


def test_a_rule_without_words_says_what_it_refuses() -> None:
    assert ask(RULES, text="mkfs /dev/sda").reason == "mkfs is refused"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("pkill -f parhelia-agent", "self-protection-process"),
        ("killall parhelia-agent", "self-protection-process"),
        ("kill -9 1", "self-protection-keeper"),
        ("rm -rf /run/parhelia", "self-protection-files"),
        ("sudo tee /etc/parhelia/policies/egress.yaml", "self-protection-files"),
        ("cp x /etc/claude-code/managed-settings.json", "self-protection-files"),
        ("dd if=x of=/vol/parhelia/audit/s/audit.jsonl", "self-protection-files"),
    ],
)
@pytest.mark.parametrize("layers", [("version: 1",), ("commands: {mode: observe}",), ("version: 1", RULES)])
def test_the_agent_protects_itself_with_every_policy(layers: tuple[str, ...], text: str, rule: str) -> None:
    decision = ask(*layers, text=text)
    assert (decision.verdict, decision.rule, decision.enforced) == (Verdict.DENY, rule, True)
    assert decision.where is None


@pytest.mark.parametrize(
    "text", ["kill 12345", "kill %1", "rm -rf ./parhelia", "ls /etc/parhelia", "cat /run/parhelia/x"]
)
def test_self_protection_leaves_the_rest_alone(text: str) -> None:
    assert ask("version: 1", text=text).verdict is Verdict.ALLOW


def test_without_a_commands_section_nothing_else_is_denied() -> None:
    assert ask("version: 1", text="rm -rf /").rule == "commands-default"
    assert ask("version: 1", text="$X").verdict is Verdict.ALLOW


@pytest.mark.parametrize(
    ("layers", "supervised", "permitted"),
    [
        (("commands: {deny: [mkfs]}",), True, True),
        (("commands: {deny: [mkfs]}",), False, False),
        (("commands: {unverifiable: supervise}",), True, True),
        (("commands: {unverifiable: deny}",), True, False),
        (("commands: {unverifiable: deny}",), False, False),
        (("commands: {}", "commands: {unverifiable: deny}"), True, False),
        (("commands: {mode: observe, unverifiable: deny}",), False, True),
    ],
)
def test_what_cannot_be_known_runs_only_supervised(layers: tuple[str, ...], supervised: bool, permitted: bool) -> None:
    decision = ask(*layers, text='eval "$X"', supervised=supervised)
    assert (decision.verdict, decision.rule) == (Verdict.UNVERIFIABLE, "commands-unverifiable")
    assert decision.permitted is permitted
    assert decision.reason.startswith("what this command does cannot be known before it runs: ")


def test_a_rule_that_may_apply_makes_a_command_unverifiable() -> None:
    decision = ask(RULES, text='rm -rf "$X"')
    assert decision.verdict is Verdict.UNVERIFIABLE
    assert "tree" in decision.reason


def test_a_rule_that_applies_wins_over_what_cannot_be_known() -> None:
    assert ask(RULES, text='eval "$X"; mkfs /dev/sda').rule == "commands.deny[0]"


def test_any_layer_denies_and_one_that_enforces_makes_all_enforce() -> None:
    observe = RULES.replace("commands:", "commands:\n  mode: observe", 1)
    assert ask(observe, text="rm -rf /").permitted
    assert not ask(observe, "commands: {mode: enforce}", text="rm -rf /").permitted
    assert not ask("commands: {}", observe, text="rm -rf /").permitted
    assert ask("commands: {}", "version: 1", text="rm -rf /").verdict is Verdict.ALLOW


EXCEPTED = RULES + (
    "exceptions: [{rule: tree, match: {program: rm, operands: [/opt/scratch/**]}, owner: o, reason: r,"
    " expires: 2027-01-31}]\n"
)


@pytest.mark.parametrize(
    ("text", "today", "rule"),
    [
        ("rm -rf /opt/scratch", date(2027, 1, 31), "commands-default"),
        ("rm -rf /opt/scratch/x", date(2027, 1, 1), "commands-default"),
        ("rm -rf /opt/scratch", date(2027, 2, 1), "tree"),
        ("rm -rf /opt", date(2027, 1, 1), "tree"),
        ("rm -rf /opt/scratch /etc", date(2027, 1, 1), "tree"),
        ("rm -rf /opt/scratch; rm -rf /etc", date(2027, 1, 1), "tree"),
        ("rm -rf /opt/scratch/../../etc", date(2027, 1, 1), "tree"),
        ("mkfs /opt/scratch", date(2027, 1, 1), "commands.deny[0]"),
    ],
)
def test_an_exception_lets_pass_only_what_it_describes_whole(text: str, today: date, rule: str) -> None:
    assert ask(EXCEPTED, text=text, today=today).rule == rule


def test_an_exception_counts_in_its_own_layer_only() -> None:
    assert ask(EXCEPTED, RULES, text="rm -rf /opt/scratch").rule == "tree"


def test_an_exception_does_not_hold_for_a_command_with_an_unknown_word() -> None:
    assert ask(EXCEPTED, text='rm -rf /opt/scratch "$X"').rule == "tree"
