"""What is remembered is what would be decided again: by this policy, for every field of the question."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.policy import memory
from agent.policy.decide import decide
from agent.policy.decision import Decision
from agent.policy.memory import Memory
from agent.policy.model import Policy
from agent.policy.request import EgressRequest, Origin, Protocol, Request, Stage
from tests.policy.given import TODAY, command, policy

RULES = policy(
    """
    version: 1
    egress:
      allow:
        - host: plain.test
        - host: "*.wild.test"
        - {host: web.test, protocol: http, ports: [80, 443]}
        - {host: picky.test, methods: [GET], paths: ["/ok/**"]}
        - {host: named.test, addresses: [10.0.0.0/8], headers: {x-team: [a]}}
      deny:
        - host: bad.wild.test
        - {host: some.wild.test, paths: ["/no/**"]}
    """
)
OTHER = policy("version: 1\negress: {allow: [{host: bad.wild.test}], deny: [{host: plain.test}]}")
HOSTS = (
    "plain.test",
    "a.wild.test",
    "bad.wild.test",
    "some.wild.test",
    "web.test",
    "picky.test",
    "named.test",
    "x.test",
)

requests = st.builds(
    EgressRequest,
    host=st.sampled_from(HOSTS),
    port=st.sampled_from([80, 443]),
    today=st.just(TODAY),
    origin=st.builds(Origin, st.just("test"), request_id=st.uuids().map(str)),
    protocol=st.sampled_from(Protocol),
    stage=st.sampled_from(Stage),
    addresses=st.sampled_from([(), ("8.8.8.8",), ("10.0.0.1",), ("169.254.169.254", "8.8.8.8")]),
    method=st.sampled_from([None, "GET", "POST"]),
    path=st.sampled_from([None, "/ok/1", "/no/1"]),
    query=st.sampled_from([None, "", "a=b"]),
    headers=st.sampled_from([None, (), (("x-team", "a"),)]),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines may be busy
@given(st.lists(st.tuples(st.sampled_from([RULES, OTHER]), requests), max_size=30))
def test_every_answer_is_what_decide_says(asked: list[tuple[Policy, EgressRequest]]) -> None:
    remembered = Memory()
    for rules, request in asked:
        for _ in range(2):
            assert remembered.ask(rules, request, decide) == decide(rules, request)


def counting() -> tuple[list[Request], Callable[[Policy, Request], Decision]]:
    asked: list[Request] = []

    def counted(rules: Policy, request: Request) -> Decision:
        asked.append(request)
        return decide(rules, request)

    return asked, counted


QUESTION = EgressRequest("plain.test", 443, TODAY, Origin("test"), stage=Stage.CONNECT, addresses=("8.8.8.8",))
CHANGED: dict[str, Any] = {
    "host": "a.wild.test", "port": 80, "today": date(2030, 1, 1), "protocol": Protocol.HTTP, "stage": Stage.NAME,
    "addresses": (), "method": "GET", "path": "/", "query": "", "headers": (), "sni": "plain.test",
}  # fmt: skip


def test_every_field_but_the_origin_makes_another_question() -> None:
    assert {*CHANGED, "origin"} == {field.name for field in fields(EgressRequest)}
    asked, counted = counting()
    remembered = Memory()
    remembered.ask(RULES, QUESTION, counted)
    remembered.ask(RULES, replace(QUESTION, origin=Origin("other", pid=7)), counted)
    assert len(asked) == 1
    for name, value in CHANGED.items():
        remembered.ask(RULES, replace(QUESTION, **{name: value}), counted)
    assert len(asked) == 1 + len(CHANGED)


@pytest.mark.parametrize(
    ("host", "times"), [("plain.test", 1), ("picky.test", 2), ("some.wild.test", 2), ("x.test", 2)]
)
def test_single_requests_are_one_question_only_where_no_rule_looks_at_them(host: str, times: int) -> None:
    asked, counted = counting()
    remembered = Memory()
    request = replace(QUESTION, host=host, stage=Stage.REQUEST, method="GET", path="/ok/1", query="", headers=())
    for path in ("/ok/1", "/ok/2"):
        remembered.ask(RULES, replace(request, path=path), counted)
    assert len(asked) == times


def test_an_equal_policy_that_is_another_one_is_asked_anew_and_commands_are_never_remembered() -> None:
    asked, counted = counting()
    remembered = Memory()
    for rules in (RULES, replace(RULES)):
        remembered.ask(rules, QUESTION, counted)
    for _ in range(2):
        remembered.ask(RULES, command("ls"), counted)
    assert len(asked) == 4


def test_what_is_kept_is_bounded_and_what_raises_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST", 3)
    remembered = Memory()
    for number in range(10):
        remembered.ask(RULES, replace(QUESTION, host=f"h{number}.test", stage=Stage.REQUEST), decide)
        remembered.ask(RULES, replace(QUESTION, host=f"h{number}.test"), decide)
    assert len(remembered._answers) <= 3
    assert len(remembered._plain) <= 3

    def broken(_policy: Policy, _request: Request) -> Decision:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        remembered.ask(RULES, QUESTION, broken)
    assert remembered.ask(RULES, QUESTION, decide) == decide(RULES, QUESTION)
