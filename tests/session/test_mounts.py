"""Mounts over protected places, made while somebody swaps what they are to lie on, in a mount namespace of its own."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.channel import Channel, pair
from agent.linux import namespaces
from agent.linux.syscalls import syscall
from agent.session import mounts
from agent.session.launch import Launch
from agent.session.plan import Hold
from tests.linux.forked import told
from tests.linux.swapper import swapping
from tests.session.test_plan import PLAN

pytestmark = pytest.mark.root

ROUNDS = 100
_MNT_DETACH = 2  # umount(2)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository that is to be held, another one that nobody protects, and a symlink to that."""
    for name in ("inside/repo/hooks", "outside/repo/hooks"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("text")
    (tmp_path / "planted").symlink_to("outside")
    (tmp_path / "empty").touch(0o444)
    return tmp_path


@contextmanager
def mover(moves: list[tuple[Path, Path]]) -> Iterator[Callable[[], None]]:
    """Somebody outside of the mount namespace, who makes the next of the moves whenever he is asked."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        try:
            for old, new in moves:
                if theirs.recv(1):
                    old.rename(new)
                    theirs.send(b"x")
        finally:
            os._exit(0)
    theirs.close()

    def ask() -> None:
        ours.send(b"x")
        assert ours.recv(1)

    try:
        yield ask
    finally:
        ours.close()
        os.waitpid(child, 0)


def written(path: Path) -> bool:
    try:
        (path / "new").touch()
    except OSError as error:
        assert error.errno == errno.EROFS
        return False
    return True


def test_a_protected_directory_that_is_swapped_with_a_symlink_is_held_or_told_and_nothing_else_is(tree: Path) -> None:
    held = ((f"{tree}/inside/repo", Hold.PIN), (f"{tree}/inside/repo/hooks", Hold.READ_ONLY))

    def piece() -> list[list[object]]:
        before, found = set(namespaces.mount_points("/")), list[list[object]]()
        for _ in range(ROUNDS):
            with swapping(tree / "inside", tree / "planted"):
                holding = mounts.Holding(f"{tree}/empty")
                holding.lay(held)
            lost = holding.lost()
            holding.close()
            inside = tree / ("planted" if (tree / "inside").is_symlink() else "inside")
            found.append([lost, written(inside / "repo/hooks"), written(tree / "outside/repo/hooks")])
            for point in sorted(set(namespaces.mount_points("/")) - before, reverse=True):
                syscall("umount2", os.fsencode(point), _MNT_DETACH)
        return found

    for lost, inside, outside in told(piece):
        assert outside, "what lies outside of the tree was mounted over"
        assert inside <= (held[1][0] in lost), "what is not held was not told"


def test_a_place_that_is_moved_after_it_was_held_is_told_and_held_where_it_is_too(tree: Path) -> None:
    """The directory that it is moved into is held as well: another mount, in which nothing lies on it."""
    (tree / "other").mkdir()
    pins = [(f"{tree}/{name}", Hold.PIN) for name in ("inside", "inside/repo", "other")]
    was, now = f"{tree}/inside/repo/hooks", f"{tree}/other/repo/hooks"

    def piece() -> list[object]:
        holding = mounts.Holding(f"{tree}/empty")
        holding.lay([*pins, (was, Hold.READ_ONLY)])
        found: list[object] = [holding.lost()]
        move()
        found += [holding.lost(), written(Path(now))]
        holding.hold([(f"{tree}/other/repo", Hold.PIN), (now, Hold.READ_ONLY)])
        found += [written(Path(now)), holding.opened()]
        move()
        return [*found, written(Path(was)), holding.opened()]

    there = (tree / "inside/repo", tree / "other/repo")
    with mover([there, there[::-1]]) as move:
        assert told(piece) == [[], [f"{tree}/inside/repo", was], True, False, [], False, []]


def test_what_takes_the_place_of_a_held_directory_is_told_as_open_and_held(tree: Path) -> None:
    place = f"{tree}/inside/repo/hooks"

    def piece() -> list[object]:
        holding = mounts.Holding(f"{tree}/empty")
        holding.lay([(f"{tree}/inside/repo", Hold.PIN), (place, Hold.READ_ONLY)])
        move()
        move()
        return [written(Path(place)), holding.lost(), holding.opened(), written(Path(place))]

    moves = [(tree / "inside/repo", tree / "away"), (tree / "outside/repo", tree / "inside/repo")]
    with mover(moves) as move:
        assert told(piece) == [True, [f"{tree}/inside/repo", place], [], False]


def test_a_socket_whose_place_was_taken_by_something_else_covers_nothing(tree: Path) -> None:
    """As another session could do it: the path that its socket was bound to now leads to a directory, or to a file."""
    victim, paths = (
        tree / "outside/repo/hooks/file",
        [tree / "to-file", tree / "to-directory", tree / "circle", tree / "socket"],
    )
    for path, target in zip(paths, (victim, tree / "outside", tree / "circle"), strict=False):
        path.symlink_to(target)
    ours, theirs = pair()

    def piece() -> list[object]:
        Channel(ours).send({"type": "hold", "places": []})
        Channel(ours).send({"type": "hold", "places": []})
        plan = replace(
            PLAN, mounts=True, pids=None, hold=(), hide=(), sockets=tuple(map(str, paths)), empty_run=False, bind=(),
            empty_file="/dev/null", write=("/",),
        )  # fmt: skip
        Launch(Channel(theirs), Channel(theirs), plan).cover_private_paths()
        return [victim.read_text(), sorted(os.listdir(tree / "outside")), (tree / "socket").is_socket()]

    with ours, theirs, socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tree / "socket"))
        assert told(piece) == ["text", ["repo"], False]
