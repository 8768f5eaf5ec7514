"""Packs: their rules are the layer's, with ids, places, exceptions and examples of their own."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent

import pytest

from agent.policy.decide import decide
from agent.policy.decision import Verdict
from agent.policy.load import PolicyError, load_policy
from agent.policy.model import Policy
from tests.policy.given import command, layer

PACK = dedent(
    """\
    version: 1
    about: A pack for the tests.
    deny:
      - id: no-push
        match: {program: git, subcommand: [push], options: [force|f], without: [dry-run]}
        severity: high
        tags: [git]
        reason: rewrites what others have
        instead: push without force
        examples: {match: [git push --force], no_match: [git push, git push --force --dry-run]}
    """
)


def load(text: str, *further: str, pack: str = PACK) -> Policy:
    sources = [layer(entry, name=f"l{index}") for index, entry in enumerate((text, *further))]
    return load_policy(sources, read_command=command, packs={"test": pack, "other": pack.replace("no-push", "other")})


def rule_of(policy: Policy, text: str) -> tuple[str, str, str | None]:
    decision = decide(policy, command(text))
    return str(decision.verdict), decision.rule, decision.where


def test_a_pack_adds_its_rules_with_their_places() -> None:
    policy = load("packs: [test]\ncommands: {deny: [mkfs]}")
    assert rule_of(policy, "git push -f origin") == ("deny", "no-push", "policies/packs/test.yaml:4")
    assert rule_of(policy, "sudo mkfs.ext4 /dev/x")[:2] == ("deny", "commands.deny[0]")
    assert rule_of(policy, "git push origin")[0] == "allow"


def test_a_pack_needs_no_section_of_commands() -> None:
    decision = decide(load("packs: [test]"), command("git push --force"))
    assert (decision.verdict, decision.rule, decision.enforced) == (Verdict.DENY, "no-push", True)


def test_observing_commands_observe_the_packs_rules_too() -> None:
    policy = load("packs: [test]\ncommands: {mode: observe}")
    assert not decide(policy, command("git push --force")).enforced


def test_a_further_layer_narrows_by_a_pack() -> None:
    policy = load("commands: {}", "packs: [test]")
    assert rule_of(policy, "git push --force")[:2] == ("deny", "no-push")


def test_an_exception_may_name_a_rule_of_a_pack() -> None:
    excepted = "exceptions: [{rule: no-push, match: {program: git, operands: [push, fork]}, owner: o, reason: r, "
    policy = load(f"packs: [test]\n{excepted}expires: 2027-01-31}}]")
    assert rule_of(policy, "git push --force fork")[0] == "allow"
    assert rule_of(policy, "git push --force origin")[:2] == ("deny", "no-push")


def test_a_rule_of_the_policys_own_may_have_the_name_of_a_packs_rule_and_both_hold() -> None:
    own = "commands: {deny: [{id: no-push, match: {program: dd}, examples: {match: [dd], no_match: [ls]}}]}"
    policy = load(f"packs: [test]\n{own}")
    assert rule_of(policy, "dd")[1] == rule_of(policy, "git push -f")[1] == "no-push"
    assert any(
        "no-push is also the name of a rule of a pack (policies/packs/test.yaml:4)" in w for w in policy.warnings
    )


@pytest.mark.parametrize(
    ("text", "pack", "expected"),
    [
        ("packs: [nosuch]", PACK, "there is no pack 'nosuch'; the packs are: other, test"),
        ("packs: [test, test]", PACK, "the pack 'test' is used twice; remove one of the two"),
        ("packs: [test]", PACK.replace("severity: high", "severity: bad"), "policies/packs/test.yaml:6:"),
        ("packs: [test]", PACK.replace("    tags: [git]\n", ""), "a pack's rule without 'tags'"),
        ("packs: [test]", PACK.replace("[git push --force]", "[git push]"), "no-push does not match its example"),
        (
            "packs: [test]",
            PACK.replace("no_match: [git push, ", "no_match: [git push -f, "),
            "no-push matches its example",
        ),
        ("packs: [test, other]", PACK.replace("id: no-push", "id: same"), "the id 'same' is given twice"),
        ("packs: [test]", PACK.split("deny:")[0] + "deny: []", "a pack has at least one rule"),
    ],
)
def test_what_is_wrong_with_a_pack_or_its_name_is_an_error(text: str, pack: str, expected: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(text, pack=pack)
    assert any(expected in str(problem) for problem in caught.value.problems), caught.value.problems


def test_a_rule_may_leave_alone_what_its_program_starts_of_itself() -> None:
    policy = load("packs: [test]", pack=PACK.replace("    severity", "    unless_from_itself: true\n    severity", 1))
    asked = command("git push --force")
    assert decide(policy, replace(asked, caller="git")).verdict is Verdict.ALLOW
    assert decide(policy, replace(asked, caller="sh")).rule == "no-push"
    assert decide(policy, replace(command("sh -c 'git push --force'"), caller="git")).rule == "no-push"
    assert decide(load("packs: [test]"), replace(asked, caller="git")).rule == "no-push"
