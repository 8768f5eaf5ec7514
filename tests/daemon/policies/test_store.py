"""Reading policies from disk: real directories, real files, real mistakes."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.policies import store as policy_store
from agent.daemon.policies.store import PolicyStore, policy_sources, read_policy
from agent.policy.decide import decide
from agent.policy.decision import Severity
from agent.policy.load import PolicyError
from agent.policy.lockdown import Lock
from agent.policy.model import CommandRule, HostRule, PathRule
from tests.daemon.policies.test_settled import held
from tests.policy.given import command, url

GOOD = "egress: {allow: [good.test]}\n"


def write(directory: Path, **files: str) -> Path:
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text)
    return directory


def refused(*directories: Path) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        read_policy(directories)
    return [str(problem) for problem in caught.value.problems]


def pipe(directory: Path) -> None:
    directory.mkdir()
    os.mkfifo(directory / "a.yaml")


# the embedded default


def test_the_default_policy_is_that_of_the_requirements() -> None:
    (layer,) = read_policy(()).layers
    assert layer.egress is not None and layer.commands is not None and layer.paths is not None
    assert {rule.pattern for rule in layer.egress.allow} == {
        "api.anthropic.com",
        "github.com",
        "*.githubusercontent.com",
        "pypi.org",
    }
    assert {rule.path for rule in layer.paths.write} == {
        "/vol/parhelia/workspaces",
        "/vol/parhelia/checkpoints",
        "/tmp",
    }
    assert {rule.path for rule in layer.paths.read} == {"/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/opt"}
    assert {rule.id for rule in layer.commands.deny} >= {"recursive-delete-system", "make-filesystem", "zero-fill"}
    assert layer.exceptions == () and read_policy(()).warnings == ()


def test_every_default_rule_has_its_words_and_its_examples() -> None:
    (layer,) = read_policy(()).layers
    assert layer.egress is not None and layer.commands is not None and layer.paths is not None
    rules: list[HostRule | CommandRule | PathRule] = [*layer.egress.allow, *layer.commands.deny]
    rules += [*layer.paths.write, *layer.paths.read]
    for rule in rules:
        assert "[" not in rule.id, "a default rule has an id of its own"
        assert rule.reason, rule.id
        assert rule.examples.match and rule.examples.no_match, rule.id
    assert all(rule.instead for rule in layer.egress.allow) and all(rule.instead for rule in layer.commands.deny)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("rm -rf /", "recursive-delete-system"),
        ('bash -c "sudo rm -r -f /*"', "recursive-delete-system"),
        ("rm --force --recursive -- /", "recursive-delete-system"),
        ("cd / && rm -rf *", "recursive-delete-system"),
        ("mkfs.ext4 /dev/sda", "make-filesystem"),
        ("env mkfs -t ext4 /dev/sda", "make-filesystem"),
        ("dd of=/dev/sda if=/dev/zero", "zero-fill"),
        ("git commit -m 'rm -rf /'", "commands-default"),
        ("rm -rf node_modules", "commands-default"),
        ("rm -rf /tmp/build", "commands-default"),
        ("dd if=a of=b", "commands-default"),
    ],
)
def test_the_default_commands_hold_by_meaning(text: str, rule: str) -> None:
    decision = decide(read_policy(()), command(text))
    assert decision.rule == rule
    if rule == "recursive-delete-system":
        assert decision.severity is Severity.CRITICAL
        assert decision.where is not None and decision.where.startswith("policies/packs/core.yaml:")


def test_a_default_denial_points_to_the_bundles() -> None:
    instead = decide(read_policy(()), url("https://claude.ai/")).instead
    assert instead == "ask for the bundle that has this host: `use: [claude-code]` in the policy"
    assert "apt, claude-code, github, npm, pip" in decide(read_policy(()), url("https://x.test/")).instead


def test_a_policy_travels_as_a_pickle() -> None:
    policy = read_policy(())
    assert pickle.loads(pickle.dumps(policy)) == policy


# directories


def test_a_directory_replaces_the_default_and_further_ones_narrow(tmp_path: Path) -> None:
    one = write(tmp_path / "one", a=GOOD, b="egress: {allow: [other.test]}")
    two = write(tmp_path / "two", a="egress: {deny: [other.test]}")
    policy = read_policy([one, two])
    assert decide(policy, url("https://good.test/")).rule == "egress.allow[0]"
    assert decide(policy, url("https://other.test/")).where == f"{two}/a.yaml:1"
    assert decide(policy, url("https://pypi.org/")).rule == "egress-default"
    assert policy_sources(policy) == (one, two)
    assert policy_sources(read_policy(())) == ()


def test_the_policys_directory_is_the_agents_own(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(write(tmp_path / "real", a=GOOD))
    assert read_policy([link]).agent_files == (str(tmp_path / "real"),)


def test_grants_that_are_symlinks_are_known_with_where_they_lead(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    directory = write(tmp_path / "p", a=f"paths: {{read: [{tmp_path}/link, {tmp_path}/missing]}}")
    assert read_policy([directory]).links == ((f"{tmp_path}/link", f"{tmp_path}/real"),)


def test_other_files_and_hidden_ones_are_not_read(tmp_path: Path) -> None:
    directory = write(tmp_path / "p", a=GOOD)
    (directory / "README.md").write_text("not a policy: [")
    (directory / ".b.yaml").write_text("not: a policy")
    (directory / "bundles").mkdir()
    assert len(read_policy([directory]).layers) == 1


def test_a_bundle_is_used_by_its_name(tmp_path: Path) -> None:
    policy = read_policy([write(tmp_path / "p", a="use: [github, claude-code]")])
    assert decide(policy, url("https://github.com/x")).rule == "github/web"
    assert decide(policy, url("https://claude.ai/x")).where == "policies/bundles/claude-code.yaml:15"
    assert decide(policy, url("https://gist.github.com/x")).rule == "egress-default"


def test_pip_takes_its_index_from_the_agents_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:secret@index.corp.test:8443/simple")
    policy = read_policy([write(tmp_path / "p", a="use: [pip]")])
    assert decide(policy, url("https://index.corp.test:8443/simple/")).rule == "pip[0]"
    assert "user:secret" not in repr(policy)


def test_an_empty_directory_allows_nothing_as_the_first_layer_and_is_a_problem_as_a_further_one(tmp_path: Path) -> None:
    empty, good = tmp_path / "empty", write(tmp_path / "good", a=GOOD)
    empty.mkdir()
    policy = read_policy([empty])
    assert decide(policy, url("https://pypi.org/simple/")).rule == "egress-default"
    assert policy.warnings == (f"{empty}: no *.yaml file here: the policy allows nothing",)
    with pytest.raises(PolicyError) as refusal:
        read_policy([good, empty])
    assert "no *.yaml file here; check the path" in str(refusal.value)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda p: None, "p:1:1: the policy directory cannot be read: No such file or directory; check the path"),
        (lambda p: p.write_text("x"), "p:1:1: the policy directory cannot be read: Not a directory"),
        (lambda p: (p.mkdir(), (p / "a.yml").write_text(GOOD)), "p/a.yml:1:1: only *.yaml files are read; rename it"),
        (lambda p: (p.mkdir(), (p / "a.yaml").mkdir()), "p/a.yaml:1:1: "),
        (pipe, "p/a.yaml:1:1: not a regular file"),
        (lambda p: (p.mkdir(), (p / "a.yaml").symlink_to("gone")), "p/a.yaml:1:1: cannot be read: No such file"),
        (
            lambda p: (p.mkdir(), (p / "a.yaml").write_bytes(b"version: 1\n# \xff")),
            "p/a.yaml:2:3: a byte that is not UTF-8",
        ),
        (
            lambda p: (p.mkdir(), (p / "a.yaml").write_bytes(b"#" * (2 << 20))),
            "p/a.yaml:1:1: longer than 1048576 bytes",
        ),
        (
            lambda p: write(p, a="use: [nosuch]"),
            "there is no bundle 'nosuch'; the bundles are: apt, claude-code, github",
        ),
    ],
)
def test_what_cannot_be_read_is_a_problem_with_its_place(tmp_path: Path, make: object, expected: str) -> None:
    make(tmp_path / "p")  # type: ignore[operator]
    found = refused(tmp_path / "p")
    assert any(expected in problem for problem in found), found


def test_an_unreadable_file_does_not_hide_the_other_problems(tmp_path: Path) -> None:
    directory = write(tmp_path / "p", a="egres: {}")
    (directory / "b.yaml").symlink_to("gone")
    found = refused(directory)
    assert len(found) == 2
    assert "a.yaml:1:1: unknown key 'egres'" in found[0]


# reload


def test_a_reload_swaps_the_whole_policy(tmp_path: Path) -> None:
    store = PolicyStore([write(tmp_path / "p", a=GOOD)])
    before = store.current
    write(tmp_path / "p", a="egress: {allow: [new.test]}")
    outcome = store.reload()
    assert (outcome.changed, outcome.problems) == (True, ())
    assert outcome.policy is store.current and store.current.digest != before.digest
    assert decide(store.current, url("https://good.test/")).rule == "egress-default"


def test_a_reload_that_fails_keeps_the_last_good_policy_and_says_why(tmp_path: Path) -> None:
    store = PolicyStore([write(tmp_path / "p", a=GOOD)])
    before = store.current
    write(tmp_path / "p", a="egress: {allow: [good.test, '*']}")
    outcome = store.reload()
    assert store.current is before and outcome.policy is before
    assert not outcome.changed
    assert "would match every host" in outcome.problems[0].message


def test_a_reload_without_a_change_says_so(tmp_path: Path) -> None:
    store = PolicyStore([write(tmp_path / "p", a=GOOD)])
    write(tmp_path / "p", a="# commented\n" + GOOD)
    assert not store.reload().changed


def test_what_is_the_agents_own_stays_so_after_a_reload(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "link").symlink_to("log")
    directory = write(tmp_path / "p", a=GOOD)
    store = PolicyStore([directory], own=[str(tmp_path / "link")])
    write(directory, a="egress: {allow: [new.test]}")
    assert store.reload().changed
    assert store.current.agent_files == (str(directory), str(tmp_path / "log"))


def test_a_store_does_not_start_on_a_broken_policy(tmp_path: Path) -> None:
    with pytest.raises(PolicyError):
        PolicyStore([write(tmp_path / "p", a="[")])


# lockdown


def test_a_lockdown_outlasts_reloads_and_ends_when_it_is_lifted(tmp_path: Path) -> None:
    directory = write(tmp_path / "p", a=GOOD)
    store = PolicyStore([directory])
    store.lock(Lock.EGRESS)
    assert decide(store.current, url("https://good.test/")).rule == "lockdown"
    write(directory, a="egress: {allow: [good.test, other.test]}\n")
    reloaded = store.reload()
    assert reloaded.changed and reloaded.policy is store.current
    assert decide(store.current, url("https://other.test/")).rule == "lockdown"
    assert store.lock(Lock.NONE) is store.current
    assert decide(store.current, url("https://other.test/")).permitted


def test_the_examples_of_shipped_packs_are_checked_by_lint_and_not_by_each_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "commands: {deny: [{id: mine, match: {program: rm}, examples: {match: [ls], no_match: [pwd]}}]}"
    pack = (
        "version: 1\nabout: a pack whose example is wrong\n"
        "deny: [{id: theirs, match: {program: dd}, severity: high, tags: [t], reason: r, instead: i,"
        " examples: {match: [cat], no_match: [pwd]}}]"
    )
    embedded = write(tmp_path / "embedded", a=GOOD)
    write(embedded / "packs", core=pack)
    write(embedded / "bundles", none="")
    monkeypatch.setattr("agent.daemon.policies.store.embedded_policy_dir", lambda: embedded)
    uses_pack = write(tmp_path / "p", a="packs: [core]\n")
    assert "theirs does not match its example 'cat'" in refused(uses_pack)[0]
    assert [rule.id for rule in PolicyStore([uses_pack]).current.layers[0].commands.deny] == ["theirs"]  # type: ignore[union-attr]
    with pytest.raises(PolicyError, match="mine does not match its example 'ls'"):
        PolicyStore([write(tmp_path / "q", a=own)])


def test_files_that_change_while_they_are_read_make_no_policy_of_old_and_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer comes between the reading of the first file and that of the second one, once."""
    old, new = "version: 1\negress: {allow: [old.test]}\n", "version: 1\negress: {allow: [new.test]}\n"
    directory = write(tmp_path / "p", a=old, b=old.replace("old", "other-old"))
    store = PolicyStore([directory])
    before = store.current
    read, times = policy_store._read, []

    def interrupted(file: Path, *rest: Any) -> str | None:
        text = read(file, *rest)
        if not times:
            times.append(file)
            write(directory, a=new, b=new.replace("new", "other-new"))
        return text

    write(directory, a=old + "# touched\n")
    monkeypatch.setattr(policy_store, "_read", interrupted)
    first = store.reload()
    assert (first.changed, first.faults, store.current) == (False, (), before)
    assert "changed while they were read" in first.unsettled
    assert store.reload().changed
    assert store.current.digest == PolicyStore([directory]).current.digest
    for host, permitted in (
        ("new.test", True),
        ("other-new.test", True),
        ("old.test", False),
        ("other-old.test", False),
    ):
        assert decide(store.current, url(f"https://{host}/")).permitted is permitted


def test_a_start_over_files_that_a_program_goes_on_writing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_store, "FIRST_SECONDS", 0.001)
    directory = write(tmp_path / "p", a=GOOD)
    with held(directory / "a.yaml", os.O_WRONLY), pytest.raises(PolicyError) as caught:
        PolicyStore([directory])
    assert "is open for writing" in str(caught.value)
    assert PolicyStore([directory]).current.layers
