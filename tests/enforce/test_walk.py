"""A path as a task would walk it: what the kernel finds in one call is what the walk name by name finds."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.enforce import walk
from agent.enforce.commands.executable import out_of_sight
from agent.enforce.memory import Task
from agent.enforce.walk import Closed, by_names, walked
from agent.linux.process import FilesystemIdentity

NAMES = ("a", "b", "c")
PART = st.sampled_from([*NAMES, ".", "..", ""])
PATH = st.builds("/".join, st.lists(PART, min_size=1, max_size=6))
LINKS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES), PATH, st.booleans()), max_size=5)


def found(opened: int) -> tuple[int, int]:
    status = os.fstat(opened)
    os.close(opened)
    return status.st_dev, status.st_ino


def either(task: Task, start: int, path: bytes, way: object) -> tuple[int, int] | int:
    try:
        if way is walked:
            with walked(task, start, path) as opened:
                return found(os.dup(opened))
        return found(by_names(task, start, path))
    except OSError as error:
        return error.errno or -1


def is_inside(directory: Path, base: Path) -> bool:
    """Is this a directory that no link leads out of `base` by? Else the test would make its files elsewhere."""
    return directory.is_dir() and directory.resolve().is_relative_to(base.resolve())


@given(links=LINKS, files=st.lists(PATH, max_size=4), path=PATH, absolute=st.booleans())
@settings(max_examples=300, deadline=None)
def test_both_ways_find_the_same(
    links: list[tuple[str, str, str, bool]], files: list[str], path: str, absolute: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory, Task(os.getpid()) as task:
        base = Path(directory)
        (base / "a" / "b").mkdir(parents=True)
        (base / "b").mkdir()
        for where, name, target, rooted in links:
            link = base / where / name if is_inside(base / where, base) else base / name
            if not os.path.lexists(link):
                link.symlink_to(f"{directory}/{target}" if rooted else target or ".")
        for file in files:
            place = os.path.normpath(f"/{file}").lstrip("/")
            if place and not os.path.lexists(base / place) and is_inside((base / place).parent, base):
                (base / place).write_text("x")
        start = os.open(base / "a", os.O_PATH)
        asked = os.fsencode(f"{directory}/{path}" if absolute else path)
        try:
            assert either(task, start, asked, walked) == either(task, start, asked, by_names)
        finally:
            os.close(start)


@pytest.mark.parametrize(
    "path", ["/proc/self/exe", "/proc/thread-self/exe", "/dev/fd/{fd}", "/proc/self/fd/{fd}", "/proc/self/root/{file}"]
)
def test_links_to_objects_lead_to_the_tasks_own(path: str, tmp_path: Path) -> None:
    """The task is another process: our own /proc/self has other descriptors and another program."""
    file = tmp_path / "file"
    file.write_text("x")
    ready, told = os.pipe()
    go, end = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(file, os.O_RDONLY), 199)
        os.write(told, b"r")
        os.read(go, 1)
        os._exit(0)
    os.read(ready, 1)
    try:
        asked = path.format(fd=199, file=str(file).lstrip("/")).encode()
        with Task(child) as task, walked(task, task.cwd, asked) as opened:
            status = os.fstat(opened)
            wanted = os.stat(f"/proc/{child}/exe" if path.endswith("exe") else file)
            assert (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino)
    finally:
        os.write(end, b"x")
        os.waitpid(child, 0)
        for descriptor in (ready, told, go, end):
            os.close(descriptor)


def test_without_the_call_the_walk_is_made_by_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """gVisor and kernels before 5.6 have no openat2; a container's own filter may refuse it."""

    def missing(directory: int, path: bytes) -> int:
        raise OSError(38, "openat2")

    monkeypatch.setattr(walk, "place_in_root", missing)
    with Task(os.getpid()) as task, walked(task, task.cwd, b"/bin/sh") as opened:
        assert os.path.samestat(os.fstat(opened), os.stat("/bin/sh"))


def test_no_descriptor_is_left_open() -> None:
    before = set(os.listdir("/proc/self/fd"))
    for path in (b"/bin/sh", b"/no/such", b"/proc/self/exe", b"/proc/self/exe/x", b"/" + b"x" * 5000):
        with Task(os.getpid()) as task:
            either(task, task.cwd, path, walked)
    assert set(os.listdir("/proc/self/fd")) <= before, "other tests' servers may close what they hold"


@pytest.mark.root
@pytest.mark.parametrize("uid", [None, 64321])
def test_what_may_not_be_searched_says_where_the_path_leads(uid: int | None, tmp_path: Path) -> None:
    """Also to one who may look everywhere, as the agent where it cannot take on the session's identity (gVisor)."""
    (tmp_path / "shut").mkdir(0)
    (tmp_path / "link").symlink_to("shut/below/../other")
    tmp_path.chmod(0o755)
    start = os.open(tmp_path, os.O_PATH)
    try:
        with Task(os.getpid()) as task, FilesystemIdentity(uid, uid), pytest.raises(Closed) as found:
            walked(task, start, b"link/gone/../x")
    finally:
        os.close(start)
    assert found.value.place == f"{tmp_path}/shut/other/x"


@pytest.mark.root
def test_a_program_out_of_sight_is_one_only_where_the_account_could_execute_it(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.touch(0o755)
    tmp_path.chmod(0o700)
    with FilesystemIdentity(64321, 64321):
        found = [out_of_sight(Closed(path)) for path in ("/bin/sh", str(program), "/etc/passwd", "/usr", "/bin/gone")]
    assert [file and file.path for file in found] == ["/bin/sh", None, None, None, None]
