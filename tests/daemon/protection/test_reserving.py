"""Placeholders come where the names are free, and go as long as they still are placeholders."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent.daemon.protection.reserved import release
from agent.daemon.protection.reserving import Owner, reserve
from agent.policy.model import PathRule, Where
from agent.policy.protection import Reservation

RULE = PathRule("r", ".x", Where("p.yaml", 1, 1))
OWNER = Owner(os.geteuid(), os.getegid())


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return _run(tmp_path, "one")


def _run(tmp_path: Path, name: str) -> Path:
    (tmp_path / "runs" / name / "private").mkdir(parents=True)
    return tmp_path / "runs" / name


def names(home: Path, tree: Path) -> list[Reservation]:
    return [
        Reservation(str(home / ".rc"), False, RULE),
        Reservation(str(home / ".d/keys"), True, RULE),
        Reservation(str(tree / ".tool/file"), False, RULE),
    ]


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    home, tree = tmp_path / "home", tmp_path / "tree"
    home.mkdir()
    tree.mkdir()
    return home, tree


def test_placeholders_are_files_directories_and_sockets_and_go_again(run_dir: Path, places: tuple[Path, Path]) -> None:
    home, tree = places
    reserve(names(home, tree), str(home), str(run_dir), OWNER)
    assert stat.S_ISREG((home / ".rc").lstat().st_mode)
    assert stat.S_ISDIR((home / ".d/keys").lstat().st_mode)
    assert stat.S_ISSOCK((tree / ".tool/file").lstat().st_mode)
    release(str(run_dir))
    assert [*home.iterdir(), *tree.iterdir()] == []


def test_what_was_reserved_before_goes_too_where_more_is_reserved(run_dir: Path, places: tuple[Path, Path]) -> None:
    home, tree = places
    reserve(names(home, tree), str(home), str(run_dir), OWNER)
    reserve(names(home, tree)[1:], str(home), str(run_dir), OWNER)  # the directories are there by now
    release(str(run_dir))
    assert [*home.iterdir(), *tree.iterdir()] == []


def test_what_is_no_placeholder_any_more_stays(run_dir: Path, places: tuple[Path, Path]) -> None:
    home, tree = places
    reserve(names(home, tree), str(home), str(run_dir), OWNER)
    (home / ".rc").unlink()
    (home / ".rc").write_text("mine")
    (home / ".d/other").write_text("mine")
    (tree / ".tool/file").unlink()
    (tree / ".tool/file").write_text("")  # empty, but not marked
    release(str(run_dir))
    assert (home / ".rc").read_text() == "mine"
    assert sorted(entry.name for entry in (home / ".d").iterdir()) == ["other"]
    assert (tree / ".tool/file").exists()


def test_what_another_session_reserves_too_stays_until_that_ends(
    tmp_path: Path, run_dir: Path, places: tuple[Path, Path]
) -> None:
    home, tree = places
    reserve(names(home, tree), str(home), str(run_dir), OWNER)
    other = _run(tmp_path, "two")
    reserve(names(home, tree), str(home), str(other), OWNER)
    release(str(run_dir))
    assert (home / ".rc").exists()
    (run_dir / "private/reserved.json").unlink()
    release(str(other))
    assert [*home.iterdir(), *tree.iterdir()] == []


def test_what_took_the_name_meanwhile_is_no_placeholder(run_dir: Path, places: tuple[Path, Path]) -> None:
    home, tree = places
    (home / ".rc").write_text("")
    assert reserve(names(home, tree), str(home), str(run_dir), OWNER) == (str(home / ".rc"),)
    assert (home / ".d/keys").is_dir()


def test_no_link_leads_a_placeholder_elsewhere(run_dir: Path, places: tuple[Path, Path]) -> None:
    home, tree = places
    (tree / ".tool").symlink_to(home)
    assert reserve(names(home, tree), str(home), str(run_dir), OWNER) == (str(tree / ".tool/file"),)
    assert not (home / "file").exists()
