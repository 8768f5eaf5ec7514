"""A search that remembers an earlier one finds what one that remembers nothing finds, whatever was changed between."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.daemon.protection import searching
from agent.daemon.protection.searching import Bounds, Found, Memory, search
from agent.values import replace
from tests.policy.test_protection import protected

PATTERNS = protected([".git/hooks/**", ".env"], "/nowhere")
NAMES = ("a", "b", "a/c", "a/c/d", "b/e")
LAST = ("x", ".env", ".git/hooks", ".git")


@dataclass(frozen=True)
class Change:
    """One thing that another process does in a tree."""

    how: str
    one: str
    other: str

    def make(self, root: Path) -> None:
        one, other = root / self.one, root / self.other
        with suppress(OSError, shutil.Error):
            match self.how:
                case "move":
                    one.rename(other)
                case "remove":
                    shutil.rmtree(one)
                case "make":
                    other.mkdir(parents=True)
                case "link":
                    one.symlink_to(other)
                case "name":
                    os.link(one, other)


PATHS = st.tuples(st.sampled_from(NAMES), st.sampled_from(("", *LAST))).map("/".join).map(lambda path: path.rstrip("/"))
HOW = st.sampled_from(("move", "remove", "make", "link", "name"))
CHANGES = st.lists(st.builds(Change, HOW, PATHS, PATHS), max_size=5)


def plain(found: Found) -> Found:
    """But for how it was found."""
    return replace(found, anew=False)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CHANGES, CHANGES)
def test_it_finds_what_a_search_without_memory_finds(tmp_path: Path, first: list[Change], second: list[Change]) -> None:
    root = tmp_path / "root"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("a/c/d/.git/hooks", "b/e"):
        (root / name).mkdir(parents=True)
    (root / "a/c/.env").touch()
    memory: Memory = {}
    for changes in (first, second):
        for change in changes:
            change.make(root)
        assert plain(search([str(root)], PATTERNS, Bounds(), memory)) == plain(search([str(root)], PATTERNS, Bounds()))


def test_what_has_not_changed_for_a_while_is_not_listed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "SETTLED_NS", -(10**18))  # as if it had been long ago
    for name in ("a/.git/hooks", "b/c"):
        (tmp_path / name).mkdir(parents=True)
    memory: Memory = {}
    first = search([str(tmp_path)], PATTERNS, Bounds(), memory)
    again = search([str(tmp_path)], PATTERNS, Bounds(), memory)
    assert (first.anew, again.anew, plain(again)) == (True, False, plain(first))
    assert search([str(tmp_path)], PATTERNS, Bounds(entries=3), memory).cut is not None
