"""Rules in observe mode and lookups: what they decide and by which rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.policy.decide import decide
from agent.policy.decision import Decision, Verdict
from agent.policy.request import Stage
from tests.policy.given import connect, policy, url


def answer(decision: Decision) -> tuple[str, str, bool]:
    return str(decision.verdict), decision.rule, decision.enforced


WATCHED = """\
egress:
  allow: [{id: all, host: '*.x.test'}, {id: narrow, host: y.test, methods: [GET], mode: observe}]
  deny:
    - {id: watched, host: a.x.test, mode: observe}
    - {id: closed, host: b.x.test}
    - {id: also-watched, host: b.x.test, mode: observe}
    - {id: posts, host: c.x.test, methods: [POST], mode: observe}
"""


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("https://a.x.test/", ("deny", "watched", False)),
        ("https://b.x.test/", ("deny", "closed", True)),
        ("https://c.x.test/", ("allow", "all", True)),
        ("POST https://c.x.test/", ("deny", "posts", False)),
        ("https://y.test/", ("allow", "narrow", True)),
        ("POST https://y.test/", ("deny", "narrow", False)),
        ("https://y.test:8443/", ("deny", "egress-default", True)),
        ("https://z.test/", ("deny", "egress-default", True)),
    ],
)
def test_a_rule_in_observe_mode_refuses_nothing_and_is_named(target: str, expected: tuple[str, str, bool]) -> None:
    decision = decide(policy(WATCHED), url(target))
    assert answer(decision) == expected
    assert decision.permitted is (expected[0] == "allow" or not expected[2])


def test_what_an_observed_denial_lets_pass_is_bound_and_looked_into_as_any_other() -> None:
    text = """\
    egress:
      allow: [{id: a, host: x.test, limits: {body: 5}}]
      deny: [{id: d, host: x.test, mode: observe}]
    """
    decision = decide(policy(text), connect("x.test"))
    assert answer(decision) == ("deny", "d", False)
    assert decision.inspect
    assert [rule.id for rule in decision.grants] == ["a"]


def test_an_observed_allow_opens_no_address() -> None:
    decision = decide(policy(WATCHED), connect("y.test", 443, "10.0.0.1"))
    assert answer(decision) == ("deny", "egress-address", True)
    posted = url("POST https://y.test/", "10.0.0.1")
    assert answer(decide(policy(WATCHED), posted)) == ("deny", "egress-default", True)


def test_a_further_layer_that_enforces_wins_over_a_rule_that_observes() -> None:
    given = policy("egress: {allow: [x.test], deny: [{host: x.test, mode: observe}]}", "egress: {deny: [x.test]}")
    assert decide(given, url("https://x.test/")).enforced
    watched = policy("egress: {allow: [x.test]}", "egress: {deny: [{id: w, host: x.test, mode: observe}]}")
    assert answer(decide(watched, url("https://x.test/"))) == ("deny", "w", False)


# lookups

LOOKED_UP = """\
egress:
  allow: ['*.x.test', {host: raw.test, protocol: tcp, ports: [22]}, {host: in.test, addresses: [10.0.0.0/8]}]
  deny: [{id: shut, host: shut.x.test}, {host: part.x.test, methods: [POST]}, {host: port.x.test, ports: [443]},
    {host: seen.x.test, mode: observe, id: seen}]
"""


@pytest.mark.parametrize(
    ("host", "addresses", "expected"),
    [
        ("a.x.test", (), ("allow", "egress.allow[0]", True)),
        ("raw.test", (), ("allow", "egress.allow[1]", True)),
        ("part.x.test", (), ("allow", "egress.allow[0]", True)),
        ("port.x.test", (), ("allow", "egress.allow[0]", True)),
        ("shut.x.test", (), ("deny", "shut", True)),
        ("seen.x.test", (), ("deny", "seen", False)),
        ("secret-bytes.evil.test", (), ("deny", "egress-default", True)),
        ("a.x.test", ("93.184.215.14",), ("allow", "egress.allow[0]", True)),
        ("a.x.test", ("93.184.215.14", "10.0.0.1"), ("deny", "egress-address", True)),
        ("in.test", ("10.0.0.1",), ("allow", "egress.allow[2]", True)),
        ("in.test", ("169.254.169.254",), ("deny", "egress-address", True)),
    ],
)
def test_a_name_may_be_looked_up_where_a_rule_could_lead_there(
    host: str, addresses: tuple[str, ...], expected: tuple[str, str, bool]
) -> None:
    request = replace(connect(host, 53, stage=Stage.LOOKUP), addresses=addresses)
    decision = decide(policy(LOOKED_UP), request)
    assert answer(decision) == expected
    assert not decision.inspect


def test_a_lookup_needs_every_layer() -> None:
    given = policy("egress: {allow: ['*.x.test']}", "egress: {allow: [a.x.test]}")
    assert decide(given, connect("a.x.test", 53, stage=Stage.LOOKUP)).verdict is Verdict.ALLOW
    refused = decide(given, connect("b.x.test", 53, stage=Stage.LOOKUP))
    assert (refused.rule, refused.reason) == (
        "egress-default",
        "no rule of the policy allows to look up b.x.test",
    )
