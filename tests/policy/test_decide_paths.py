"""Path decisions: grants, what is always there, what never is, protected places."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.policy.decide import decide
from agent.policy.decision import Verdict
from agent.policy.model import Policy
from tests.policy.given import path, policy

GRANTS = "paths: {write: [/w, /tmp], read: [/usr, {path: /etc, id: settings, reason: r}]}"


def says(given: Policy, access: str, place: str) -> tuple[str, str]:
    decision = decide(given, path(access, place))
    return str(decision.verdict), decision.rule


@pytest.mark.parametrize(
    ("access", "place", "rule"),
    [
        ("write", "/w", "paths.write[0]"),
        ("write", "/w/a/b", "paths.write[0]"),
        ("read", "/w/a", "paths.write[0]"),
        ("execute", "/w/a", "paths.write[0]"),
        ("delete", "/w/a", "paths.write[0]"),
        ("read", "/usr/bin/python3", "paths.read[0]"),
        ("execute", "/usr/bin/python3", "paths.read[0]"),
        ("read", "/etc/passwd", "settings"),
        ("write", "/etc/passwd", None),
        ("delete", "/etc/passwd", None),
        ("delete", "/w", None),
        ("write", "/wx", None),
        ("read", "/", None),
        ("read", "/root/.ssh/id", None),
        ("write", "/w/../etc/passwd", None),
        ("read", "w/a", None),
        ("read", "/w//a", None),
        ("read", "", None),
    ],
)
def test_a_grant_covers_its_tree_and_writing_includes_reading_and_executing(
    access: str, place: str, rule: str | None
) -> None:
    assert says(policy(GRANTS), access, place) == (("deny", "paths-default") if rule is None else ("allow", rule))


@pytest.mark.parametrize(
    ("access", "place", "allowed"),
    [
        ("read", "/dev/null", True),
        ("write", "/dev/null", True),
        ("write", "/dev/pts/3", True),
        ("write", "/dev/tty", True),
        ("execute", "/dev/null", False),
        ("delete", "/dev/null", False),
        ("write", "/dev/sda", False),
        ("read", "/proc/self/status", True),
        ("write", "/proc/sys/kernel/x", False),
        ("write", "/home/session/.cache/x", True),
        ("delete", "/home/session/.cache", True),
        ("delete", "/home/session", False),
        ("execute", "/home/session/bin/x", True),
        ("write", "/tmp/session-1/x", True),
        ("write", "/tmp/session-2/x", False),
        ("read", "/home/other/x", False),
    ],
)
def test_what_every_session_needs_is_always_there(access: str, place: str, allowed: bool) -> None:
    expected = ("allow", "paths-always") if allowed else ("deny", "paths-default")
    assert says(policy("version: 1"), access, place) == expected


def test_an_unknown_home_grants_nothing() -> None:
    given = policy("version: 1")
    for home in ("", "/", "relative", "/a/../b"):
        assert decide(given, path("write", "/a/b/x", home=home, tmpdir="")).verdict is Verdict.DENY


@pytest.mark.parametrize("access", ["read", "write", "execute", "delete"])
@pytest.mark.parametrize(
    "place",
    ["/etc/parhelia", "/etc/parhelia/policies/x.yaml", "/run/parhelia/s/hook.sock", "/vol/parhelia/audit/s/a.jsonl"],
)
@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_the_agents_own_files_are_never_granted(access: str, place: str, mode: str) -> None:
    given = policy(f"paths: {{mode: {mode}, read: [/], write: [/vol, /run]}}")
    decision = decide(given, path(access, place))
    assert (decision.verdict, decision.rule, decision.enforced) == (Verdict.DENY, "agent-files", True)


def test_the_policys_own_directory_is_never_granted() -> None:
    given = replace(policy("paths: {write: [/srv]}"), agent_files=("/srv/policies",))
    assert says(given, "write", "/srv/policies/a.yaml") == ("deny", "agent-files")
    assert says(given, "write", "/srv/x") == ("allow", "paths.write[0]")


def test_the_public_part_of_a_run_directory_may_be_read_only() -> None:
    given = policy("paths: {read: [/run], write: []}")
    assert says(given, "read", "/run/parhelia/s-1/public/ca-bundle.pem") == ("allow", "paths.read[0]")
    assert says(given, "write", "/run/parhelia/s-1/public/ca-bundle.pem") == ("deny", "agent-files")
    assert says(given, "read", "/run/parhelia/s-1/private/x") == ("deny", "agent-files")
    assert says(given, "read", "/run/parhelia/public") == ("deny", "agent-files")


def test_the_hooks_registration_is_read_but_never_written() -> None:
    given = policy("paths: {write: [/etc]}")
    assert says(given, "read", "/etc/claude-code/managed-settings.json") == ("allow", "paths.write[0]")
    for place in ("claude-code/managed-settings.json", "codex/requirements.toml", "gemini-cli/settings.json", "cursor"):
        assert says(given, "write", f"/etc/{place}") == ("deny", "hook-settings")


PROTECTED = "paths: {write: [/w], protect: ['.git/hooks', .env, '**/.ssh/**', {id: own, path: /w/keep, reason: kept}]}"


@pytest.mark.parametrize(
    ("access", "place", "rule"),
    [
        ("write", "/w/p/.git/hooks/pre-commit", "paths.protect[0]"),
        ("write", "/w/p/.git/hooks", "paths.protect[0]"),
        ("delete", "/w/p/.git/hooks/x", "paths.protect[0]"),
        ("delete", "/w/p/.git", "paths.protect[0]"),
        ("write", "/w/.env", "paths.protect[1]"),
        ("write", "/w/.ssh", "paths.protect[2]"),
        ("write", "/w/.ssh/config", "paths.protect[2]"),
        ("write", "/home/session/.ssh/config", "paths.protect[2]"),
        ("write", "/w/keep/x", "own"),
        ("read", "/w/.env", None),
        ("execute", "/w/p/.git/hooks/pre-commit", None),
        ("write", "/w/p/.git/config", None),
        ("delete", "/w/p", None),
    ],
)
def test_a_protected_place_is_never_written_inside_granted_trees(access: str, place: str, rule: str | None) -> None:
    assert says(policy(PROTECTED), access, place) == (("allow", "paths.write[0]") if rule is None else ("deny", rule))


def test_a_protection_says_why() -> None:
    assert decide(policy(PROTECTED), path("write", "/w/keep/x")).reason == "kept"
    assert decide(policy(PROTECTED), path("write", "/w/.env")).reason == ".env is protected: never written"


@pytest.mark.parametrize(
    ("further", "access", "place", "verdict"),
    [
        ("version: 1", "write", "/w/x", "allow"),
        ("paths: {}", "write", "/w/x", "allow"),
        ("paths: {write: [/w/a]}", "write", "/w/a/x", "allow"),
        ("paths: {write: [/w/a]}", "write", "/w/x", "deny"),
        ("paths: {write: [/w/a]}", "read", "/w/x", "allow"),
        ("paths: {write: [/w/a]}", "read", "/usr/x", "allow"),
        ("paths: {write: []}", "write", "/w/x", "deny"),
        ("paths: {write: [/var]}", "write", "/var/x", "deny"),
        ("paths: {read: [/w, /usr]}", "write", "/w/x", "allow"),
        ("paths: {read: [/w, /usr]}", "read", "/etc/x", "deny"),
        ("paths: {read: [/usr]}", "write", "/w/x", "deny"),
        ("paths: {protect: [.env]}", "write", "/w/.env", "deny"),
        ("paths: {protect: [.env]}", "write", "/w/x", "allow"),
    ],
)
def test_a_further_layer_only_narrows(further: str, access: str, place: str, verdict: str) -> None:
    assert says(policy(GRANTS, further), access, place)[0] == verdict


def test_a_grant_that_is_a_symlink_here_covers_where_it_leads() -> None:
    given = replace(policy("paths: {read: [/bin]}"), links=(("/bin", "/usr/bin"),))
    assert says(given, "execute", "/usr/bin/sh") == ("allow", "paths.read[0]")
    assert says(given, "execute", "/usr/lib/x") == ("deny", "paths-default")


@pytest.mark.parametrize("text", ["version: 1", "paths:", "paths: {}", "paths: {write: [], read: []}"])
def test_an_empty_section_grants_nothing(text: str) -> None:
    decision = decide(policy(text), path("read", "/usr/bin/sh"))
    assert (decision.verdict, decision.rule, decision.where) == (Verdict.DENY, "paths-default", None)


def test_observe_only_records() -> None:
    decision = decide(policy("paths: {mode: observe}"), path("write", "/etc/x"))
    assert (decision.verdict, decision.enforced, decision.permitted) == (Verdict.DENY, False, True)


def test_a_denial_says_what_to_do_instead() -> None:
    assert decide(policy(GRANTS), path("write", "/var/x")).instead == "write under /w, /tmp, or below $HOME or $TMPDIR"
    assert "paths.read" in decide(policy(GRANTS), path("read", "/srv/x")).instead
    assert decide(policy("version: 1"), path("write", "/x")).instead == "write below $HOME or $TMPDIR"
