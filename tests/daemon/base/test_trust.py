"""Nothing that a session's account left behind leads the agent, which is root, to another place."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.daemon.base.spec import User
from agent.daemon.base.trust import make_directory, movable, planted
from agent.linux import exact
from tests.conftest import require
from tests.linux.swapper import swapping

NOBODY = User("nobody", 65534, 65534, "/", "/bin/sh")
PATIENCE_S = 200.0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory of root's that everybody can reach, with one of the user's in it."""
    require(os.geteuid() == 0, "ownership needs root")
    directory = Path("/tmp") / f"trust-{os.getpid()}-{tmp_path.name}"
    directory.mkdir(mode=0o755)
    (directory / "theirs").mkdir()
    os.chown(directory / "theirs", NOBODY.uid, NOBODY.gid)
    yield directory
    shutil.rmtree(directory)


def link(path: Path, target: str, uid: int) -> None:
    path.symlink_to(target)
    os.chown(path, uid, uid, follow_symlinks=False)


def test_a_link_of_the_users_is_found_wherever_it_lies_on_the_way(place: Path) -> None:
    link(place / "theirs" / "trap", "/etc", NOBODY.uid)
    link(place / "roots", "theirs/trap", 0)
    link(place / "fine", "theirs", 0)
    trap = str(place / "theirs" / "trap")
    assert planted(trap, NOBODY) == trap
    assert planted(f"{trap}/new/deep", NOBODY) == trap
    assert planted(f"{place}/roots/x", NOBODY) == trap
    assert planted(f"{place}/fine/../theirs/trap", NOBODY) == trap
    assert planted(f"{place}/fine/x", NOBODY) is None
    assert planted("/bin/sh", NOBODY) is None
    assert planted("/no/such/place", NOBODY) is None


def test_links_without_an_end_are_an_error_and_not_a_loop(place: Path) -> None:
    link(place / "round", "round", 0)
    with pytest.raises(OSError, match="too many symbolic links"):
        planted(str(place / "round"), NOBODY)


@pytest.mark.parametrize(
    ("mode", "owner", "child", "moves"),
    [
        (0o755, 0, 0, False),
        (0o755, NOBODY.uid, 0, True),  # the directory's owner moves what he likes
        (0o555, NOBODY.uid, 0, True),  # and changes its mode first
        (0o777, 0, 0, True),
        (0o1777, 0, 0, False),  # sticky: others' names stay
        (0o1777, 0, NOBODY.uid, True),
        (0o1777, NOBODY.uid, 0, True),
    ],
)
def test_who_may_rename_a_name_on_the_way(place: Path, mode: int, owner: int, child: int, moves: bool) -> None:
    parent = place / "parent"
    (parent / "child" / "log").mkdir(parents=True)
    os.chown(parent / "child", child, child)
    (parent / "child").chmod(0o700 if child == 0 else 0o000)
    os.chown(parent, owner, owner)
    parent.chmod(mode)
    assert movable(str(parent / "child"), NOBODY) == (str(parent / "child") if moves else None)


def test_a_writable_group_counts_where_it_is_the_users(place: Path) -> None:
    (place / "shared" / "log").mkdir(parents=True)
    os.chown(place / "shared", 0, NOBODY.gid)
    (place / "shared").chmod(0o775)
    assert movable(str(place / "shared" / "log"), NOBODY) == str(place / "shared" / "log")
    os.chown(place / "shared", 0, 0)
    assert movable(str(place / "shared" / "log"), NOBODY) is None


def test_a_directory_is_made_with_its_parents_and_only_the_last_is_given_away(place: Path) -> None:
    made = place / "one" / "two" / "three"
    make_directory(str(made), NOBODY)
    assert [path.stat().st_uid for path in (made, made.parent, made.parent.parent)] == [NOBODY.uid, 0, 0]
    with pytest.raises(FileExistsError):
        make_directory(str(made), NOBODY)


def test_a_dangling_link_in_the_place_of_the_new_directory_is_not_followed(place: Path) -> None:
    target = place / "elsewhere"
    link(place / "theirs" / "new", str(target), NOBODY.uid)
    with pytest.raises(OSError, match="exists"):
        make_directory(str(place / "theirs" / "new"), NOBODY)
    assert not target.exists()


def test_a_way_that_the_user_swaps_meanwhile_leads_to_nothing_outside(place: Path) -> None:
    """A grant's root is to be made below a directory of his, in whose place a symlink comes and goes."""
    (place / "theirs/inside").mkdir()
    (place / "outside").mkdir()
    link(place / "theirs/planted", str(place / "outside"), NOBODY.uid)
    os.chown(place / "theirs/inside", NOBODY.uid, NOBODY.gid)
    made, refused, deadline = 0, 0, time.monotonic() + PATIENCE_S
    with swapping(place / "theirs/inside", place / "theirs/planted", NOBODY.uid):
        while not (made > 50 and refused):
            assert time.monotonic() < deadline
            try:
                make_directory(f"{place}/theirs/inside/new{made}/deep", NOBODY)
                made += 1
            except (exact.Planted, FileExistsError):
                refused += 1
    assert os.listdir(place / "outside") == []
    inside = place / "theirs" / ("planted" if (place / "theirs/inside").is_symlink() else "inside")
    assert {path.stat().st_uid for path in inside.glob("*/deep")} == {NOBODY.uid}
