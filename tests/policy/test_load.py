"""Policy files: what is accepted, and what is refused where and with which fix."""

from __future__ import annotations

from datetime import date
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.policy.bundles import BundleFault, ToolHost
from agent.policy.decision import Severity
from agent.policy.load import LayerSource, PolicyError, load_policy, offer
from agent.policy.model import CommandMatch, Durability, Mode, OnFailure, Unverifiable
from agent.policy.model_session import ProcessLimits
from agent.policy.request import Protocol
from tests.policy.given import command, layer, policy, problems

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


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("'*'", "would match every host; name the hosts"),
        ("'*.*'", "would match every host"),
        ("'ex*a.com'", "a wildcard is one leading '*.' and nothing else"),
        ("'a b.test'", "neither white space nor '#'"),
        ("'https://x.test/'", "is a URL; write the host alone"),
        ("'x.test:443'", "a port does not belong in a host; write 'host: x.test' and 'ports: [443]'"),
        ("'0x7f.1'", "is another spelling of an address; write 127.0.0.1"),
        (
            "127.0.0.1",
            "127.0.0.1 can never be reached: it is no public address (loopback); grant it: `addresses: [127.0",
        ),
        (
            "{host: '169.254.169.254', addresses: [10.0.0.0/8]}",
            "can never be reached: it is no public address (metadata)",
        ),
        ("{host: x.test, methods: []}", "an empty list; name at least one method"),
        ("{host: x.test, ports: []}", "an empty list; name at least one port"),
        ("{host: x.test, paths: []}", "an empty list; name at least one path"),
        ("{host: x.test, methods: [get]}", "'get' where an HTTP method in capitals, such as GET is meant"),
        ("{host: x.test, methods: [CONNECT]}", "CONNECT can never be a method inside a connection"),
        ("{host: x.test, paths: [simple]}", "can never match: it does not start with '/'; write '/simple'"),
        ("{host: x.test, paths: ['/a?b']}", "can never match: it holds a query"),
        ("{host: x.test, paths: ['/a%20b']}", "can never match: paths are matched decoded"),
        ("{host: x.test, paths: ['/a/../b']}", "can never match: paths with '.' or '..' are refused"),
        ("{host: x.test, paths: ['/a//b']}", "can never match: it has an empty segment"),
        ("{host: x.test, paths: ['/a/']}", "can never match: it has an empty segment"),
        ("{host: x.test, paths: ['/a**']}", "can never match: '**' stands for whole segments"),
        ("{host: x.test, paths: ['/a;b']}", "can never match: paths with a backslash or ';' are refused"),
        ("{host: x.test, protocol: tcp}", "protocol tcp without ports"),
        (
            "{host: x.test, protocol: tcp, ports: [22], methods: [GET]}",
            "methods with protocol tcp: nothing is known of what is inside",
        ),
        ("{host: x.test, protocol: udp}", "'udp' where a protocol is meant; write one of: tls, http, tcp"),
        ("{host: x.test, ports: [443, 443]}", "a port is named twice"),
        ("{host: x.test, addresses: [10.20.0.1/16]}", "is no address range; write 10.20.0.0/16"),
        ("{host: x.test, addresses: [nonsense]}", "is no address range; write a range such as"),
        ("{host: x.test, addresses: [8.8.8.0/24]}", "8.8.8.0/24 is public"),
        ("{host: x.test, addresses: [0.0.0.0/0]}", "takes in public and special addresses alike"),
    ],
)
def test_a_host_rule_that_can_never_match_is_an_error(rule: str, expected: str) -> None:
    found = problems(f"egress: {{allow: [{rule}]}}")
    assert any(expected in problem for problem in found), found


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("'/usr/bin/rm'", "does not start with a program's name; write a program"),
        ("'rm -rf / | cat'", "is shell syntax"),
        ("'cp /a /b'", "names 2 operands"),
        ("{match: {program: /bin/rm}}", "'/bin/rm' where a program's name without directory is meant"),
        ("{match: {program: []}}", "an empty list; name the program"),
        ("{match: {without: [r]}}", "a match that looks at nothing fits every command"),
        ("{match: {program: rm, operands: [<disk>]}}", "there is no such class of paths; the classes are: <system>, "),
        ("{match: {redirects: ['> <disk>']}}", "there is no such class of paths"),
        ("{match: {redirects: ['>> x']}}", "where '> GLOB' or '< GLOB' is meant"),
        ("{match: {program: <shells>}}", "there is no such group of programs; the groups are: <shell>, <interpreter>"),
        ("{match: {words: [<password>]}}", "there is no such kind of word; the only kind is <secret>"),
        ("{match: {program: rm, options: [--force]}}", "'--force' where an option without dashes is meant"),
        ("{match: {program: rm, operands: [/etc/]}}", "the entry '/etc/' can never match: operands are compared"),
        ("{match: {program: rm, operands: [/a/../b]}}", "can never match"),
        ("{match: {program: rm, operands: ['~root/x']}}", "'~user' is not expanded"),
        ("{id: x}", "a command rule without 'match'"),
    ],
)
def test_a_command_rule_that_can_never_match_is_an_error(rule: str, expected: str) -> None:
    found = problems(f"commands: {{deny: [{rule}]}}")
    assert any(expected in problem for problem in found), found


@pytest.mark.parametrize(
    ("key", "rule", "expected"),
    [
        ("write", "tmp", "'tmp' is not absolute; write '/tmp'"),
        ("write", "'~/x'", "a grant is an absolute path; the session's own HOME and TMPDIR are always granted"),
        ("write", "/tmp/", "can never match: it is not normalised"),
        ("write", "/a/../b", "can never match: it is not normalised"),
        ("read", "'/opt/*'", "a grant is a tree, not a glob; no mechanism could enforce it; name the directory"),
        ("read", "/proc/self", "would be bound to one process; remove it: /proc is always granted"),
        ("read", "/etc/parhelia", "is the agent's own and never granted"),
        ("read", "/vol/parhelia/audit/x", "is the agent's own and never granted"),
        ("write", "/etc/claude-code", "is never writable"),
        ("write", "/proc/sys", "is never writable"),
        ("protect", "'~other/.ssh'", "'~' stands for the session's own home only"),
        ("watch", "'~'", "'~' stands for the session's own home only"),
        ("watch", "'~/*'", "would be every file"),
        ("protect", "a/../b", "can never match"),
        ("protect", ".git/", "can never match"),
        ("protect", "a**", "'**' stands for whole segments"),
        ("protect", "'**'", "would be every file"),
        ("protect", "'.env?'", "only '*' and '**' are wildcards here"),
    ],
)
def test_a_path_rule_that_no_mechanism_could_enforce_is_an_error(key: str, rule: str, expected: str) -> None:
    found = problems(f"paths: {{{key}: [{rule}]}}")
    assert any(expected in problem for problem in found), found


@pytest.mark.parametrize(
    ("allow", "deny", "by"),
    [
        ("[x.test, x.test]", "[]", "already allowed by egress.allow[0]"),
        ("['*.x.test', a.x.test]", "[]", "already allowed by egress.allow[0]"),
        ("[a.x.test, '*.x.test']", "[]", "the allow of 'a.x.test' never matters"),
        ("['*.x.test', '*.a.x.test']", "[]", "the allow of '*.a.x.test' never matters"),
        ("[x.test, {host: x.test, methods: [GET]}]", "[]", "already allowed by egress.allow[0]"),
        ("[{host: x.test, paths: ['/a/**']}, {host: x.test, paths: ['/a/b']}]", "[]", "by egress.allow[0]"),
        ("[x.test, {host: x.test, addresses: [10.0.0.0/8]}]", "[]", "already allowed by egress.allow[1]"),
        ("[a.x.test]", "['*.x.test']", "is closed by the deny egress.deny[0]"),
        ("[{host: x.test, ports: [8443]}]", "[x.test]", "is closed by the deny egress.deny[0]"),
        ("[{host: x.test, methods: [GET]}]", "[{host: x.test, methods: [GET, POST]}]", "is closed by the deny"),
    ],
)
def test_a_fully_shadowed_allow_is_an_error(allow: str, deny: str, by: str) -> None:
    found = problems(f"egress: {{allow: {allow}, deny: {deny}}}")
    assert len(found) == 1
    assert by in found[0]


@pytest.mark.parametrize(
    ("allow", "deny"),
    [
        ("['*.x.test', x.test]", "[]"),
        ("[x.test, {host: x.test, ports: [8443]}]", "[]"),
        ("[x.test, {host: x.test, protocol: http}]", "[]"),
        ("[{host: x.test, methods: [GET]}, {host: x.test, methods: [POST]}]", "[]"),
        ("['*.x.test']", "[a.x.test]"),
        ("[x.test]", "[{host: x.test, paths: ['/admin/**']}]"),
        ("[x.test]", "[{host: x.test, ports: [8443]}]"),
    ],
)
def test_an_allow_that_still_matters_is_no_error(allow: str, deny: str) -> None:
    assert problems(f"egress: {{allow: {allow}, deny: {deny}}}") == []


@pytest.mark.parametrize(
    ("section", "covered"),
    [
        ("{write: [/tmp, /tmp/x]}", "/tmp/x"),
        ("{write: [/tmp/x, /tmp]}", "/tmp/x"),
        ("{write: [/tmp], read: [/tmp/x]}", "/tmp/x"),
        ("{read: [/usr, /usr]}", "/usr"),
    ],
)
def test_a_grant_inside_another_is_an_error(section: str, covered: str) -> None:
    (problem,) = problems(f"paths: {section}")
    assert f"'{covered}' is already granted by" in problem


def test_a_write_grant_inside_a_read_grant_is_no_error() -> None:
    assert problems("paths: {write: [/opt/cache], read: [/opt]}") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "commands: {deny: [{id: x, match: {program: rm}, examples: {match: [ls], no_match: [pwd]}}]}",
            "p/a.yaml:1:19: x does not match its example 'ls' under match",
        ),
        (
            "commands: {deny: [{id: x, match: {program: rm}, examples: {match: [rm b], no_match: ['sudo rm a']}}]}",
            "x matches its example 'sudo rm a' under no_match",
        ),
        (
            "commands: {deny: [{id: x, match: {program: rm, operands: [/etc]},\n"
            "  examples: {match: [rm /etc], no_match: ['rm \"$X\"']}}]}",
            "x may match its example",
        ),
        (
            "egress: {allow: [{host: x.test, examples: {match: ['http://x.test/']}}]}",
            "egress.allow[0] does not match its example 'http://x.test/' under match",
        ),
        (
            "egress: {allow: [{host: x.test, examples: {no_match: [x.test]}}]}",
            "egress.allow[0] matches its example 'x.test' under no_match",
        ),
        (
            "egress: {deny: [{host: x.test, methods: [POST], examples: {match: ['https://x.test/']}}]}",
            "egress.deny[0] does not match its example",
        ),
        ("egress: {allow: [{host: x.test, examples: {match: ['ftp://x.test/']}}]}", "cannot be read: unknown scheme"),
        ("paths: {write: [{path: /tmp, examples: {match: [/var]}}]}", "does not match its example '/var'"),
        ("paths: {protect: [{path: .env, examples: {no_match: [/w/.env]}}]}", "matches its example '/w/.env'"),
        ("paths: {write: [{path: /tmp, examples: {match: [tmp/x]}}]}", "the example 'tmp/x' is no absolute path"),
    ],
)
def test_a_rule_that_disagrees_with_its_own_example_is_an_error(text: str, expected: str) -> None:
    found = problems(text)
    assert any(expected in problem for problem in found), found


def test_all_problems_are_reported_at_once_in_the_order_of_their_places() -> None:
    found = problems("version: 9\negress: {allow: ['*', {hots: x}], mode: x}", "commands: {deny: ['/x']}")
    places = [problem.split(": ", 1)[0] for problem in found]
    assert places == [
        "p/a.yaml:1:10",
        "p/a.yaml:2:18",
        "p/a.yaml:2:23",
        "p/a.yaml:2:24",
        "p/a.yaml:2:41",
        "p/b.yaml:1:19",
    ]


def test_an_error_carries_its_problems_as_values() -> None:
    with pytest.raises(PolicyError) as caught:
        policy("egres: {}")
    (problem,) = caught.value.problems
    assert (problem.where.file, problem.where.line, problem.where.column) == ("l0/a.yaml", 1, 1)
    assert problem.fix == "did you mean 'egress'?"


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


BUNDLE = (
    "version: 1\nallow:\n  - {id: web, host: good.test, reason: r, examples: {match: [good.test]}}\n  - '*.good.test'\n"
)


def test_a_shipped_bundle_brings_its_hosts_under_its_own_name() -> None:
    loaded = load_policy([layer("use: [good]")], {"good": BUNDLE})
    assert loaded.layers[0].egress is not None
    assert [(rule.id, rule.pattern, str(rule.where)) for rule in loaded.layers[0].egress.allow] == [
        ("good/web", "good.test", "policies/bundles/good.yaml:3"),
        ("good/allow.[1]", "*.good.test", "policies/bundles/good.yaml:4"),
    ]


def test_a_bundle_may_overlap_with_the_layers_own_rules() -> None:
    text = "use: [good]\negress: {allow: [good.test], deny: [b.good.test, '*.good.test']}"
    assert load_policy([layer(text)], {"good": BUNDLE}).layers[0].egress is not None


def test_a_bundle_of_a_tool_brings_the_hosts_of_its_configuration() -> None:
    hosts = (
        ToolHost("Index.Corp.test", 8443, Protocol.TLS, "pip: somewhere"),
        ToolHost("m.test", 80, Protocol.HTTP, "x"),
    )
    loaded = load_policy([layer("use: [pip]")], {"pip": hosts})
    assert loaded.layers[0].egress is not None
    assert [(rule.id, rule.pattern, rule.ports, rule.protocol) for rule in loaded.layers[0].egress.allow] == [
        ("pip[0]", "index.corp.test", (8443,), Protocol.TLS),
        ("pip[1]", "m.test", (80,), Protocol.HTTP),
    ]


@pytest.mark.parametrize(
    ("bundle", "expected"),
    [
        (
            BundleFault("pip is not there", "install it"),
            "layer/a.yaml:1:7: the bundle 'good' cannot be used: pip is not",
        ),
        ((ToolHost("bad host", 443, Protocol.TLS, "pip: x"),), "pip: x names a host that is refused"),
        ("version: 1\nallow: []", "policies/bundles/good.yaml:2:8: an empty list"),
        ("version: 1\nallow: [x.test]\npaths: {}", "policies/bundles/good.yaml:3:1: unknown key 'paths' in a bundle"),
        (
            "version: 1\nallow: [{host: x.test, examples: {match: [y.test]}}]",
            "policies/bundles/good.yaml:2:9: good/allow.[0]",
        ),
    ],
)
def test_a_bundle_that_cannot_be_had_is_a_problem_of_the_policy(
    bundle: str | tuple[ToolHost, ...] | BundleFault, expected: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy([layer("use: [good]")], {"good": bundle})
    assert expected in str(caught.value)


def test_a_bundle_used_twice_is_a_problem() -> None:
    with pytest.raises(PolicyError, match="the bundle 'good' is used twice"):
        load_policy([layer("use: [good]", "use: [good]")], {"good": BUNDLE})


def test_an_offer_names_the_hosts_a_bundle_would_bring() -> None:
    assert offer("good", BUNDLE).patterns == ("good.test", "*.good.test")
    with pytest.raises(PolicyError):
        offer("bad", "allow: 1")


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
