"""The compiled patterns answer, name by name, as the policy's own rule does for the whole path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.paths import protects
from agent.policy.watched import Patterns

HOME = "/home/session"
NAMES = st.sampled_from(["a", "b", ".git", "hooks", "config", ".env", ".env.local", "home", "session"])
PIECES = st.one_of(NAMES, st.sampled_from(["*", "**", ".env*", "*s", "a*b"]))
PATTERNS = st.builds(
    lambda lead, pieces: lead + "/".join(pieces),
    st.sampled_from(["", "/", "~/", "**/"]),
    st.lists(PIECES, min_size=1, max_size=4),
)


@given(st.lists(PATTERNS, max_size=4), st.lists(NAMES, min_size=1, max_size=6))
def test_walking_down_a_path_name_by_name_finds_what_is_protected(patterns: list[str], names: list[str]) -> None:
    compiled = Patterns(patterns, HOME)
    inside, at = compiled.holds("/"), "/"
    for name in names:
        inside = inside or compiled.completes(at, name)
        at = f"{at.rstrip('/')}/{name}"
        expected = any(protects(pattern, at, HOME) for pattern in patterns)
        assert inside == expected == compiled.holds(at)


@pytest.mark.parametrize(
    ("directory", "name", "found"),
    [
        ("/work/repo/.git", "hooks", True),
        ("/work/repo", "hooks", False),
        ("/work", ".env.production", True),
        (HOME, ".bashrc", True),
        ("/work", ".bashrc", False),
    ],
)
def test_a_name_completes_a_pattern_where_all_of_it_matches(directory: str, name: str, found: bool) -> None:
    patterns = Patterns([".git/hooks", ".env*", "~/.bashrc"], HOME)
    assert patterns.completes(directory, name) is found


def test_the_root_alone_is_everything() -> None:
    assert Patterns(["/"]).holds("/anything")
    assert Patterns(["/"]).completes("/", "x")
    assert not Patterns([]).holds("/anything")
