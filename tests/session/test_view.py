"""The session's view of the file system, made for real in a mount namespace of a child's and looked at as root, whom no
file permission stops."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.linux import namespaces
from agent.session.view import narrow, view_of
from tests.linux.forked import told

pytestmark = pytest.mark.root


def outcome(act: Callable[[], object]) -> str:
    try:
        found = act()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return str(found) if isinstance(found, list) else "done"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Granted and ungranted places below one directory."""
    for name in ("read/sub", "read/write", "other", "deep/er/granted", "deep/er/closed", "deep/beside"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("text")
    (tmp_path / "deep/link").symlink_to("er/granted")
    (tmp_path / "empty").touch(0o444)
    (tmp_path / "alone").write_text("text")
    return tmp_path


def looked_at(
    root: Path, read: tuple[str, ...], write: tuple[str, ...], acts: dict[str, Callable[[], object]]
) -> dict[str, str]:
    """What came of each act with these grants below `root`; what else is directly below / stays in sight."""

    def piece() -> dict[str, str]:
        others = tuple(f"/{name}" for name in os.listdir("/") if name != root.parts[1])
        view = view_of([f"{root}/{name}" for name in read], [f"{root}/{name}" for name in write], None)
        narrow(view, empty=f"{root}/empty", spare=others)
        return {name: outcome(act) for name, act in acts.items()}

    return told(piece)


def test_what_is_not_granted_is_out_of_sight_and_what_is_granted_for_reading_is_not_written(tree: Path) -> None:
    found = looked_at(
        tree,
        ("read", "deep/link"),
        ("read/write",),
        {
            "read": (tree / "read/sub/file").read_text,
            "write below a read grant": lambda: (tree / "read/sub/file").write_text("x"),
            "its mode": lambda: (tree / "read/sub/file").chmod(0o777),
            "its times": lambda: os.utime(tree / "read/sub/file"),
            "make a file": lambda: (tree / "read/new").write_text("x"),
            "write below a write grant inside": lambda: (tree / "read/write/file").write_text("x"),
            "an ungranted place": (tree / "other/file").read_text,
            "its directory": lambda: os.listdir(tree / "other"),
            "through a link on the way": (tree / "deep/link/file").read_text,
            "where the link leads": (tree / "deep/er/granted/file").read_text,
            "beside it": (tree / "deep/er/closed/file").read_text,
            "above it": lambda: os.listdir(tree / "deep/beside"),
            "its mode says that nobody enters": lambda: [oct((tree / "other").stat().st_mode)],
            "a file beside grants": lambda: [(tree / "alone").read_text(), oct((tree / "alone").stat().st_mode)],
            "make something above it": (tree / "deep/er/new").mkdir,
            "what is outside stays": Path("/proc/self/status").read_text,
        },
    )  # fmt: skip
    assert found == {
        "read": "done",
        "write below a read grant": "EROFS",
        "its mode": "EROFS",
        "its times": "EROFS",
        "make a file": "EROFS",
        "write below a write grant inside": "done",
        "an ungranted place": "ENOENT",
        "its directory": "[]",
        "through a link on the way": "done",
        "where the link leads": "done",
        "beside it": "ENOENT",
        "above it": "[]",
        "its mode says that nobody enters": "['0o40000']",
        "a file beside grants": "['', '0o100000']",
        "make something above it": "EROFS",
        "what is outside stays": "done",
    }


def test_a_grant_of_everything_changes_nothing() -> None:
    def piece() -> str:
        before = namespaces.mount_points("/")
        narrow(view_of((), ("/",), None), empty="/dev/null", spare=())
        return "same" if namespaces.mount_points("/") == before else "changed"

    assert told(piece) == "same"


def test_links_in_a_circle_and_missing_grants_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    view = view_of((f"{tmp_path}/a", f"{tmp_path}/missing"), (), None)
    assert (view.read, view.write) == (frozenset(), frozenset())


def test_mount_points_are_told_with_their_odd_names(tmp_path: Path) -> None:
    place = tmp_path / "a b\tc\\d"
    place.mkdir()

    def piece() -> list[str]:
        namespaces.bind(str(place), str(place))
        return namespaces.mount_points(str(tmp_path))

    assert told(piece) == [str(place)]
