"""Places are opened exactly as they are named, also while somebody else swaps what is on the way as fast as he can."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.linux import exact
from agent.linux.openat2 import directory_without_links
from tests.linux.swapper import swapping

ROUNDS = 500
PATIENCE_S = 200.0
NOBODY = 65534
NAMES = ("a", "b", "link", "up", "round", "..", ".", "absolute", "gone")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What is `inside` may be opened, `outside` may not."""
    for name in ("inside/place", "outside/place", "a/b/a", "b"):
        (tmp_path / name).mkdir(parents=True)
    for name, target in (("a/link", "b"), ("a/up", "../b"), ("b/round", "../a"), ("a/absolute", f"{tmp_path}/b")):
        (tmp_path / name).symlink_to(target)
    return tmp_path


def inode(descriptor: int) -> int:
    try:
        return os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)
@given(names=st.lists(st.sampled_from(NAMES), max_size=7))
def test_where_a_path_leads_is_where_the_kernel_leads(tree: Path, names: list[str]) -> None:
    path = "/".join((str(tree), *names))
    try:
        expected = os.stat(path).st_ino
    except OSError as error:
        with pytest.raises(OSError, match=os.strerror(error.errno or 0)):
            exact.follow(path, None)
        return
    way = exact.follow(path, None)
    assert (inode(way.place), way.real) == (expected, os.path.realpath(path))
    assert inode(exact.place(way.real)) == expected
    assert all(os.readlink(link) == target for link, target in way.links)


def test_a_circle_of_symlinks_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="symbolic links") as raised:
        exact.follow(f"{tmp_path}/circle/x", None)
    assert raised.value.errno == errno.ELOOP


def test_a_symlink_of_a_distrusted_account_is_not_followed_and_is_named(tree: Path) -> None:
    with pytest.raises(exact.Planted) as raised:
        exact.follow(f"{tree}/a/link/x", os.getuid())
    assert raised.value.filename == f"{tree}/a/link"
    os.close(exact.follow(f"{tree}/a/link", os.getuid() + 1).place)


def opened_while_swapped(tree: Path, way: Callable[[str], int], refusals: tuple[type[Exception], ...]) -> set[int]:
    """What was opened at the name while a symlink that leads outside came and went there; so often that both were seen,
    by the refusals or by the kernel's own way."""
    (tree / "planted").symlink_to("outside")
    path, seen, refused = f"{tree}/inside/place", set(), 0
    outside = (tree / "outside/place").stat().st_ino
    deadline, rounds = time.monotonic() + PATIENCE_S, 0
    with swapping(tree / "inside", tree / "planted"):
        while rounds < ROUNDS or not (seen and (refused or outside in seen)):
            rounds += 1
            assert time.monotonic() < deadline
            try:
                seen.add(inode(way(path)))
            except refusals:
                refused += 1
    return seen


def plainly(path: str) -> int:
    return os.open(path, exact.DIRECTORY)


def trusting_others(path: str) -> int:
    return exact.follow(path, os.getuid() + 1).place


@pytest.mark.parametrize("way", [plainly, trusting_others])
def test_who_opens_it_by_its_path_is_led_outside(tree: Path, way: Callable[[str], int]) -> None:
    outside = (tree / "outside/place").stat().st_ino
    assert outside in opened_while_swapped(tree, way, (FileNotFoundError,))


def by_place(path: str) -> int:
    return exact.place(path)


def by_directory(path: str) -> int:
    return exact.place(path, exact.DIRECTORY)


def by_openat2(path: str) -> int:
    return directory_without_links(os.fsencode(path))


def by_trust(path: str) -> int:
    return exact.follow(path, os.getuid()).place


@pytest.mark.parametrize("way", [by_place, by_directory, by_openat2, by_trust])
def test_a_directory_that_is_swapped_with_a_symlink_never_leads_outside(tree: Path, way: Callable[[str], int]) -> None:
    inside = (tree / "inside/place").stat().st_ino
    assert opened_while_swapped(tree, way, (NotADirectoryError, exact.Planted)) == {inside}


@pytest.mark.root
def test_only_what_was_just_made_is_given_away(tree: Path) -> None:
    """Somebody puts another directory of root's, which he may rename and not open, in its place."""
    theirs, at = (tree / "outside").stat().st_ino, os.open(tree, exact.DIRECTORY)
    with swapping(tree / "made", tree / "outside"):
        for _ in range(4 * ROUNDS):
            with suppress(OSError):
                os.rmdir("made", dir_fd=at)
            with suppress(FileExistsError, FileNotFoundError):
                assert inode(exact.make_directory("made", at, 0o500, (NOBODY, NOBODY))) != theirs
    os.close(at)
    found = {entry.stat().st_ino: entry.stat().st_uid for entry in os.scandir(tree)}
    assert found[theirs] == 0


def test_a_directory_is_made_and_given_with_its_mode(tree: Path) -> None:
    at = os.open(tree, exact.DIRECTORY)
    made = exact.make_directory("made", at, 0o700, (os.getuid(), os.getgid()))
    assert inode(made) == (tree / "made").stat().st_ino
    assert (tree / "made").stat().st_mode & 0o7777 == 0o700
    with pytest.raises(FileExistsError):
        exact.make_directory("made", at, 0o700)
    os.close(at)
