"""Egress decisions: the contract's rulings and the attack list, asserting the rule and not only the verdict."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from agent.policy.decide import decide
from agent.policy.decision import Severity, Verdict
from agent.policy.load import load_policy, offer
from agent.policy.model import Offer, Policy
from agent.policy.request import Protocol, Stage
from tests.policy.given import connect, layer, policy, url

ALLOW, DENY = Verdict.ALLOW, Verdict.DENY

GOOD = "egress: {allow: [api.good.test, '*.good.test']}".replace("api.good.test, ", "{id: apex, host: good.test}, ")


def says(given: Policy, text: str) -> tuple[str, str]:
    decision = decide(given, url(text))
    return str(decision.verdict), decision.rule


@pytest.mark.parametrize(
    ("target", "verdict", "rule"),
    [
        ("https://good.test/", "allow", "apex"),
        ("https://GOOD.test./", "allow", "apex"),
        ("https://api.good.test/", "allow", "egress.allow[1]"),
        ("https://a.b.c.good.test/", "allow", "egress.allow[1]"),
        ("https://_dmarc.good.test/", "allow", "egress.allow[1]"),
        ("https://evilgood.test/", "deny", "egress-default"),
        ("https://good.test.evil.test/", "deny", "egress-default"),
        ("https://api.good.test:9999/", "deny", "egress-default"),
        ("http://api.good.test/", "deny", "egress-default"),
        ("http://api.good.test:443/", "deny", "egress-default"),
        ("tcp://api.good.test:443", "deny", "egress-default"),
        ("https://93.184.215.14/", "deny", "egress-default"),
        ("https://2130706433/", "deny", "egress-default"),
        ("https://[::1]/", "deny", "egress-default"),
        ("https://mitm.it/", "deny", "egress-default"),
    ],
)
def test_a_host_rule_is_this_host_by_tls_on_443(target: str, verdict: str, rule: str) -> None:
    assert says(policy(GOOD), target) == (verdict, rule)


@pytest.mark.parametrize(
    ("rule", "target", "allowed"),
    [
        ("{host: x.test, protocol: http}", "http://x.test/", True),
        ("{host: x.test, protocol: http}", "https://x.test/", False),
        ("{host: x.test, protocol: http, ports: [8080]}", "http://x.test:8080/", True),
        ("{host: x.test, protocol: http, ports: [8080]}", "http://x.test/", False),
        ("{host: x.test, protocol: tcp, ports: [22]}", "tcp://x.test:22", True),
        ("{host: x.test, protocol: tcp, ports: [443]}", "https://x.test/", False),
        ("{host: x.test, ports: [443, 8443]}", "https://x.test:8443/", True),
    ],
)
def test_protocol_and_port_must_both_match(rule: str, target: str, allowed: bool) -> None:
    assert (says(policy(f"egress: {{allow: [{rule}]}}"), target)[0] == "allow") is allowed


@pytest.mark.parametrize(
    "text", ["version: 1", "egress:", "egress: {}", "egress: {allow: []}", "egress: {deny: [x.test]}"]
)
def test_an_empty_policy_allows_nothing(text: str) -> None:
    decision = decide(policy(text), url("https://y.test/"))
    assert (decision.verdict, decision.rule, decision.where) == (DENY, "egress-default", None)


def test_no_layer_at_all_allows_nothing() -> None:
    decision = decide(Policy(layers=(), digest=""), url("https://x.test/"))
    assert (decision.verdict, decision.rule) == (DENY, "egress-default")


@pytest.mark.parametrize(
    ("deny", "target"),
    [
        ("a.good.test", "https://a.good.test/"),
        ("'*.good.test'", "https://a.good.test/"),
        ("{host: a.good.test, ports: [443]}", "https://a.good.test/"),
        ("{host: a.good.test, methods: [GET]}", "https://a.good.test/"),
        ("{host: a.good.test, paths: [/admin]}", "https://a.good.test/admin"),
        ("{host: a.good.test, paths: [/admin]}", "https://a.good.test/admin/"),
        ("{host: a.good.test, paths: [/admin]}", "https://a.good.test/%61dmin"),
        ("{host: a.good.test, paths: [/admin]}", "https://a.good.test/x/../admin"),
        ("{host: a.good.test, paths: [/admin]}", "https://a.good.test//admin"),
        ("{host: a.good.test, paths: [/admin]}", "https://a.good.test/admin;x"),
        ("{host: a.good.test, paths: [/admin]}", "https://a.good.test/%2561dmin%252f"),
    ],
)
def test_deny_beats_allow_and_cannot_be_spelled_round(deny: str, target: str) -> None:
    allow = "{host: '*.test', ports: [443, 8443]}"
    given = policy(f"egress: {{allow: [{allow}], deny: [{deny}]}}")
    assert says(given, target) == ("deny", "egress.deny[0]")


def test_a_deny_without_ports_closes_the_host_on_every_port_and_protocol() -> None:
    given = policy("egress: {allow: ['*.x.test', {host: '*.x.test', protocol: tcp, ports: [22]}], deny: [a.x.test]}")
    assert says(given, "tcp://a.x.test:22") == ("deny", "egress.deny[0]")
    assert says(given, "tcp://b.x.test:22") == ("allow", "egress.allow[1]")


DENIED = (
    "egress: {allow: ['*.x.test'], deny: [{id: closed, host: a.x.test, reason: pastes are a way out, instead: use b,"
    " severity: high}]}"
)


def test_a_denial_carries_the_words_of_its_rule_and_its_place() -> None:
    given = policy(DENIED)
    decision = decide(given, url("https://a.x.test/"))
    assert decision.rule == "closed"
    assert decision.reason == "pastes are a way out"
    assert decision.instead == "use b"
    assert decision.severity is Severity.HIGH
    assert decision.where == "l0/a.yaml:1"
    assert decision.policy_digest == given.digest


def test_a_default_denial_says_what_was_asked_and_what_to_do() -> None:
    decision = decide(policy(GOOD), url("https://evil.test/x"))
    assert decision.reason == "no rule of the policy allows GET /x on evil.test:443 (tls)"
    assert decision.instead == "use an allowed host, or ask for this one under egress.allow in the policy"
    assert decision.where is None


def test_a_near_miss_says_how_the_host_is_allowed() -> None:
    given = policy("egress: {allow: [{host: x.test, methods: [GET], paths: [/a/**], instead: see the manual}]}")
    decision = decide(given, url("POST https://x.test/a/b"))
    assert decision.rule == "egress-default"
    assert decision.reason == (
        "POST /a/b on x.test:443 (tls) is not allowed; x.test is allowed for TLS on port 443, methods GET, paths /a/**"
    )
    assert decision.instead == "see the manual"


def test_a_near_miss_says_to_keep_within_and_names_a_bundle_where_one_has_the_host() -> None:
    given = policy("egress: {allow: [{host: x.test, methods: [GET]}]}")
    decision = decide(given, url("POST https://x.test/a/b"))
    within = "keep to what is allowed of this host, or ask for more of it under egress.allow in the policy"
    assert decision.instead == within
    offered = decide(replace(given, offers=(Offer("tools", ("x.test",)), Offer("pip"))), url("POST https://x.test/a/b"))
    assert offered.instead == "ask for the bundle that has this host: `use: [tools]` in the policy"


def test_a_denial_points_to_the_bundle_that_has_the_host() -> None:
    shipped = offer("code", "version: 1\nallow: ['*.code.test']")
    given = load_policy([layer(GOOD)], {}, offers=(shipped,))
    assert "use: [code]" in decide(given, url("https://x.code.test/")).instead
    assert "(use: code)" in decide(given, url("https://y.test/")).instead
    assert given.digest == policy(GOOD).digest


def test_hostile_text_is_escaped_in_what_is_shown() -> None:
    request = url("https://evil.test/")
    hostile = replace(request, path="/\x1b[31m\u202e", host="evil.test\x1b")
    reason = decide(policy(GOOD), hostile).reason
    assert "\x1b" not in reason and "\u202e" not in reason
    assert "\\x1b[31m\\u202e" in reason


# methods and paths

RULED = "egress: {allow: [{id: index, host: x.test, methods: [GET, HEAD], paths: ['/simple/**', /json]}]}"


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("https://x.test/simple/pip/", True),
        ("HEAD https://x.test/simple/pip/", True),
        ("https://x.test/json?x=/../y", True),
        ("https://x.test/json/", True),
        ("https://x.test/%73imple/pip", True),
        ("https://x.test/simple", False),
        ("https://x.test/simple/", False),
        ("https://x.test/Simple/pip", False),
        ("https://x.test/", False),
        ("https://x.test/simplex/pip", False),
        ("POST https://x.test/simple/pip", False),
        ("get https://x.test/simple/pip", False),
        ("TRACE https://x.test/simple/pip", False),
        ("CONNECT https://x.test/simple/pip", False),
        ("https://x.test/simple/../admin", False),
        ("https://x.test/simple/%2e%2e/admin", False),
        ("https://x.test/simple/..%2fadmin", False),
        ("https://x.test/simple/..;/admin", False),
        ("https://x.test/simple/..%5cadmin", False),
        ("https://x.test/simple//x", False),
        ("https://x.test/simple/%252e%252e/x", False),
    ],
)
def test_a_request_is_matched_by_its_method_and_its_decoded_path(target: str, allowed: bool) -> None:
    expected = ("allow", "index") if allowed else ("deny", "egress-default")
    assert says(policy(RULED), target) == expected


@pytest.mark.parametrize("stage", [Stage.NAME, Stage.CONNECT])
@pytest.mark.parametrize(
    ("egress", "inspect"),
    [
        ("allow: [x.test]", False),
        ("allow: [{host: x.test, methods: [GET]}]", True),
        ("allow: [{host: x.test, paths: [/a]}]", True),
        ("allow: [{host: x.test, methods: [GET]}, {host: x.test, methods: [PUT]}]", True),
        ("allow: [x.test], deny: [{host: x.test, paths: [/admin]}]", True),
        ("allow: [x.test], deny: [{host: y.test, paths: [/admin]}]", False),
        ("allow: [x.test], deny: [{host: x.test, ports: [8443], methods: [GET]}]", False),
    ],
)
def test_a_connection_is_looked_into_where_requests_still_decide(stage: Stage, egress: str, inspect: bool) -> None:
    decision = decide(policy(f"egress: {{{egress}}}"), connect("x.test", stage=stage))
    assert (decision.verdict, decision.inspect) == (ALLOW, inspect)


def test_a_further_layer_can_demand_that_a_connection_is_looked_into() -> None:
    given = policy("egress: {allow: [x.test]}", "egress: {allow: [{host: x.test, methods: [GET]}]}")
    assert decide(given, connect("x.test")).inspect
    assert says(given, "https://x.test/") == ("allow", "egress.allow[0]")
    assert says(given, "POST https://x.test/") == ("deny", "egress-default")


def test_a_request_that_is_decided_needs_no_more_looking() -> None:
    assert not decide(policy(RULED), url("https://x.test/json")).inspect


def test_an_unknown_method_or_path_counts_against_the_request_at_the_last_stage() -> None:
    allow, deny = policy(RULED), policy("egress: {allow: [x.test], deny: [{host: x.test, methods: [POST]}]}")
    bare = connect("x.test", stage=Stage.REQUEST)
    assert decide(allow, bare).verdict is DENY
    assert decide(deny, bare).rule == "egress.deny[0]"


# addresses

PRIVATE = "egress: {allow: [{id: own, host: x.test, addresses: [10.20.0.0/16, 'fd00:1::/32']}, y.test]}"


@pytest.mark.parametrize(
    ("host", "addresses", "rule", "says"),
    [
        ("y.test", ("93.184.215.14",), "egress.allow[1]", ""),
        ("y.test", ("2606:2800:21f::1",), "egress.allow[1]", ""),
        ("x.test", ("10.20.3.4",), "own", ""),
        ("x.test", ("10.20.3.4", "93.184.215.14"), "own", ""),
        ("x.test", ("fd00:1::5",), "own", ""),
        ("x.test", ("::ffff:10.20.3.4",), "own", ""),
        ("x.test", ("10.21.0.1",), "egress-address", "10.21.0.1 is no public address (private)"),
        ("x.test", ("10.20.3.4", "10.21.0.1"), "egress-address", "10.21.0.1"),
        ("y.test", ("10.20.3.4",), "egress-address", "(private)"),
        ("y.test", ("93.184.215.14", "127.0.0.1"), "egress-address", "(loopback)"),
        ("y.test", ("169.254.169.254",), "egress-address", "(metadata)"),
        ("y.test", ("fd00:ec2::254",), "egress-address", "(metadata)"),
        ("y.test", ("100.64.0.1",), "egress-address", "(cgnat)"),
        ("y.test", ("64:ff9b::a9fe:a9fe",), "egress-address", "(metadata)"),
        ("y.test", ("2002:7f00:1::1",), "egress-address", "(loopback)"),
        ("y.test", ("::7f00:1",), "egress-address", "(loopback)"),
        ("y.test", ("nonsense",), "egress-address", "(invalid)"),
    ],
)
def test_every_resolved_address_is_public_or_granted(
    host: str, addresses: tuple[str, ...], rule: str, says: str
) -> None:
    decision = decide(policy(PRIVATE), connect(host, 443, *addresses))
    assert decision.rule == rule
    assert says in decision.reason
    assert decision.verdict is (DENY if rule == "egress-address" else ALLOW)


def test_a_connection_without_an_address_is_refused() -> None:
    request = connect("y.test", stage=Stage.NAME)
    assert decide(policy(PRIVATE), request).verdict is ALLOW
    unresolved = replace(request, stage=Stage.CONNECT)
    decision = decide(policy(PRIVATE), unresolved)
    assert (decision.verdict, decision.rule) == (DENY, "egress-address")
    assert "has no address" in decision.reason


def test_a_private_destination_must_be_granted_by_every_layer() -> None:
    wide = "egress: {allow: [{host: x.test, addresses: [10.0.0.0/8]}]}"
    assert decide(policy(wide, wide), connect("x.test", 443, "10.1.1.1")).verdict is ALLOW
    decision = decide(policy(wide, "egress: {allow: [x.test]}"), connect("x.test", 443, "10.1.1.1"))
    assert (decision.verdict, decision.rule) == (DENY, "egress-address")
    assert decide(policy(wide, "version: 1"), connect("x.test", 443, "10.1.1.1")).verdict is ALLOW


def test_an_address_literal_is_judged_before_any_lookup() -> None:
    given = policy("egress: {allow: [{host: 10.1.2.3, addresses: [10.1.2.0/24]}, 93.184.215.14]}")
    assert decide(given, connect("10.1.2.3", stage=Stage.NAME)).rule == "egress.allow[0]"
    assert decide(given, connect("93.184.215.14", stage=Stage.NAME)).rule == "egress.allow[1]"
    decision = decide(given, connect("169.254.169.254", stage=Stage.NAME))
    assert decision.rule == "egress-default"
    assert "169.254.169.254 is no public address (metadata)" in decision.reason


# layers, modes, exceptions

BASE = "egress: {allow: [a.test, b.test]}"


@pytest.mark.parametrize(
    ("further", "a", "b"),
    [
        ("version: 1", "allow", "allow"),
        ("commands: {deny: [mkfs]}", "allow", "allow"),
        ("egress: {deny: [a.test]}", "deny", "allow"),
        ("egress: {allow: [b.test, c.test]}", "deny", "allow"),
        ("egress: {allow: []}", "deny", "deny"),
        ("egress: {mode: observe, allow: []}", "deny", "deny"),
        ("egress: {}", "allow", "allow"),
    ],
)
def test_a_further_layer_only_narrows(further: str, a: str, b: str) -> None:
    given = policy(BASE, further)
    assert (says(given, "https://a.test/")[0], says(given, "https://b.test/")[0]) == (a, b)
    assert says(given, "https://c.test/")[0] == "deny"


def test_a_layer_that_names_a_rule_is_reported_before_a_default() -> None:
    given = policy("egress: {allow: []}", "egress: {deny: [{id: closed, host: a.test}]}")
    assert says(given, "https://a.test/") == ("deny", "closed")


@pytest.mark.parametrize(
    ("layers", "enforced"),
    [
        (["egress: {mode: observe}"], False),
        (["egress: {mode: enforce}"], True),
        (["version: 1"], True),
        (["egress: {mode: observe}", "egress: {mode: observe}"], False),
        (["egress: {mode: observe}", "version: 1"], False),
        (["egress: {mode: observe}", "egress: {mode: enforce}"], True),
        (["egress: {mode: enforce}", "egress: {mode: observe, allow: []}"], True),
        (["version: 1", "egress: {mode: observe}"], True),
        (["egress: {mode: observe}", "egress: {deny: [b.test]}"], True),
    ],
)
def test_observe_only_records_unless_any_layer_enforces(layers: list[str], enforced: bool) -> None:
    decision = decide(policy(*layers), url("https://a.test/"))
    assert (decision.verdict, decision.enforced, decision.permitted) == (DENY, enforced, not enforced)


EXCEPTED = """\
egress: {allow: ['*.x.test'], deny: [{id: closed, host: '*.x.test', methods: [POST]}, {id: other, host: b.x.test}]}
exceptions: [{rule: closed, host: '*.a.x.test', owner: o, reason: r, expires: 2027-01-31}]
"""


@pytest.mark.parametrize(
    ("target", "today", "expected"),
    [
        ("POST https://b.a.x.test/", date(2027, 1, 31), ("allow", "egress.allow[0]")),
        ("POST https://b.a.x.test/", date(2027, 2, 1), ("deny", "closed")),
        ("POST https://c.x.test/", date(2027, 1, 1), ("deny", "closed")),
        ("GET https://b.x.test/", date(2027, 1, 1), ("deny", "other")),
    ],
)
def test_an_exception_cancels_one_rule_for_some_hosts_until_its_day(
    target: str, today: date, expected: tuple[str, str]
) -> None:
    decision = decide(policy(EXCEPTED), url(target, today=today))
    assert (str(decision.verdict), decision.rule) == expected


def test_an_exception_counts_in_its_own_layer_only() -> None:
    given = policy(EXCEPTED, "egress: {deny: [{id: closed, host: '*.a.x.test'}]}")
    assert says(given, "POST https://b.a.x.test/") == ("deny", "closed")


def test_the_protocol_is_part_of_the_question() -> None:
    given = policy("egress: {allow: [x.test]}")
    assert decide(given, connect("x.test", protocol=Protocol.TCP)).verdict is DENY
