"""The section `control`: who has which role, what layers do to it, and what is refused of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.control_roles import Role, listed, role_of
from tests.policy.given import policy, problems

BASE = "control: {admin: [ada], operator: [oncall, 'group:sre'], viewer: [dashboard]}"


@pytest.mark.parametrize(
    ("layers", "names", "role"),
    [
        (("version: 1",), ("ada",), None),
        ((BASE,), ("ada",), "admin"),
        ((BASE,), ("group:ada",), None),
        ((BASE,), ("oncall",), "operator"),
        ((BASE,), ("eve", "group:sre"), "operator"),
        ((BASE,), ("dashboard", "group:sre"), "operator"),
        ((BASE,), ("eve", "group:staff"), None),
        ((BASE,), (), None),
        ((BASE, "egress:"), ("ada",), "admin"),
        ((BASE, "control: {viewer: [ada]}"), ("ada",), "viewer"),
        ((BASE, "control: {viewer: [ada]}"), ("oncall",), None),
        ((BASE, "control:"), ("ada",), None),
        ((BASE, "control: {admin: [dashboard]}"), ("dashboard",), "viewer"),
        (("egress:", BASE), ("ada",), None),
    ],
)
def test_a_caller_has_the_lowest_role_of_all_layers(
    layers: tuple[str, ...], names: tuple[str, ...], role: str | None
) -> None:
    assert role_of(policy(*layers), names) == role


NAMES = ["ada", "bob", "group:sre"]
LAYER = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(list(Role)))


@given(st.lists(LAYER, min_size=1, max_size=3), st.lists(st.sampled_from(NAMES), unique=True))
def test_a_further_layer_never_gives_more(layers: list[dict[str, Role]], names: list[str]) -> None:
    texts = [
        "control: {" + ", ".join(f"{role}: {[name for name in given if given[name] is role]}" for role in Role) + "}"
        for given in layers
    ]
    fewer, more = role_of(policy(*texts), names), role_of(policy(texts[0]), names)
    assert fewer is None or (more is not None and more.may(fewer))


def test_roles_are_ordered() -> None:
    assert [[one.may(other) for other in Role] for one in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("control: {admin: [ada], viewer: [ada]}", "ada is viewer and admin"),
        ("control: {root: [ada]}", "unknown key 'root'"),
        ("control: {admin: ['ada eve']}", "account's name"),
        ("control: {admin: ada}", "list"),
    ],
)
def test_a_mistake_in_the_section_is_refused(text: str, problem: str) -> None:
    assert problem in " ".join(problems(text))


def test_the_digest_changes_with_a_role_and_not_with_the_order() -> None:
    first = policy("control: {admin: [ada, bob]}").digest
    assert policy("control: {admin: [bob, ada]}").digest == first
    assert policy("control: {operator: [ada, bob]}").digest != first
    assert listed(policy(BASE)) == ("ada", "oncall", "group:sre", "dashboard")
