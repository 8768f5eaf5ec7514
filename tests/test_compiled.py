"""Modules out of one file: the same ones, and no more of old code than Python's own compiled files would give."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOM = "import sys\nVALUE = 'first'\ndef where():\n    return sys._getframe().f_code.co_filename\n"
SHOW = """
import house, house.room as room, inspect
print(room.VALUE, room.where() == room.__file__, inspect.getsource(room.where).count("return"), room.__package__)
print(type(room.__loader__).__name__, *house.__path__, room.__spec__.has_location)"""


def python(tree: Path, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A process with `tree` first on its path, the agent at hand, that writes no compiled files of its own."""
    before = f"import sys; sys.path.insert(0, {str(tree)!r}); from agent import compiled\n"
    argv = [sys.executable, "-I", "-B", *options, "-c", before + script]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def used(tree: Path, *, shown: str = SHOW, options: tuple[str, ...] = ()) -> list[str]:
    """What a process says that uses the file of `tree`."""
    use = f"print(compiled.use({str(tree / 'gathered')!r}, {str(tree / 'house')!r}))\n"
    done = python(tree, use + shown, *options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def from_the_file(tree: Path, value: str = "first") -> list[str]:
    return ["True", f"{value} True 1 house", f"_Loader {tree / 'house'} True"]


def as_ever(tree: Path, value: str) -> list[str]:
    return ["False", f"{value} True 1 house", f"SourceFileLoader {tree / 'house'} True"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package, gathered."""
    house = tmp_path / "house"
    house.mkdir()
    (house / "__init__.py").write_text("")
    (house / "room.py").write_text(ROOM)
    done = python(tmp_path, f"print(compiled.gather({str(tmp_path / 'gathered')!r}, {str(house)!r}))")
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 2  # what was imported of the standard library, too
    assert sorted(os.listdir(tmp_path)) == ["gathered", "house"]
    return tmp_path


def change(room: Path, text: str, *, later: int = 0) -> None:
    """Another text, `later` seconds later than it was changed last."""
    at = room.stat().st_mtime_ns + later * 1_000_000_000
    room.write_text(text)
    os.utime(room, ns=(at, at))


def test_a_module_comes_out_of_the_file_and_is_the_same_module(tree: Path) -> None:
    assert used(tree) == from_the_file(tree)
    change(tree / "house/room.py", ROOM.replace("first", "other"))
    assert used(tree) == from_the_file(tree), "same time, same length: taken for the same, as by Python's own"


@pytest.mark.skipif(sys.version_info < (3, 13), reason="mmap keeps a descriptor of its own there")
def test_no_descriptor_of_the_file_stays_open(tree: Path) -> None:
    """In gVisor a session can open what root's processes have open, as far as it may read it by its mode."""
    show = "import os, house.room\nprint([os.path.realpath(f'/proc/self/fd/{fd}') for fd in range(32)])"
    assert str(tree / "gathered") not in used(tree, shown=show)[1]


@pytest.mark.parametrize(("text", "later"), [("second", 0), ("other", 2), ("other", -2)])
def test_a_source_that_has_changed_is_read_anew(tree: Path, text: str, later: int) -> None:
    change(tree / "house/room.py", ROOM.replace("first", text), later=later)
    assert used(tree) == from_the_file(tree, text)


def test_a_source_that_is_gone_is_not_imported(tree: Path) -> None:
    (tree / "house/room.py").unlink()
    done = python(tree, f"compiled.use({str(tree / 'gathered')!r}, {str(tree / 'house')!r})\nimport house.room")
    assert done.returncode == 1
    assert "No such file or directory" in done.stderr


def test_a_module_that_came_later_is_found_as_ever(tree: Path) -> None:
    (tree / "house/attic.py").write_text("VALUE = 'later'\n")
    assert used(tree, shown="import house.attic; print(house.attic.VALUE)") == ["True", "later"]


def test_the_file_of_another_python_is_not_used(tree: Path) -> None:
    with (tree / "gathered").open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))
    change(tree / "house/room.py", ROOM.replace("first", "other"))
    assert used(tree) == as_ever(tree, "other")


def test_the_file_is_not_used_with_other_optimisation(tree: Path) -> None:
    assert used(tree, options=("-O",)) == as_ever(tree, "first")


def test_a_file_that_was_moved_with_its_package_is_not_used(tree: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move(tree / "gathered", moved)
    shutil.copytree(tree / "house", moved / "house")
    assert used(moved) == as_ever(moved, "first")


def test_without_the_file_nothing_is_changed(tree: Path) -> None:
    (tree / "gathered").unlink()
    assert used(tree) == as_ever(tree, "first")


@pytest.mark.parametrize("length", [0, 6, 40])
def test_a_broken_file_ends_the_program(tree: Path, length: int) -> None:
    os.truncate(tree / "gathered", length)
    done = python(tree, f"compiled.use({str(tree / 'gathered')!r}, {str(tree / 'house')!r})\nprint('went on')")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Error" in done.stderr
