"""Policy files: what is accepted, and what is refused where and with which fix."""

from __future__ import annotations

from datetime import date
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.policy.decision import Severity
from agent.policy.load import LayerSource, PolicyError, load_policy
from agent.policy.model import CommandMatch, Durability, Mode, OnFailure, Unverifiable
from agent.policy.model_session import ProcessLimits
from agent.policy.request import Protocol
from tests.policy.given import command, layer, policy, problems
from tests.policy.test_load_bundles import BUNDLE

CONTRACT = """\
version: 1
egress:
  mode: enforce
  allow:
    - api.anthropic.com
    - "*.githubusercontent.com"
    - host: pypi.org
      ports: [443]
      methods: [GET, HEAD]
      paths: ["/simple/**"]
    - host: registry.corp.example
      addresses: [10.20.0.0/16]
  deny:
    - host: gist.github.com
      reason: pastes are a way out
commands:
  mode: enforce
  unverifiable: supervise
  deny:
    - mkfs
    - "dd if=/dev/zero"
    - id: recursive-delete-system
      match: {program: rm, options: [recursive], operands: ["/", "/*", "/etc/**"]}
      severity: critical
      reason: deletes the system
      instead: delete inside the workspace
      examples: {match: ["rm -rf /", "sudo rm --recursive --force /etc"], no_match: ["rm -rf ./build"]}
paths:
  mode: enforce
  write: [/vol/parhelia/workspaces, /vol/parhelia/checkpoints, /tmp]
  read: [/usr, /bin, /sbin, /lib, /lib64, /etc, /opt]
  protect: [".git/hooks", ".env"]
exceptions:
  - {rule: recursive-delete-system, match: {program: rm, operands: [/opt/scratch]}, owner: platform-team,
     reason: build cache, expires: 2027-01-31}
"""


def test_the_policy_of_the_contract_is_read_as_written() -> None:
    (loaded,) = policy(CONTRACT).layers
    assert loaded.egress is not None and loaded.commands is not None and loaded.paths is not None
    assert [(rule.id, rule.pattern) for rule in loaded.egress.allow] == [
        ("egress.allow[0]", "api.anthropic.com"),
        ("egress.allow[1]", "*.githubusercontent.com"),
        ("egress.allow[2]", "pypi.org"),
        ("egress.allow[3]", "registry.corp.example"),
    ]
    assert (loaded.egress.allow[0].ports, loaded.egress.allow[0].protocol) == ((443,), Protocol.TLS)
    assert loaded.egress.allow[2].methods == ("GET", "HEAD")
    assert loaded.egress.allow[3].addresses == (ip_network("10.20.0.0/16"),)
    assert (loaded.egress.deny[0].ports, loaded.egress.deny[0].protocol) == (None, None)
    assert [rule.id for rule in loaded.commands.deny] == [
        "commands.deny[0]",
        "commands.deny[1]",
        "recursive-delete-system",
    ]
    assert loaded.commands.deny[0].match == CommandMatch(("mkfs",))
    assert loaded.commands.deny[1].match == CommandMatch(("dd",), operands=("if=/dev/zero",))
    assert loaded.commands.deny[2].severity is Severity.CRITICAL
    assert [rule.path for rule in loaded.paths.protect] == [".git/hooks", ".env"]
    (exception,) = loaded.exceptions
    assert (exception.rule, exception.expires) == ("recursive-delete-system", date(2027, 1, 31))
    assert str(loaded.commands.deny[2].where) == "l0/a.yaml:22"


def test_every_setting_has_its_place() -> None:
    text = """\
        egress: {mode: observe}
        commands: {mode: observe, unverifiable: deny}
        paths: {mode: observe}
        audit: {on_failure: continue, durable: strict}
        session: {env: [LANG_OF_WORK, CI], limits: {pids: 300, memory: 2GiB}}
    """
    (loaded,) = policy(text).layers
    assert loaded.egress is not None and loaded.commands is not None and loaded.paths is not None
    assert loaded.egress.mode is loaded.commands.mode is loaded.paths.mode is Mode.OBSERVE
    assert loaded.commands.unverifiable is Unverifiable.DENY
    assert loaded.audit is not None
    assert (loaded.audit.on_failure, loaded.audit.durable) == (OnFailure.CONTINUE, Durability.STRICT)
    assert loaded.session_env == ("LANG_OF_WORK", "CI")
    assert loaded.process_limits == ProcessLimits(300, 2 << 30)


def test_of_the_sessions_limits_the_least_of_all_layers_holds() -> None:
    loaded = policy("session: {limits: {pids: 300}}", "session: {limits: {pids: 4000, memory: 64MiB}}", "egress: {}")
    assert loaded.process_limits == ProcessLimits(300, 64 << 20)
    assert policy("egress: {}").process_limits == ProcessLimits()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # what YAML itself allows and a policy does not
        ("egress: &x {mode: enforce}", "p/a.yaml:1:9: the anchor &x; write the value out"),
        ("egress: *x", 'p/a.yaml:1:9: the alias *x; write the value out, or put "*x" in quotes'),
        ("egress: !!map {}", "p/a.yaml:1:9: the tag tag:yaml.org,2002:map; remove it"),
        ("version: !!python/object/apply:os.system [id]", "p/a.yaml:1:10: the tag "),
        ("version: 1\n---\nversion: 1", "p/a.yaml:2:1: a second document in one file; move it"),
        ("%YAML 1.1\n---\nversion: 1", "p/a.yaml:1:1: a YAML directive; remove the line"),
        ("egress: {<<: {mode: enforce}}", "p/a.yaml:1:10: unknown key '<<' in the section egress; merge keys are not"),
        ("egress:\n  allow:\n    - *.example.com", "put a value that starts with '*' in quotes"),
        ("egress:\n\tallow: []", "p/a.yaml:2:1: not valid YAML: "),
        ("version: 1\negress: [", "not valid YAML: while parsing a flow node"),
        ("version: 1\nuse: ['a\n\n", " (begun in line 2); check quotes, brackets and indentation here"),
        ("a: \x07", "not valid YAML: "),
        ("[" * 40, "p/a.yaml:1:17: nested more than 16 levels deep"),
        ("- a", "p/a.yaml:1:1: a list where a policy file is meant; write a mapping with the keys version"),
        ("just text", "p/a.yaml:1:1: the text 'just text' where a policy file is meant"),
        # keys
        ("egres: {}", "p/a.yaml:1:1: unknown key 'egres' in a policy file; did you mean 'egress'?"),
        ("version: 1\nversion: 1", "p/a.yaml:2:1: the key 'version' is given twice (first in line 1); merge the two"),
        (
            "egress: {zzz: 1}",
            "p/a.yaml:1:10: unknown key 'zzz' in the section egress; the keys here are mode, limits, trust, allow",
        ),
        ("1: 2", "p/a.yaml:1:1: unknown key '1' in a policy file"),
        ("{}: 2", "p/a.yaml:1:1: a mapping as a key; keys are texts"),
        ('"egress": {}\negress: {}', "p/a.yaml:2:1: the key 'egress' is given twice"),
        # types
        ("version: 2", "p/a.yaml:1:10: 2 is out of range; write 1, without quotes"),
        ("version: '1'", "p/a.yaml:1:10: 1 where a number is meant"),
        ("version: 1.0", "p/a.yaml:1:10: 1.0 where a number is meant"),
        ("egress: {mode: no}", "p/a.yaml:1:16: 'no' is read as a boolean where a mode is meant; write one of: enforce"),
        ("egress: {mode: enforced}", "'enforced' where a mode is meant; did you mean enforce?"),
        ("egress: {mode: }", "p/a.yaml:1:16: no value where a mode is meant"),
        ("egress: {allow: [no]}", "p/a.yaml:1:18: 'no' is read as a boolean where a host is meant; put it in quotes"),
        ("egress: {allow: [1.5]}", "'1.5' is read as a number where a host is meant"),
        ("egress: {allow: [2026-01-01]}", "'2026-01-01' is read as a date where a host is meant"),
        ("egress: {allow: x.test}", "p/a.yaml:1:17: the text 'x.test' where a list is meant; write a list"),
        ("egress: {allow: }", "no value where a list is meant; write a list: [a, b], or [] for none"),
        ("egress: {allow: [[x.test]]}", "a list where a host rule is meant"),
        ("egress: {allow: [{host: x.test, ports: [010]}]}", "p/a.yaml:1:41: 010 where a number is meant"),
        ("egress: {allow: [{host: x.test, ports: [0x1bb]}]}", "0x1bb where a number is meant"),
        ("egress: {allow: [{host: x.test, ports: [7:23]}]}", "7:23 where a number is meant"),
        ("egress: {allow: [{host: x.test, ports: ['443']}]}", "443 where a number is meant"),
        ("packs: [git]", "there is no pack 'git'; the packs are: none are installed"),
        ("egress: {allow: [{host: x.test, ports: [65536]}]}", "65536 is out of range"),
        ("egress: {allow: [{host: x.test, ports: [0]}]}", "0 is out of range"),
        ("egress: {allow: [{ports: [443]}]}", "p/a.yaml:1:18: a host rule without 'host'; add 'host:'"),
        ('egress: {allow: [{host: x.test, reason: "a\\u202eb"}]}', "the invisible character \\u202e; remove it"),
        ('egress: {allow: [{host: x.test, reason: "a\\eb"}]}', "the invisible character \\x1b"),
        ("session: {env: ['A-B']}", "'A-B' where a variable's name is meant"),
        ("use: [PIP]", "'PIP' where a bundle's name is meant"),
        ("use: [nosuch]", "p/a.yaml:1:7: there is no bundle 'nosuch'; the bundles are: none are installed"),
        # ids
        ("egress: {allow: [{id: 'a b', host: x.test}]}", "'a b' where a rule id"),
        ("egress: {allow: [{id: egress-default, host: x.test}]}", "the id 'egress-default' is the agent's own"),
        ("egress: {allow: [{id: self-protection-x, host: x.test}]}", "the id 'self-protection-x' is the agent's own"),
        (
            "egress: {allow: [{id: x, host: x.test}], deny: [{id: x, host: y.test}]}",
            "p/a.yaml:1:54: the id 'x' is given twice (first in p/a.yaml:1); choose another id",
        ),
        # exceptions
        (
            "exceptions: [{rule: x, owner: o, reason: r, expires: 2027-01-31}]",
            "p/a.yaml:1:21: no deny rule of this layer has the id 'x'; name a rule of egress.deny or commands.deny",
        ),
        (
            "exceptions: [{rule: self-protection-keeper, owner: o, reason: r, expires: 2027-01-31}]",
            "what the agent itself refuses has no exceptions",
        ),
        ("exceptions: [{rule: x, reason: r, expires: 2027-01-31}]", "an exception without 'owner'; add 'owner:'"),
        ("exceptions: [{rule: x, owner: o, reason: r}]", "an exception without 'expires'"),
        (
            "exceptions: [{rule: x, owner: o, reason: r, expires: 2027-02-30}]",
            "2027-02-30 where a day is meant; write it as YYYY-MM-DD",
        ),
        ("exceptions: [{rule: x, owner: o, reason: r, expires: soon}]", "soon where a day is meant"),
        (
            "commands: {deny: [{id: x, match: {program: rm}, examples: {match: [rm a], no_match: [ls]}}]}\n"
            "exceptions: [{rule: x, host: x.test, owner: o, reason: r, expires: 2027-01-31}]",
            "p/a.yaml:2:30: 'x' is a command rule; say what passes with `match:`",
        ),
        (
            "commands: {deny: [{id: x, match: {program: rm}, examples: {match: [rm a], no_match: [ls]}}]}\n"
            "exceptions: [{rule: x, match: {program: dd}, owner: o, reason: r, expires: 2027-01-31}]",
            "'x' is not about dd: it can never apply; name a program of the rule",
        ),
        (
            "egress: {deny: [{id: x, host: x.test}]}\n"
            "exceptions: [{rule: x, match: {program: rm}, owner: o, reason: r, expires: 2027-01-31}]",
            "p/a.yaml:2:31: 'x' is a host rule; say what passes with `host:`",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place_and_its_fix(text: str, expected: str) -> None:
    found = problems(text)
    assert any(expected in problem for problem in found), found


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "egress:\ncommands:\npaths:\n", "version: 1"])
def test_nothing_is_a_valid_policy_that_allows_nothing(text: str) -> None:
    (loaded,) = policy(text).layers
    assert loaded.egress is None or loaded.egress.allow == ()
    assert loaded.paths is None or (loaded.paths.write, loaded.paths.read) == ((), ())


def test_the_files_of_a_directory_add_up_in_the_order_of_their_names() -> None:
    one = "egress: {allow: [a.test, {id: named, host: b.test}]}"
    two = "egress: {allow: [c.test]}"
    loaded = policy(layer(one, two)).layers[0]
    swapped = load_policy([LayerSource("layer", tuple(reversed(layer(one, two).files)))]).layers[0]
    assert loaded == swapped
    assert loaded.egress is not None
    assert [rule.id for rule in loaded.egress.allow] == ["egress.allow[0]", "named", "egress.allow[2]"]


def test_two_files_may_repeat_a_setting_but_not_contradict_each_other() -> None:
    assert problems("egress: {mode: observe}", "egress: {mode: observe}") == []
    (problem,) = problems("egress: {mode: observe}", "egress: {mode: enforce}")
    assert problem == (
        "p/b.yaml:1:16: 'mode: enforce' contradicts p/a.yaml:1 (observe); give it once for the directory"
    )


def test_an_exception_for_a_place_is_taken_with_a_warning() -> None:
    text = (
        "commands: {deny: [mkfs]}\nexceptions: [{rule: 'commands.deny[0]', owner: o, reason: r, expires: 2027-01-31}]"
    )
    loaded = policy(text)
    assert any("is a place and moves with its file" in warning for warning in loaded.warnings)
    assert any("cancels the whole rule commands.deny[0] until 2027-01-31" in warning for warning in loaded.warnings)


POLICIES = Path(__file__).parents[2] / "policies"
FRAGMENTS = st.sampled_from(
    [
        *CONTRACT.splitlines(keepends=True),
        "egress:\n",
        "  allow:\n",
        "    - ",
        "x.test\n",
        "'*.x.test'\n",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "!!str ",
        "? ",
        ": ",
        "- ",
        "\t",
        "\n",
        "'",
        '"',
        "|\n",
        ">-\n",
        "---\n",
        "...\n",
        "%TAG ! x\n",
        "<<: ",
        "\\U00110000",
        '"\\x',
        "\ud800",
        "\ufeff",
        "\x85",
        "0o17",
        "1_000",
        "~\n",
        "=\n",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=80), st.lists(FRAGMENTS, max_size=12).map("".join)))
def test_any_text_is_a_policy_or_a_policy_error(text: str) -> None:
    try:
        load_policy([LayerSource("x", (("x.yaml", text),))], {"good": BUNDLE, "good2": text}, read_command=command)
    except PolicyError as error:
        assert error.problems
        assert all(problem.where.line >= 1 and problem.where.column >= 1 for problem in error.problems)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_damage_to_a_shipped_file_is_a_policy_or_a_policy_error(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([file.read_text() for file in sorted(POLICIES.glob("*.yaml"))]))
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 20))
    damaged = text[:at] + data.draw(st.text(max_size=4)) + text[at + cut :]
    try:
        load_policy([LayerSource("x", (("x.yaml", damaged),))], {}, read_command=command)
    except PolicyError as error:
        assert error.problems
