"""What holds protected places, found in real trees: mounts in order, reserved names, and what nothing holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.daemon.protection.protecting import HELD, Protection, compile_protection, unheld
from agent.daemon.protection.reserving import Owner, reserve
from agent.daemon.protection.searching import Bounds
from agent.session.plan import Hold
from tests.policy.test_protection import protected

PATTERNS = ["*.git/hooks/**", ".env"]


def compiled(root: Path, *, entries: int = 10_000, patterns: list[str] | None = None) -> Protection:
    wanted = protected(PATTERNS if patterns is None else patterns, str(root / "home"))
    return compile_protection(wanted, (str(root),), str(root / "p"), Bounds(entries=entries))


def held(root: Path, protection: Protection) -> dict[str, str]:
    return {os.path.relpath(path, root): str(how) for path, how in protection.held}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("p/.git/config", "p/sub/.env", "p/node_modules/m/.env", "q/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


def test_places_are_read_only_their_parents_pinned_and_missing_names_reserved(root: Path) -> None:
    protection = compiled(root)
    assert held(root, protection) == {
        "p": "pin", "p/.git": "pin", "p/.git/hooks": "reserve", "p/.env": "reserve", "p/sub": "pin",
        "p/sub/.env": "read-only",
    }  # fmt: skip
    assert protection.weak == ()
    order = [path for path, _ in protection.held]
    assert all(order.index(str(Path(path).parent)) < order.index(path) for path in order if path != str(root / "p"))


def test_nothing_is_reserved_at_the_top_of_an_empty_working_directory(root: Path) -> None:
    (root / "empty").mkdir()
    found = compile_protection(protected([".env"], "/h"), (str(root / "empty"),), str(root / "empty"), Bounds())
    assert found == Protection()
    (root / "empty/x").touch()
    (root / "empty").chmod(0o1777)
    assert compile_protection(protected([".env"], "/h"), (str(root / "empty"),), str(root / "empty"), Bounds()) == found


def test_the_placeholder_of_another_session_is_reserved_again(root: Path) -> None:
    first = compiled(root)
    (root / "runs/one/private").mkdir(parents=True)
    reserve(first.reserved, str(root / "home"), str(root / "runs/one"), Owner(os.geteuid(), os.getegid()))
    assert compiled(root) == first


def test_a_symlink_is_pinned_and_what_it_leads_to_is_read_only(root: Path) -> None:
    (root / "q/.env").symlink_to("step")
    (root / "q/step").symlink_to("../target")
    (root / "target").write_text("")
    found = held(root, compiled(root))
    assert [found[name] for name in ("q/.env", "q/step", "target", "q")] == ["pin", "pin", "read-only", "pin"]


@pytest.mark.parametrize("more", [[], [".d/*/s.json"], [".d/**/*/s.json"]])
def test_a_symlink_on_another_way_to_a_place_is_pinned_and_others_are_not(root: Path, more: list[str]) -> None:
    """Whatever it is called: a name of a pattern's own, or one that a pattern has `*` for."""
    (root / "q/sub").mkdir()
    pinned = {"current": "p", "q/sub/way": "../../current", "q/hooks": "../p"}
    for link, target in (pinned | {"q/other": "x", "q/out": "/etc"}).items():
        (root / link).symlink_to(target)
    found = held(root, compiled(root, patterns=[*PATTERNS, *more]))
    assert {name: found.get(name) for name in (*pinned, "q/sub", "q/other", "q/out")} == {
        **dict.fromkeys(pinned, "pin"), "q/sub": "pin", "q/other": None, "q/out": None,
    }  # fmt: skip


@pytest.mark.parametrize("target", ["nothing", ".", "../q", "../p", "../home"])
def test_a_symlink_to_what_cannot_be_held_is_said(root: Path, target: str) -> None:
    (root / "home").mkdir()
    (root / "q/.env").symlink_to(target)
    (weak,) = compiled(root).weak
    assert weak.startswith(f"{root}/q/.env is protected and leads to ")


def test_a_symlink_out_of_the_writable_trees_is_pinned(root: Path) -> None:
    (root / "q/.env").symlink_to("/etc/hostname")
    protection = compiled(root)
    assert held(root, protection)["q/.env"] == "pin"
    assert protection.weak == ()


def test_every_name_of_a_protected_file_is_held(root: Path) -> None:
    hooks = root / "p/.git/hooks"
    hooks.mkdir()
    (hooks / "pre-commit").write_text("")
    os.link(hooks / "pre-commit", root / "q/other")
    found = held(root, compiled(root))
    assert found["q/other"] == "read-only"
    assert found["p/.git/hooks"] == "read-only"


def test_where_the_search_ended_before_its_time_is_said(root: Path) -> None:
    (weak,) = compiled(root, entries=3).weak
    assert weak.startswith("protected places were not looked for, or not found, behind /")


def test_many_places_do_not_crowd_out_those_of_the_working_directory(root: Path) -> None:
    for number in range(HELD):
        (root / f"a/{number}/.git").mkdir(parents=True)
        (root / f"a/{number}/.env").touch()
    (root / "p/.git/hooks").mkdir()
    protection = compiled(root, entries=20_000)
    found = held(root, protection)
    assert len(found) == HELD
    assert found["p/.git/hooks"] == found["p/sub/.env"] == "read-only"
    assert {"p", "p/.git", "p/sub", "p/.env"} <= found.keys()
    assert {name.path for name in protection.reserved} <= {path for path, _ in protection.held}  # no litter
    assert any("mounts would be needed" in text for text in protection.weak)


def test_links_to_a_place_crowd_out_no_place_and_links_beyond_the_roots_are_nobodys(root: Path) -> None:
    (root / "deep/er/.git/hooks").mkdir(parents=True)
    (root / "z").mkdir()
    (root / "z/.env").symlink_to("/etc/passwd")
    for number in range(HELD):
        (root / f"l{number}").symlink_to("p/.git")
        (root / f"m{number}").symlink_to("/etc/passwd")
    found = held(root, compiled(root, entries=20_000))
    assert len(found) == HELD
    assert (found["deep/er/.git/hooks"], found["z/.env"]) == ("read-only", "pin")
    assert not [name for name in found if name.startswith("m")]
    assert [name for name in found if name.startswith("l")], "what room is left is theirs"


def _deep(root: Path, levels: int) -> int:
    """A chain of directories with a name of 250 bytes each; the innermost one, opened."""
    at = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d" * 250, dir_fd=at)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    return at


def test_a_tree_too_deep_for_a_path_is_searched_and_a_place_in_it_is_said(root: Path) -> None:
    innermost = _deep(root, 30)
    assert compiled(root).weak == ()
    os.mkdir(".env", dir_fd=innermost)
    os.close(innermost)
    (weak,) = compiled(root).weak
    assert len(weak) < 300


def test_names_that_the_session_chose_are_escaped_where_they_are_said(root: Path) -> None:
    (root / "q/\x1b[2J").mkdir()
    (root / "q/\x1b[2J/.env").symlink_to("nothing")
    (weak,) = compiled(root).weak
    assert "\x1b" not in weak


def test_a_granted_root_that_is_protected_itself_is_held(root: Path) -> None:
    place = str(root / "p/.git/hooks")
    os.mkdir(place)
    found = compile_protection(protected(PATTERNS, "/h"), (place,), "/nowhere", Bounds())
    assert found.held == ((place, Hold.READ_ONLY),)


def test_where_no_mount_can_be_made_the_places_are_named(root: Path) -> None:
    protection = unheld(compiled(root), "no mount namespace here")
    assert protection.held == protection.reserved == ()
    (weak,) = protection.weak
    assert weak.endswith("(and 2 more) is protected and held by nothing: no mount namespace here")
    assert unheld(compiled(root, patterns=[]), "no mount namespace here").weak == ()


def test_a_file_by_which_git_finds_a_repository_is_not_held_so_that_its_work_tree_can_be_moved(root: Path) -> None:
    (root / "tree").mkdir()
    (root / "tree/.git").write_text("gitdir: ../p/.git/worktrees/tree\n")
    assert not {"tree", "tree/.git"} & held(root, compiled(root)).keys()
