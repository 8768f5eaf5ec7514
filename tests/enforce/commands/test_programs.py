"""A program is what it is, whatever it is called and wherever it lies."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import tempfile
from datetime import date
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.enforce.commands import programs
from agent.enforce.commands.programs import Programs, _target, build_id
from agent.policy.request import Origin
from agent.shell.requests import from_argv
from tests.conftest import require

NOBODY = 64321


def machine(tmp_path: Path) -> tuple[Path, Programs]:
    """A machine whose only directory of programs holds `rm`, and its table as the session of `NOBODY` has it."""
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    shutil.copy("/bin/rm", bin_directory / "rm")
    return bin_directory, Programs(NOBODY, directories=(str(bin_directory),), loaders=())


def names(known: Programs, path: Path) -> list[str]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = known.names(os.readlink(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor), descriptor)
    finally:
        os.close(descriptor)
    return [name.rpartition("/")[2] for name in found]


@pytest.fixture(autouse=True)
def _not_ours() -> None:
    require(os.geteuid() == 0, "root, so that files are somebody else's than the session's")


def test_a_program_at_its_own_path_has_no_other_name(tmp_path: Path) -> None:
    directory, known = machine(tmp_path)
    assert names(known, directory / "rm") == []


def test_a_copy_a_hard_link_and_a_renamed_file_are_the_program(tmp_path: Path) -> None:
    directory, known = machine(tmp_path)
    shutil.copy(directory / "rm", tmp_path / "copy")
    os.link(directory / "rm", tmp_path / "link")
    assert [names(known, tmp_path / name) for name in ("copy", "link")] == [["rm"], ["rm"]]


def test_a_copy_with_bytes_appended_is_known_by_its_build_id(tmp_path: Path) -> None:
    directory, known = machine(tmp_path)
    longer = tmp_path / "longer"
    longer.write_bytes((directory / "rm").read_bytes() + b"padding")
    assert names(known, longer) == ["rm"]


def test_another_program_and_a_script_are_nothing_of_the_machines(tmp_path: Path) -> None:
    _, known = machine(tmp_path)
    shutil.copy("/bin/true", tmp_path / "other")
    (tmp_path / "script").write_text("#!/bin/sh\n")
    (tmp_path / "empty").write_text("")
    assert [names(known, tmp_path / name) for name in ("other", "script", "empty")] == [[], [], []]


def test_a_file_that_the_session_can_change_is_not_believed_by_its_path(tmp_path: Path) -> None:
    directory, known = machine(tmp_path)
    own = directory / "tool"
    shutil.copy(directory / "rm", own)
    for change in (lambda: os.chown(own, NOBODY, 0), lambda: (os.chown(own, 0, 0), own.chmod(0o775))[1]):
        change()
        assert names(known, own) == ["rm"]


def test_contents_swapped_within_one_tick_of_the_clock_are_looked_at_again(tmp_path: Path) -> None:
    directory, known = machine(tmp_path)
    swapped, size = tmp_path / "swapped", (directory / "rm").stat().st_size
    times = (1_700_000_000_000_000_000, 1_700_000_000_000_000_000)
    for content, expected in ((b"x" * size, []), ((directory / "rm").read_bytes(), ["rm"])) * 3:
        swapped.write_bytes(content)
        os.utime(swapped, ns=times)
        assert names(known, swapped) == expected


def test_a_program_installed_later_is_known_too(tmp_path: Path) -> None:
    directory, known = machine(tmp_path)
    shutil.copy("/bin/true", tmp_path / "early")
    assert names(known, tmp_path / "early") == []
    shutil.copy("/bin/true", directory / "true")
    shutil.copy("/bin/true", tmp_path / "late")
    assert names(known, tmp_path / "late") == ["true"]


def test_a_file_too_large_to_hash_goes_by_its_build_id_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, known = machine(tmp_path)
    monkeypatch.setattr(programs, "MAX_HASHED", 1000)
    shutil.copy(directory / "rm", tmp_path / "copy")
    (directory / "text").write_bytes(b"#!/bin/sh\n" * 200)
    shutil.copy(directory / "text", tmp_path / "text")
    assert (names(known, tmp_path / "copy"), names(known, tmp_path / "text")) == (["rm"], [])


def test_a_symlink_in_the_path_is_known_by_what_it_leads_to(tmp_path: Path) -> None:
    directory, known = machine(tmp_path)
    elsewhere = tmp_path / "mawk"
    shutil.copy("/bin/true", elsewhere)
    (directory / "awk").symlink_to(elsewhere)
    shutil.copy(elsewhere, tmp_path / "copy")
    assert names(known, tmp_path / "copy") == ["mawk"]


def test_a_build_id_is_the_one_that_readelf_prints() -> None:
    require(shutil.which("readelf"), "readelf")
    printed = subprocess.run(["readelf", "-n", "/bin/rm"], capture_output=True, text=True, check=True).stdout
    found = build_id(Path("/bin/rm").read_bytes()[:4096])
    assert found is not None
    assert f"Build ID: {found.hex()}" in printed


@given(st.binary(max_size=200), st.binary(min_size=48, max_size=48))
def test_no_bytes_are_too_strange_for_a_build_id(rest: bytes, header: bytes) -> None:
    assert build_id(rest) is None or rest.startswith(b"\x7fELF")
    found = build_id(b"\x7fELF\x02\x01" + header + rest)
    assert found is None or found in header + rest


def test_a_change_that_no_time_of_the_file_shows_is_seen(tmp_path: Path) -> None:
    """On a tmpfs a write through a shared mapping whose page was read before leaves both times as they were."""
    require(os.path.ismount("/dev/shm"), "a tmpfs")
    directory, known = machine(tmp_path)
    image = (directory / "rm").read_bytes()
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as changed:
        changed.write(b"#" * len(image))
        changed.flush()
        os.fchown(changed.fileno(), NOBODY, NOBODY)
        path = Path(changed.name)
        before = path.stat()
        assert names(known, path) == []
        with mmap.mmap(changed.fileno(), len(image)) as mapped:
            assert sum(mapped[at] for at in range(0, len(image), mmap.PAGESIZE)), "every page is mapped by a read"
            mapped[:] = image
        after = path.stat()
        assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)
        assert names(known, path) == ["rm"]


def test_a_copy_of_a_multi_call_program_does_what_its_words_say(tmp_path: Path) -> None:
    """It goes by ``argv[0]``: the name of an applet, or its own with the applet behind it (busybox(1))."""
    directory, known = machine(tmp_path)
    shutil.copy("/bin/true", directory / "busybox")
    shutil.copy("/bin/true", tmp_path / "x")
    assert names(known, tmp_path / "x") == ["busybox"]
    for argv in (("busybox", "rm", "-rf", "/"), ("rm", "-rf", "/")):
        for exe in (tmp_path / "x", directory / "busybox"):
            request = from_argv(argv, exe=str(exe), cwd="/", home="/h", today=date(2026, 11, 22), origin=Origin("exec"))
            assert ("rm", "-rf", "/") in [command.argv for command in request.commands]


def test_a_link_leads_where_the_kernel_would_go(tmp_path: Path) -> None:
    real, other = tmp_path / "real", tmp_path / "other"
    (real / "deep").mkdir(parents=True)
    other.mkdir()
    for name in ("program", "deep/more"):
        (real / name).write_text("#!/bin/sh\n")
        (real / name).chmod(0o755)
    (real / "data").write_text("")
    links = {
        "plain": "../real/program",
        "twice": "plain",
        "directory": "../real",
        "through": "directory/deep/more",
        "back": "directory/deep/../program",
        "absolute": str(real / "program"),
        "data": "../real/data",
        "gone": "../real/none",
        "into": "plain/none",
        "loop": "loop",
        "self": ".",
        "above": "../real/deep/..",
    }
    for name, target in links.items():
        (other / name).symlink_to(target)
    resolved = cache(os.path.realpath)
    found = {name: [path for path, _ in _target(str(other / name), resolved)] for name in links}
    program = [str(real / "program")]
    leads = {"plain": program, "twice": program, "back": program, "absolute": program}
    assert found == {name: [] for name in links} | leads | {"through": [str(real / "deep/more")]}


def test_the_links_of_this_machine_lead_where_the_kernel_would_go() -> None:
    resolved = cache(os.path.realpath)
    for entry in os.scandir("/usr/bin"):
        if entry.is_symlink():
            kernels = os.path.realpath(entry.path)
            assert all(path == kernels for path, _ in _target(entry.path, resolved))
            executed = os.path.isfile(kernels) and os.stat(kernels).st_mode & 0o111
            assert len(list(_target(entry.path, resolved))) == bool(executed)
