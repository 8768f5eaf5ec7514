"""Protected names among real ones: what `decide` says of them, and what is to be reserved."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.daemon.policies.store import read_policy
from agent.policy.load import LayerSource, load_policy
from agent.policy.paths import holds_protected, may_hold_protected, may_protect, protects
from agent.policy.protection import Protected

HOME = "/home/s"
PATTERNS = ["*.git/hooks/**", ".env", ".a/b/c", "~/.rc", "~/.dir/**", "/w/keep", ".git/modules/**/hooks", "x*y"]
STARRED = [".a/*/c", ".a/**/*/c", "/w/*/b", "b/*", "/*/p", "~/.dir/*/b"]


def protected(patterns: list[str], home: str = HOME) -> Protected:
    listed = ", ".join(f"'{pattern}'" for pattern in patterns)
    text = f"version: 1\npaths: {{write: [/w], protect: [{listed}]}}\n"
    return Protected(load_policy([LayerSource("l", (("p.yaml", text),))], {}), home)


def names(found: object) -> list[tuple[str, bool]]:
    return sorted((entry.path, entry.directory) for entry in found)  # type: ignore[attr-defined]


def test_names_that_are_spelled_out_are_reserved_from_the_root_and_the_home() -> None:
    expected = [("/home/s/.dir", True), ("/home/s/.rc", False), ("/w/keep", False)]
    assert names(protected(PATTERNS).fixed()) == expected


def test_names_for_any_depth_are_reserved_at_a_top_unless_they_hold_a_wildcard() -> None:
    assert names(protected(PATTERNS).at_top("/w/p")) == [("/w/p/.a/b/c", False), ("/w/p/.env", False)]


@pytest.mark.parametrize(
    ("holder", "expected"),
    [
        ("/w/p/.git", [("/w/p/.git/hooks", True)]),
        ("/w/bare.git", [("/w/bare.git/hooks", True)]),
        ("/w/.a", [("/w/.a/b/c", False)]),
        ("/w/.a/b", [("/w/.a/b/c", False)]),
        ("/w/b", []),
        ("/w", []),
    ],
)
def test_names_are_reserved_inside_a_directory_that_a_pattern_leads_through(
    holder: str, expected: list[tuple[str, bool]]
) -> None:
    assert names(protected(PATTERNS).inside(holder)) == expected


def test_a_policy_without_protected_places_has_none() -> None:
    none = protected([])
    assert not none
    assert not none.speaks_of(".env")
    assert none.rule_of("/w/.env") is None


def test_a_star_between_two_names_speaks_of_what_lies_below_the_first_one_only() -> None:
    found = protected([".devcontainer/*/devcontainer.json", ".env"])
    spoken = ["/w/.devcontainer", "/w/.devcontainer/x", "/w/a/devcontainer.json", "/w/.env", "/.env"]
    assert [path for path in (*spoken, "/w/x", "/x", "/w/.devcontainer/x/y") if found.speaks_of(path)] == spoken


def test_the_shipped_places_speak_of_no_ordinary_name() -> None:
    """Else each file of a workspace is asked about by every pattern, and a start takes seconds."""
    found = Protected(read_policy([Path(__file__).parents[2] / "policies"]), HOME)
    assert found.speaks_of("/w/.git")
    assert not any(
        map(found.speaks_of, ("/w", "/w/src", "/w/src/main.py", "/w/node_modules/m/index.js", "/w/README.md"))
    )


NAMES = "w p home s .rc .dir .git x.git hooks .env .a b c xy xzy keep modules"
PARTS = st.sampled_from(NAMES.split())
PATHS = st.lists(PARTS, min_size=1, max_size=6).map(lambda parts: "/" + "/".join(parts))


@given(PATHS, st.lists(st.sampled_from([*PATTERNS, *STARRED]), unique=True))
def test_the_quick_answer_never_overlooks_a_place_that_decide_protects(path: str, patterns: list[str]) -> None:
    found = protected(patterns)
    if any(protects(pattern, path, HOME) for pattern in patterns):
        assert may_protect(tuple(patterns), path, HOME)
    if any(holds_protected(pattern, path, HOME) for pattern in patterns):
        assert may_hold_protected(tuple(patterns), path, HOME)
    place = any(protects(pattern, path, HOME) for pattern in patterns)
    above = path.rpartition("/")[0]
    first = place and not any(protects(pattern, above, HOME) for pattern in patterns)  # a search ends at the place
    holder = any(holds_protected(pattern, path, HOME) for pattern in patterns)
    assert (found.rule_of(path) is not None) is place
    assert found.holds(path) is holder
    if first or holder:
        assert found.speaks_of(path)
