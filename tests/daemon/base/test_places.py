"""What is private stays private: by ownership, by a grant that does not cover it, by a covering mount, or no run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent.daemon.base.names import canaries, own_directory
from agent.daemon.base.places import Exposed, Places, own_hosts, publish_hook, set_canary, to_hide
from agent.daemon.base.spec import User
from agent.daemon.keeping.leavings import sweep
from agent.policy.grants import Grants
from tests.conftest import require
from tests.daemon.base.test_spec import SPEC

NOBODY = 65534
OTHER = replace(SPEC, session_user=User("nobody", NOBODY, NOBODY, "/", "/bin/sh"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that everybody can reach, unlike pytest's own."""
    require(os.geteuid() == 0, "ownership needs root")
    directory = Path("/tmp") / f"places-{os.getpid()}-{tmp_path.name}"
    directory.mkdir(mode=0o755)
    (directory / "inner").mkdir(mode=0o755)
    yield directory  # type: ignore[misc]
    (directory / "inner").rmdir()
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()


@pytest.mark.parametrize(
    ("mode", "owner", "granted", "landlock", "hidden"),
    [
        (0o700, 0, True, True, False),  # closed by its mode
        (0o755, 0, True, True, True),  # granted and open
        (0o755, 0, False, True, False),  # no grant covers it
        (0o755, 0, False, False, True),  # no Landlock to say so
        (0o700, NOBODY, True, True, True),  # closed, but the session's own
        (0o711, 0, True, True, True),  # can be entered
    ],
)
def test_a_private_path_is_covered_only_where_nothing_else_closes_it(
    place: Path, mode: int, owner: int, granted: bool, landlock: bool, hidden: bool
) -> None:
    private = place / "inner"
    private.chmod(mode)
    os.chown(private, owner, owner)
    grants = Grants(read=("/tmp",) if granted else ("/usr",), write=())
    assert to_hide(OTHER, [str(private)], grants, landlock, True) == ([str(private)] if hidden else [])
    if hidden:
        with pytest.raises(Exposed, match="chmod 700"):
            to_hide(OTHER, [str(private)], grants, landlock, False)


def test_a_directory_on_the_way_that_belongs_to_the_session_opens_everything_below(place: Path) -> None:
    os.chown(place, NOBODY, NOBODY)
    (place / "inner").chmod(0o700)
    grants = Grants(read=("/tmp",), write=())
    assert to_hide(OTHER, [str(place / "inner")], grants, True, True) == [str(place / "inner")]


def places(**fields: str) -> Places:
    places = Places(
        "/r/public", "/r/private", "/tmp/s", "/home/s", "/r/ca", "/r/resolv", "/r/hosts", "/r/public/hook.sock"
    )
    return replace(places, **fields)


def test_the_canary_lies_where_no_grant_covers_it_or_nowhere(place: Path) -> None:
    spec = replace(OTHER, boot=f"test-{os.getpid()}")
    made = set_canary(places(), Grants(read=("/usr",), write=("/tmp",)), spec)
    assert made.canary is not None
    assert Path(made.canary).stat().st_mode & 0o777 == 0o666
    sweep(spec)
    assert not Path(made.canary).exists()
    assert set_canary(places(), Grants(read=("/",), write=()), spec).canary is None


def test_the_hooks_fixed_path_leads_to_the_first_session_and_a_dangling_one_is_replaced(place: Path) -> None:
    spec = replace(OTHER, run_root=str(place), run_dir=str(place / "gone"))
    first, second, link = place / "one.sock", place / "two.sock", place / "hook.sock"
    first.touch()
    publish_hook(places(hook_socket=str(first)), spec)
    assert link.resolve() == first
    publish_hook(places(hook_socket=str(second)), spec)
    assert link.resolve() == first
    sweep(spec)
    assert link.is_symlink(), "another session's"
    first.unlink()
    second.touch()
    publish_hook(places(hook_socket=str(second)), spec)
    assert link.resolve() == second
    second.unlink()
    sweep(spec)
    assert not link.is_symlink()


def test_what_a_session_left_in_the_place_of_the_runs_own_is_not_followed(place: Path) -> None:
    spec = replace(OTHER, boot=f"trap-{os.getpid()}", run_root=str(place), run_dir=str(place / "gone"))
    (place / "kept").touch()
    own_directory(spec).mkdir()
    (own_directory(spec) / "trap").symlink_to(place)
    canaries(spec)[0].symlink_to(place / "kept")
    sweep(spec)
    assert not own_directory(spec).exists()
    assert (place / "kept").exists()
    canaries(spec)[0].unlink()


@pytest.mark.parametrize(
    ("machine", "session"),
    [
        ("127.0.0.1 localhost\n172.17.0.2 Box\n", "127.0.0.1 localhost\n127.0.0.1 box\n"),
        ("127.0.1.1\tbox.lan box # mine\n::1 x\n", "127.0.1.1 box.lan\n::1 x\n127.0.0.1 box\n"),
        ("# box\n10.0.0.1 boxes\n", "# box\n10.0.0.1 boxes\n127.0.0.1 box\n"),
        ("", "127.0.0.1 box\n"),
    ],
)
def test_the_machines_own_name_is_loopback_in_the_session_and_others_stay(machine: str, session: str) -> None:
    assert own_hosts(machine.encode(), "box").decode() == session
