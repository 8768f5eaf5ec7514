"""What is looked for again while protected places are held, of real trees: how often, and what is said at the end."""

from __future__ import annotations

import os
import time
from itertools import count
from pathlib import Path

import pytest

from agent.daemon.protection.protecting import Protection
from agent.daemon.protection.rounds import AGAIN, ROUNDS, Rounds
from agent.session.plan import Hold


class Tree:
    """Places below a directory; each is there or not, and a look finds those that are."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.looks = 0
        for name in ("a/hooks", "b", "c"):
            (root / name).mkdir(parents=True)

    def look(self) -> Protection:
        self.looks += 1
        return Protection(held=tuple((str(path), Hold.READ_ONLY) for path in sorted(self.root.glob("*/hooks"))))

    def path(self, name: str) -> str:
        return str(self.root / name)

    def move(self, old: str, new: str) -> None:
        """Until the kernel's clock, which has ticks, dates it after this call."""
        began = time.time_ns()
        (self.root / old).rename(self.root / new)
        while (self.root / new).stat().st_ctime_ns <= began:
            (self.root / new).rename(self.root / old)
            (self.root / old).rename(self.root / new)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_where_nothing_changes_one_more_look_is_all(tree: Tree) -> None:
    rounds = Rounds(tree.look)
    assert (rounds.more([]), rounds.weak, tree.looks) == ([], (), 2)


def test_what_was_moved_is_held_there_and_where_it_was_and_said(tree: Tree) -> None:
    rounds = Rounds(tree.look)
    tree.move("a/hooks", "b/hooks")
    both = [(tree.path(name), Hold.READ_ONLY) for name in ("b/hooks", "a/hooks")]
    assert rounds.more([tree.path("a/hooks")]) == both
    while rounds.more([tree.path("a/hooks")]):
        pass
    (weak,) = rounds.weak
    assert weak.startswith(f"{tree.path('b/hooks')} is protected, and another process moved")


def test_what_was_moved_to_and_fro_between_two_looks_is_said(tree: Tree) -> None:
    rounds = Rounds(tree.look)
    tree.move("a/hooks", "b/hooks")
    tree.move("b/hooks", "a/hooks")
    assert rounds.more([]) == []
    assert rounds.weak != ()


def test_a_place_that_is_made_meanwhile_is_held_and_nothing_is_said(tree: Tree) -> None:
    rounds = Rounds(tree.look)
    (tree.root / "b/hooks").mkdir()
    (tree.root / "b/hooks/file").touch()
    assert rounds.more([]) == [(tree.path("b/hooks"), Hold.READ_ONLY)]
    assert (rounds.more([]), rounds.weak) == ([], ())
    assert dict(rounds.protection.held).keys() == {tree.path("a/hooks"), tree.path("b/hooks")}


def test_a_place_that_is_deleted_is_not_said_and_not_waited_for_without_end(tree: Tree) -> None:
    rounds = Rounds(tree.look)
    os.rmdir(tree.path("a/hooks"))
    asked = sum(1 for _ in iter(lambda: rounds.more([tree.path("a/hooks")]), []))
    assert asked < AGAIN
    assert rounds.weak == ()


def test_a_place_that_is_never_held_where_it_is_ends_the_rounds_and_is_said(tree: Tree) -> None:
    rounds, last = Rounds(tree.look), "a/hooks"
    for number in count():
        (tree.root / f"new{number}").mkdir()
        tree.move(last, last := f"new{number}/hooks")
        if not rounds.more([]):
            break
    assert number == ROUNDS
    assert rounds.weak[0].startswith(f"{tree.path(last)} is protected, and was moved or made while")
