"""Header and query conditions: what they decide and by which rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.conditions import QueryError, header_holds, parse_query, query_holds
from agent.policy.decide import decide
from agent.policy.decision import Decision
from agent.policy.model import Condition
from tests.policy.given import connect, policy, url

VERSIONED = "egress: {allow: [{id: v, host: x.test, headers: {Api-Version: ['2023-*', '2024-01-01']}}]}"


def answer(decision: Decision) -> tuple[str, str, bool]:
    return str(decision.verdict), decision.rule, decision.enforced


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ((("api-version", "2023-06-01"),), True),
        ((("api-version", " 2024-01-01 "),), True),
        ((("api-version", "2024-01-02"),), False),
        ((("api-version", ""),), False),
        ((), False),
        ((("x-api-version", "2023-06-01"),), False),
        ((("api-version", "2023-06-01"), ("api-version", "2023-07-01")), True),
        ((("api-version", "2023-06-01"), ("api-version", "1999-01-01")), False),
        ((("api-version", "2023-06-01, 1999-01-01"),), False),
        ((("api-version", "2023-06-01"), ("api_version", "1999-01-01")), False),
        ((("api_version", "2023-06-01"),), False),
    ],
)
def test_an_allow_needs_every_value_of_the_field_to_fit(headers: tuple[tuple[str, str], ...], allowed: bool) -> None:
    decision = decide(policy(VERSIONED), url("https://x.test/", headers=headers))
    assert answer(decision) == (("allow", "v", True) if allowed else ("deny", "egress-default", True))
    if not allowed:
        assert "api-version: 2023-* or 2024-01-01" in decision.reason


CLOSED = "egress: {allow: [x.test], deny: [{id: beta, host: x.test, headers: {x-beta: 'computer-*'}}]}"


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ((("x-beta", "computer-1"),), True),
        ((("x-beta", "COMPUTER-1"),), True),
        ((("x_beta", "computer-1"),), True),
        ((("x-beta", "other, computer-1"),), True),
        ((("x-beta", "other"), ("x-beta", "computer-1")), True),
        ((("x-beta", "other"),), False),
        ((), False),
    ],
)
def test_a_deny_needs_one_value_that_fits_in_any_reading(headers: tuple[tuple[str, str], ...], refused: bool) -> None:
    decision = decide(policy(CLOSED), url("https://x.test/", headers=headers))
    assert answer(decision) == (("deny", "beta", True) if refused else ("allow", "egress.allow[0]", True))


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("https://x.test/?service=git-upload-pack", True),
        ("https://x.test/?a=b&service=git%2Dupload-pack", True),
        ("https://x.test/?service=git-upload-pack&service=git-upload-pack", True),
        ("https://x.test/?service=git-upload-pack&service=other", False),
        ("https://x.test/?service=git-upload-pack&SERVICE=other", False),
        ("https://x.test/?SERVICE=git-upload-pack", False),
        ("https://x.test/?service=git-upload-pack;x=y", False),
        ("https://x.test/?service=git-upload-pack&x=%zz", False),
        ("https://x.test/?service=git-upload-pack&x=%ff", False),
        ("https://x.test/?service=git-upload-pack%00", False),
        ("https://x.test/?service", False),
        ("https://x.test/?", False),
        ("https://x.test/", False),
    ],
)
def test_an_allow_needs_every_value_of_the_parameter_to_fit(target: str, allowed: bool) -> None:
    given = policy("egress: {allow: [{id: q, host: x.test, query: {service: git-upload-pack}}]}")
    assert answer(decide(given, url(target))) == (("allow", "q", True) if allowed else ("deny", "egress-default", True))


@pytest.mark.parametrize(
    ("target", "refused"),
    [
        ("https://x.test/?admin=1", True),
        ("https://x.test/?a=b&%61dmin=1", True),
        ("https://x.test/?Admin=1", True),
        ("https://x.test/?admin=0&admin=1", True),
        ("https://x.test/?a=b;admin=1", True),
        ("https://x.test/?a=%ff", True),
        ("https://x.test/?admin=0", False),
        ("https://x.test/?adm=1", False),
        ("https://x.test/", False),
    ],
)
def test_a_deny_by_query_cannot_be_spelled_round(target: str, refused: bool) -> None:
    given = policy("egress: {allow: [x.test], deny: [{id: admin, host: x.test, query: {admin: '1'}}]}")
    assert answer(decide(given, url(target))) == (
        ("deny", "admin", True) if refused else ("allow", "egress.allow[0]", True)
    )


@pytest.mark.parametrize("condition", ["headers: {a: b}", "query: {a: b}", "git: {fetch: '**'}"])
def test_what_is_not_known_yet_makes_the_connection_be_looked_into_and_counts_against_the_request(
    condition: str,
) -> None:
    given = policy(f"egress: {{allow: [{{id: c, host: x.test, {condition}}}]}}")
    found = decide(given, connect("x.test"))
    assert answer(found) == ("allow", "c", True)
    assert found.inspect
    unknown = replace(url("https://x.test/"), headers=None, query=None)
    assert answer(decide(given, unknown)) == ("deny", "egress-default", True)
    if not condition.startswith("git"):
        closing = policy(f"egress: {{allow: [x.test], deny: [{{id: c, host: x.test, {condition}}}]}}")
        assert decide(closing, connect("x.test")).inspect
        assert answer(decide(closing, unknown)) == ("deny", "c", True)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.text(max_size=60))
def test_any_query_is_parameters_or_a_query_error(raw: str) -> None:
    try:
        pairs = parse_query(raw)
    except QueryError:
        return
    assert all("\0" not in name + value for name, value in pairs)


@given(TEXT.filter(lambda text: "\0" not in text), TEXT.filter(lambda text: "\0" not in text))
def test_a_parameter_is_read_as_it_was_encoded(name: str, value: str) -> None:
    encoded = "=".join("".join(f"%{byte:02X}" for byte in text.encode()) for text in (name, value))
    assert parse_query(encoded) == ((name, value),)


@given(st.lists(st.tuples(st.sampled_from(["a", "A", "b"]), st.sampled_from(["x", "y", "x,y", "X"])), max_size=4))
def test_what_no_value_of_a_field_fits_is_neither_allowed_nor_denied_by_it(pairs: list[tuple[str, str]]) -> None:
    condition = Condition("a", ("z",))
    for holds in (header_holds, query_holds):
        assert not holds(condition, tuple(pairs), allow=True)
        assert not holds(condition, tuple(pairs), allow=False)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["x", "y", "x,y", "x, x"])), max_size=4))
def test_what_an_allow_is_content_with_a_deny_of_the_same_condition_refuses(pairs: list[tuple[str, str]]) -> None:
    condition = Condition("a", ("x",))
    for holds in (header_holds, query_holds):
        if holds(condition, tuple(pairs), allow=True):
            assert holds(condition, tuple(pairs), allow=False)
