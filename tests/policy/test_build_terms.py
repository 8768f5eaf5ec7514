"""What a host rule asks of requests: read as written, and refused where it could not be carried out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.model import Condition, EgressLimits, EgressSection, GitRepositories, HostLimits, HostRule, Mode, Tls
from agent.policy.schema_common import LONGEST_SPAN, MOST_BYTES
from tests.policy.given import policy, problems


def section(text: str) -> EgressSection:
    found = policy(text).layers[0].egress
    assert found is not None
    return found


def allow(entry: str) -> HostRule:
    return section(f"egress: {{allow: [{{host: x.test, {entry}}}]}}").allow[0]


def refused(entry: str, *, key: str = "allow", host: str = "x.test") -> list[str]:
    return problems(f"egress: {{{key}: [{{host: {host}, {entry}}}]}}")


def test_every_key_of_a_host_rule_is_read_as_written() -> None:
    rule = allow(
        "headers: {X-B: ['2*', '1'], x-a: y}, query: {q: v}, tls: inspect, scan: true, mode: observe, limits: "
        "{body: 1KB, upload: 50MB, download: 1GiB, connections_per_minute: 60, connections: 20, idle: 10m}"
    )
    assert rule.headers == (Condition("x-a", ("y",)), Condition("x-b", ("1", "2*")))
    assert rule.query == (Condition("q", ("v",)),)
    assert rule.limits == HostLimits(1000, 50_000_000, 2**30, 60, 20, 600)
    assert (rule.tls, rule.scan, rule.mode) == (Tls.INSPECT, True, Mode.OBSERVE)
    assert allow("git: {fetch: 'a/*', push: [b/c, a/b]}").git == GitRepositories(("a/*",), ("a/b", "b/c"))
    assert allow("tls: passthrough").tls is Tls.PASSTHROUGH
    plain = allow("ports: [443]")
    assert (plain.limits, plain.tls, plain.credential, plain.git, plain.scan) == (HostLimits(), None, None, None, False)


def test_the_bounds_of_the_session_are_those_of_the_section() -> None:
    found = section("egress: {limits: {connections: 9, connections_per_minute: 8, head: 7s, idle: 1h}}")
    assert found.limits == EgressLimits(9, 8, 7, 3600)


def test_two_files_may_not_disagree_about_a_bound_of_the_session() -> None:
    found = problems("egress: {limits: {idle: 1m}}", "egress: {limits: {idle: 60}}")
    assert found == []
    found = problems("egress: {limits: {idle: 1m}}", "egress: {limits: {idle: 2m}}")
    assert found == ["p/b.yaml:1:25: 'idle: 120' contradicts p/a.yaml:1 (60); give it once for the directory"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        # sizes and times
        ("limits: {body: 1.5MB}", ":48: '1.5MB' where a number of bytes is meant; write a whole number with one of"),
        ("limits: {body: 1mb}", "'1mb' where a number of bytes is meant"),
        ("limits: {body: 1 MB}", "'1 MB' where a number of bytes is meant"),
        ("limits: {body: -1}", "'-1' where a number of bytes is meant"),
        ("limits: {body: 010}", "'010' where a number of bytes is meant"),
        ("limits: {body: '10'}", "'10' where a number of bytes is meant"),
        ("limits: {body: 1_000}", "'1_000' where a number of bytes is meant"),
        ("limits: {upload: 0}", "0 is out of range"),
        ("limits: {upload: 9999999GB}", "9999999GB is out of range"),
        ("limits: {idle: 1d}", "'1d' where a number of seconds is meant"),
        ("limits: {idle: 1:30}", "'1:30' where a number of seconds is meant"),
        ("limits: {idle: 200h}", "200h is out of range"),
        ("limits: {idle: [1]}", "a list where a number of seconds is meant"),
        ("limits: {connections: 5s}", "5s where a number is meant"),
        ("limits: {uploads: 5}", "unknown key 'uploads' in the limits of a host rule; did you mean 'upload'?"),
        ("limits: {body: 2MB, upload: 1MB}", "a body may be larger than all uploads together; lower body"),
        ("limits: {body: 1KB}, protocol: tcp, ports: [22]", "limits.body with protocol tcp: nothing is known"),
        # flags
        ("scan: yes", "'yes' where true or false is meant; write true or false"),
        ("scan: 'true'", "'true' where true or false is meant"),
        # conditions
        ("headers: {}", "an empty mapping where a mapping of header fields is meant"),
        ("headers: [a]", "a list where a mapping of header fields is meant"),
        ("headers: {a: 2023-06-01}", "'2023-06-01' is read as a date"),
        ("headers: {a: []}", "an empty list; name at least one value; '*' for any"),
        ("headers: {a b: c}", "'a b' where a header field's name is meant"),
        ("headers: {no: c}", "'no' is read as a boolean"),
        ("headers: {a: b, A: c}", "the field 'a' is named twice: case does not matter"),
        ("headers: {a: b, a: c}", "the key 'a' is given twice; merge the two"),
        ("headers: {Host: b}", "the field 'host' says which host is meant; write the host under 'host:'"),
        ("headers: {Content-Length: '1'}", "the field 'content-length' never reaches the host as it was sent"),
        (
            "headers: {a: b}, protocol: tcp, ports: [22]",
            "headers with protocol tcp: nothing is known of what is inside",
        ),
        ("query: {page: 1}", "'1' is read as a number"),
        ("query: {a: b}, protocol: tcp, ports: [22]", "query with protocol tcp"),
        # what may be looked into
        ("tls: passthrough, methods: [GET]", "passthrough forbids to look inside, methods need it; remove one"),
        ("tls: passthrough, paths: [/a], scan: true", "to look inside, paths and scan need it"),
        ("tls: passthrough, limits: {body: 1}", "to look inside, limits.body need it"),
        ("tls: passthrough, git: {fetch: a}", "to look inside, git need it"),
        ("tls: passthrough, headers: {a: b}", "to look inside, headers need it"),
        ("tls: passthrough, credential: {secret: s}", "to look inside, credential need it"),
        ("tls: passthrough, protocol: http", "'tls: passthrough' with protocol http; remove it: there is no TLS"),
        ("tls: inspect, protocol: tcp, ports: [22]", "'tls: inspect' with protocol tcp"),
        ("tls: never", "'never' where inspect or passthrough is meant"),
        ("scan: true, protocol: tcp, ports: [22]", "scan with protocol tcp"),
        ("credential: {secret: s}, protocol: tcp, ports: [22]", "credential with protocol tcp"),
        ("credential: {secret: s}, protocol: http", "a credential with protocol http: anybody could read it; use tls"),
        ("credential: {only: true}", "a credential without 'secret'; add 'secret:'"),
        ("credential: {secret: s, optional: true}", "unknown key 'optional' in a credential"),
        # git
        ("git: {}", "a git rule without repositories; write `git: {fetch: [example/*]}`"),
        ("git: {fetch: []}", "an empty list; name at least one repository"),
        ("git: {fetch: /a/b}", "the repository '/a/b' can never match: it starts or ends with '/'; write a/b"),
        ("git: {push: a/b.git}", "repositories are matched without '.git'; write a/b"),
        ("git: {push: 'https://x.test/a'}", "it is a URL; write its path alone"),
        ("git: {push: a//b}", "it holds a character or an empty segment"),
        ("git: {push: a/../b}", "paths with '.' or '..' are refused"),
        ("git: {push: a/b**}", "'**' stands for whole segments"),
        ("git: {push: 'a b'}", "it holds a character or an empty segment"),
        ("git: {fetch: a}, methods: [GET]", "git together with methods; git names its requests itself"),
        ("git: {fetch: a}, paths: [/a], query: {b: c}", "git together with paths and query"),
        ("git: {fetch: a}, protocol: http", "git with protocol http: the rule is for git over HTTPS; use tls"),
        ("git: {fetch: a}, protocol: tcp, ports: [22]", "git with protocol tcp"),
        ("mode: observe", "mode observe on an allow without conditions: there is nothing to observe; remove it"),
        ("mode: watch", "'watch' where a mode is meant"),
    ],
)
def test_a_rule_that_could_not_be_carried_out_is_an_error_with_its_fix(entry: str, expected: str) -> None:
    found = refused(entry)
    assert any(expected in problem for problem in found), found


@pytest.mark.parametrize("key", ["limits: {idle: 1}", "tls: inspect", "credential: {secret: s}", "scan: true"])
def test_what_an_allow_asks_for_a_deny_cannot(key: str) -> None:
    assert "unknown key" in refused(key, key="deny")[0]


@pytest.mark.parametrize("entry", ["headers: {a: b}", "query: {a: b}"])
def test_a_deny_has_conditions_but_not_on_raw_connections(entry: str) -> None:
    assert problems(f"egress: {{allow: [x.test], deny: [{{host: x.test, {entry}}}]}}") == []
    assert "with protocol tcp" in refused(f"{entry}, protocol: tcp, ports: [22]", key="deny")[0]


def test_a_service_of_the_machine_itself_is_a_destination_like_any_other() -> None:
    rule = allow("ports: [80]")
    assert rule.ports == (80,)
    given = "egress: {allow: [{host: 127.0.0.1, protocol: tcp, ports: [5432], addresses: [127.0.0.1/32]}]}"
    assert [rule.pattern for rule in section(given).allow] == ["127.0.0.1"]


# together with other rules


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{host: x.test, tls: passthrough}", "{host: x.test, methods: [GET]}"),
        ("{host: '*.test', tls: passthrough}", "{host: x.test, scan: true}"),
        ("{host: a.x.test, tls: passthrough}", "{host: '*.x.test', limits: {body: 1}}"),
    ],
)
def test_what_one_rule_passes_through_another_cannot_look_into(one: str, other: str) -> None:
    found = problems(f"egress: {{allow: [{other}, {one}]}}")
    assert any("which egress.allow[0] (p/a.yaml:1) wants to look into; remove 'tls: pass" in text for text in found)


def test_rules_on_different_ports_do_not_meet() -> None:
    passed = "{host: x.test, tls: passthrough, ports: [8443]}"
    assert problems(f"egress: {{allow: [{passed}, {{host: x.test, methods: [GET]}}]}}") == []


def test_a_deny_that_looks_inside_meets_a_passthrough_too() -> None:
    closed = "{host: x.test, paths: [/a]}"
    (found,) = problems(f"egress: {{allow: [{{host: '*.test', tls: passthrough}}], deny: [{closed}]}}")
    assert "passthrough for '*.test', which egress.deny[0] (p/a.yaml:1) wants to look into" in found


@pytest.mark.parametrize(
    "narrower",
    ["limits: {idle: 1}", "scan: true", "tls: inspect"],
)
def test_a_rule_with_terms_of_its_own_is_no_shadow_of_a_wider_one(narrower: str) -> None:
    assert problems(f"egress: {{allow: ['*.test', {{host: x.test, {narrower}}}]}}") == []


@pytest.mark.parametrize("narrower", ["headers: {a: b}", "query: {a: b}", "git: {fetch: a}", "methods: [GET]"])
def test_conditions_beside_a_wider_rule_are_an_error(narrower: str) -> None:
    (found,) = problems(f"egress: {{allow: ['*.test', {{host: x.test, {narrower}}}]}}")
    assert "the allow of 'x.test' never matters: it is already allowed by egress.allow[0]" in found


def test_a_rule_with_conditions_does_not_make_a_wider_one_pointless() -> None:
    given = "egress: {allow: [{host: x.test, headers: {a: b}}, {host: x.test, query: {a: b}}]}"
    assert problems(given) == []


def test_a_deny_that_only_observes_or_has_conditions_closes_nothing() -> None:
    for entry in ("mode: observe", "headers: {a: b}"):
        assert problems(f"egress: {{allow: [x.test], deny: [{{host: x.test, {entry}}}]}}") == []


# quantities

SIZES = {"B": 1, "KB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}
SPANS = {"s": 1, "m": 60, "h": 3600}


@given(st.integers(0, 10**7), st.sampled_from(sorted(SIZES)))
def test_a_size_is_its_number_times_its_unit(number: int, unit: str) -> None:
    size = number * SIZES[unit]
    if size <= MOST_BYTES:
        assert allow(f"limits: {{body: {number}{unit}}}").limits.body == size
    else:
        assert "out of range" in refused(f"limits: {{body: {number}{unit}}}")[0]


@given(st.integers(0, 10**6), st.sampled_from(sorted(SPANS)))
def test_a_time_is_its_number_times_its_unit(number: int, unit: str) -> None:
    span = number * SPANS[unit]
    if 1 <= span <= LONGEST_SPAN:
        assert allow(f"limits: {{idle: {number}{unit}}}").limits.idle == span
    else:
        assert "out of range" in refused(f"limits: {{idle: {number}{unit}}}")[0]
