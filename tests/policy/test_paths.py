"""Trees and protected places."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.paths import below, covers, holds_protected, intersection, is_normal, outermost, protects

TREES = st.lists(st.lists(st.sampled_from("ab"), max_size=3).map(lambda parts: "/" + "/".join(parts)), max_size=4)
PATHS = st.lists(st.sampled_from("abc"), max_size=5).map(lambda parts: "/" + "/".join(parts))


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        ("/tmp", "/tmp", True),
        ("/tmp", "/tmp/x/y", True),
        ("/tmp", "/tmpfs", False),
        ("/tmp/x", "/tmp", False),
        ("/", "/anything", True),
        ("/", "/", True),
        ("/", "relative", False),
    ],
)
def test_a_tree_covers_itself_and_what_is_below_by_whole_names(root: str, path: str, expected: bool) -> None:
    assert covers(root, path) is expected


def test_below_leaves_the_root_out() -> None:
    assert below("/tmp", "/tmp/x")
    assert not below("/tmp", "/tmp")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", True),
        ("/a/b", True),
        ("", False),
        ("a", False),
        ("/a/", False),
        ("//a", False),
        ("/a/../b", False),
        ("/./a", False),
        ("/a\0b", False),
        ("/a/..b", True),
    ],
)
def test_a_normal_path_is_absolute_without_detours(path: str, expected: bool) -> None:
    assert is_normal(path) is expected


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("**/.ssh/**", "/home/x/.ssh", True),
        ("**/.ssh/**", "/home/x/.ssh/id_ed25519", True),
        (".ssh", "/.ssh", True),
        (".git/hooks", "/w/p/.git/hooks/pre-commit", True),
        (".git/hooks", "/w/p/.git/config", False),
        (".git/hooks", "/w/p/git/hooks", False),
        (".env", "/w/p/.env", True),
        (".env", "/w/p/.environment", False),
        (".env*", "/w/p/.env.local", True),
        ("/w/*/secret", "/w/p/secret/x", True),
        ("/w/*/secret", "/x/w/p/secret", False),
    ],
)
def test_a_protected_place_holds_at_any_depth_unless_it_is_absolute(pattern: str, path: str, expected: bool) -> None:
    assert protects(pattern, path) is expected


@pytest.mark.parametrize(
    ("home", "path", "expected"),
    [
        ("/home/s", "/home/s/.bashrc", True),
        ("/home/s", "/w/.bashrc", False),
        ("/home/s", "/home/s/w/.bashrc", False),
        ("", "/w/.bashrc", True),  # not known: anywhere
        ("/", "/w/.bashrc", True),
    ],
)
def test_a_place_of_the_home_is_protected_there_only(home: str, path: str, expected: bool) -> None:
    assert protects("~/.bashrc", path, home) is expected
    assert holds_protected("~/.bashrc/x", path, home) is expected


def test_a_directory_that_holds_a_protected_place_by_name_is_recognised() -> None:
    assert holds_protected(".git/hooks", "/w/p/.git")
    assert not holds_protected(".git/hooks", "/w/p")
    assert holds_protected("/w/p/secret", "/w/p")
    assert not holds_protected("/w/p/secret", "/x/w/p")


@given(TREES, TREES, PATHS)
def test_an_intersection_covers_exactly_what_both_cover(left: list[str], right: list[str], path: str) -> None:
    both = any(covers(root, path) for root in left) and any(covers(root, path) for root in right)
    assert any(covers(root, path) for root in intersection(left, right)) is both


@given(TREES, PATHS)
def test_the_outermost_trees_cover_the_same_and_do_not_overlap(trees: list[str], path: str) -> None:
    kept = outermost(trees)
    assert any(covers(root, path) for root in kept) is any(covers(root, path) for root in trees)
    assert not any(covers(a, b) for a in kept for b in kept if a != b)
