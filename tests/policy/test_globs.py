"""Wildcards: what one stands for, and that matching agrees with a regular expression."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.globs import match_prefix, match_segment, match_segments, may_contain


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("a", "a", True),
        ("a", "A", False),
        ("*", "", True),
        ("*", "anything", True),
        ("a*", "abc", True),
        ("*c", "abc", True),
        ("a*c", "ac", True),
        ("aa*aa", "aaa", False),
        ("a*b*c", "aXbYc", True),
        ("a*b*c", "aXcYb", False),
        ("?", "x", False),
        ("[x]", "x", False),
        ("?", "?", True),
    ],
)
def test_a_star_is_any_run_inside_a_segment_and_nothing_else_is_special(
    pattern: str, text: str, expected: bool
) -> None:
    assert match_segment(pattern, text) is expected


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("simple/**", "simple/x", True),
        ("simple/**", "simple/x/y", True),
        ("simple/**", "simple", False),
        ("**", "x", True),
        ("**/x", "x", True),
        ("**/x", "a/b/x", True),
        ("**/x", "a/b/xy", False),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/*/b", "a/b", False),
        ("a/*/b", "a/x/y/b", False),
        ("**/a/**/b", "x/a/y/a/z/b", True),
    ],
)
def test_two_stars_are_any_number_of_segments_and_at_least_one_at_the_end(
    pattern: str, path: str, expected: bool
) -> None:
    assert match_segments(pattern.split("/"), path.split("/")) is expected


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("**/.ssh/**", "home/x/.ssh", True),
        ("**/.ssh/**", "home/x/.ssh/id", True),
        ("**/.ssh/**", "home/x/.sshd", False),
        ("**/.env", ".env/below", True),
        ("a/b", "a/b/c", True),
        ("a/b", "x/a/b", False),
    ],
)
def test_a_place_stands_for_itself_and_everything_below(pattern: str, path: str, expected: bool) -> None:
    assert match_prefix(pattern.split("/"), path.split("/")) is expected


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("**/.git/hooks", "work/x/.git", True),
        ("**/.git/hooks", "work/x/.github", False),
        ("**/.git/hooks", "work/x/.git/hooks", False),
        ("**/.env", "work/x", False),
        ("a/b/c", "a/b", True),
        ("a/b/c", "a", True),
        ("a/b/c", "x/a", False),
    ],
)
def test_a_directory_may_hold_a_place_by_the_first_names_of_its_pattern(
    pattern: str, path: str, expected: bool
) -> None:
    assert may_contain(pattern.split("/"), path.split("/")) is expected


@given(st.text("ab*", max_size=8), st.text("abc", max_size=10))
def test_a_segment_matches_as_the_equal_regular_expression_does(pattern: str, text: str) -> None:
    expression = "".join(".*" if character == "*" else re.escape(character) for character in pattern)
    assert match_segment(pattern, text) is (re.fullmatch(expression, text) is not None)


@given(st.lists(st.sampled_from(["a", "b", "**"]), min_size=1, max_size=6), st.lists(st.sampled_from("ab"), max_size=8))
def test_segments_match_as_a_search_by_trying_everything_does(pattern: list[str], path: list[str]) -> None:
    assert match_segments(pattern, path) is _try_everything(pattern, path)


def _try_everything(pattern: list[str], path: list[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] != "**":
        return bool(path) and pattern[0] == path[0] and _try_everything(pattern[1:], path[1:])
    least = 1 if len(pattern) == 1 else 0
    return any(_try_everything(pattern[1:], path[taken:]) for taken in range(least, len(path) + 1))


@given(
    st.lists(st.sampled_from(["a", "b", "a*", "**"]), max_size=5),
    st.lists(st.sampled_from(["a", "b", "ab"]), max_size=5),
)
def test_a_place_is_matched_with_all_that_is_below_it(pattern: list[str], segments: list[str]) -> None:
    place = list(pattern)
    while place and place[-1] == "**":
        place.pop()
    lengths = [length for length in range(1, len(segments) + 1) if match_segments(place, segments[:length])]
    assert match_prefix(pattern, segments) is bool(lengths or not place)
