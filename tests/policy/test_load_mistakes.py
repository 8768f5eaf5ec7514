"""Rules that can never match, cover each other or disagree with their examples: mistakes that loading names."""

from __future__ import annotations

import pytest

from agent.policy.load import PolicyError
from tests.policy.given import policy, problems


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
