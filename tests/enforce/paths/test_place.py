"""Where a path leads is where the kernel opens, or makes, a file for that process; and finding it is bounded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.enforce.memory import Task, Unreadable
from agent.enforce.paths.place import Place, locate
from agent.enforce.walk import MAX_NAMES

NAMES, HOLDERS = st.sampled_from(["b", "c", "d"]), st.sampled_from(["", "a/", "a/b/", "c/"])
PARTS = st.lists(st.sampled_from(["a", "b", "c", "d", ".", "..", ""]), min_size=1, max_size=5).map("/".join)
NAMED = st.builds(lambda start, holder, name, end: start + holder + name + end, st.sampled_from(["/", "../"]), HOLDERS,
                  NAMES, st.sampled_from(["", "", "", "/", "/d", "/../d"]))  # fmt: skip
PATH = NAMED | NAMED | PARTS.map(lambda path: path or ".")
LINKS = st.lists(st.tuples(HOLDERS, NAMES, PATH), min_size=1, max_size=8)
LONGEST = 4095
"""Bytes of a path or of what a link says (PATH_MAX, linux/limits.h, counts the NUL)."""


class Rooted:
    """A process whose root is `tree`, in its directory ``a``, which opens what it is told to, making it if need be."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        (tree / "a").mkdir()
        ask, self.asking = os.pipe()
        self.hearing, answer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.asking)
                os.chroot(tree)
                os.chdir("/a")
                os.write(answer, b"there")
                while order := os.read(ask, 1 << 13):
                    os.write(answer, str(self._open(order)).encode())
            finally:
                os._exit(0)
        os.close(ask)
        os.close(answer)
        assert os.read(self.hearing, 100) == b"there"

    def _open(self, order: bytes) -> int:
        follow, path = order[:1], order[1:]
        for flags in (os.O_CREAT, 0):  # a directory is opened, and not made
            try:
                return os.open(path, flags | (0 if follow == b"y" else os.O_NOFOLLOW), 0o600)
            except OSError:
                continue
        return -1

    def opened(self, path: str, *, follow: bool = True) -> str | None:
        """What the kernel opens or makes for it, None where it refuses."""
        os.write(self.asking, b"ny"[follow : follow + 1] + os.fsencode(path))
        answer = int(os.read(self.hearing, 100))
        return None if answer < 0 else os.readlink(f"/proc/{self.pid}/fd/{answer}")

    def found(self, path: str, *, follow: bool) -> Place | OSError:
        """What the audit says of it."""
        with Task(self.pid) as task:
            try:
                return locate(task, task.cwd, os.fsencode(path), follow=follow)
            except OSError as error:
                return error

    def build(self, links: list[tuple[str, str, str]]) -> None:
        for entry in (*(self.tree / "a").iterdir(), *self.tree.iterdir()):
            if entry.is_symlink() or not entry.is_dir():
                entry.unlink()
            elif entry.name != "a" or entry.parent != self.tree:
                shutil.rmtree(entry)
        (self.tree / "a" / "b").mkdir()
        (self.tree / "c").mkdir()
        for where, name, target in links:
            if not os.path.lexists(self.tree / where / name):
                (self.tree / where / name).symlink_to(target)

    def close(self) -> None:
        os.close(self.asking)
        os.close(self.hearing)
        os.waitpid(self.pid, 0)


@pytest.fixture
def rooted(tmp_path: Path) -> Iterator[Rooted]:
    made = Rooted(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.root
@given(links=LINKS, path=PATH, follow=st.booleans())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_leads_where_the_kernel_opens_or_makes_a_file(
    rooted: Rooted, links: list[tuple[str, str, str]], path: str, follow: bool
) -> None:
    rooted.build(links)
    found, opened = rooted.found(path, follow=follow), rooted.opened(path, follow=follow)
    if opened is not None:
        assert isinstance(found, Place)
        assert found.path == opened


@pytest.mark.root
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("around", ["x/../", "./"])
def test_a_chain_of_long_links_is_walked_once(rooted: Rooted, around: str, there: bool) -> None:
    """The kernel follows forty links. Each was walked again for each one before it: 7 s for this chain."""
    rooted.build([])
    (rooted.tree / "a" / "x").mkdir()
    for number in range(41):
        name = f"l{number + 1}"
        (rooted.tree / "a" / f"l{number}").symlink_to(around * ((LONGEST - len(name)) // len(around)) + name)
    if there:
        (rooted.tree / "a" / "l41").touch()
    with Task(rooted.pid) as task:
        assert rooted.opened("l1") == f"{rooted.tree}/a/l41"
        if not there:
            (rooted.tree / "a" / "l41").unlink()
        assert locate(task, task.cwd, b"l1", follow=True).path == f"{rooted.tree}/a/l41"
        assert task.names <= MAX_NAMES
        assert rooted.opened("l0") is None
        with pytest.raises(OSError, match="symbolic links"):
            locate(task, task.cwd, b"l0", follow=True)


@pytest.mark.root
def test_what_takes_too_long_to_walk_is_not_known(rooted: Rooted) -> None:
    """Links that go up and down again cannot be left to the kernel, whose walk would have to stay below a directory."""
    rooted.build([])
    for number in range(8):
        name = f"l{number + 1}"
        (rooted.tree / "a" / f"l{number}").symlink_to("../a/" * ((LONGEST - len(name)) // 5) + name)
    with Task(rooted.pid) as task, pytest.raises(Unreadable, match="names to be walked"):
        locate(task, task.cwd, b"l0", follow=True)
