"""The path audit against real calls, under the session's real filter and Landlock."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.enforce.paths.calls import CALLS
from agent.linux import process, seccomp
from agent.linux.syscalls import NUMBERS, number, syscall
from agent.record.event import Action, EventType, Result
from agent.session.filter_table import TABLE, Only
from tests.enforce.paths.audited import PLAIN, Act, World
from tests.enforce.ring import require_ring

AT_FDCWD = -100
MODE = 0o644


@pytest.fixture(autouse=True)
def _needs_root() -> None:
    require_ring()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def call(name: str, *arguments: int | bytes | Path) -> Act:
    words = [bytes(a) if isinstance(a, Path) else a for a in arguments]
    return lambda: syscall(name, *words)


def writing_calls(tree: Path, spare: Path) -> dict[str, Act]:
    """Each audited call once, on names in `tree` that it would change; `spare` is granted."""
    file, new, times, out = tree / "file", tree / "new", struct.pack("=4Q", 1, 0, 2, 0), os.O_WRONLY
    attributes = struct.pack("=IIIIQ", 0, 0, 0, 0, 0)
    made = {
        "open": call("open", file, out, 0),
        "openat": call("openat", AT_FDCWD, new, os.O_RDONLY | os.O_CREAT, MODE),
        "creat": call("creat", file, MODE),
        "truncate": call("truncate", file, 0),
        "mkdir": call("mkdir", new, MODE),
        "mkdirat": call("mkdirat", AT_FDCWD, new, MODE),
        "mknod": call("mknod", new, 0o010644, 0),
        "mknodat": call("mknodat", AT_FDCWD, new, 0o010644, 0),
        "symlink": call("symlink", b"x", new),
        "symlinkat": call("symlinkat", b"x", AT_FDCWD, new),
        "link": call("link", spare, new),
        "linkat": call("linkat", AT_FDCWD, spare, AT_FDCWD, new, 0),
        "unlink": call("unlink", file),
        "unlinkat": call("unlinkat", AT_FDCWD, file, 0),
        "rmdir": call("rmdir", tree / "empty"),
        "rename": call("rename", file, new),
        "renameat": call("renameat", AT_FDCWD, spare, AT_FDCWD, new),
        "renameat2": call("renameat2", AT_FDCWD, file, AT_FDCWD, spare, 2),
        "chmod": call("chmod", file, MODE),
        "fchmodat": call("fchmodat", AT_FDCWD, file, MODE),
        "fchmodat2": call("fchmodat2", AT_FDCWD, file, MODE, 0),
        "chown": call("chown", file, -1, -1),
        "lchown": call("lchown", tree / "link", -1, -1),
        "fchownat": call("fchownat", AT_FDCWD, file, -1, -1, 0x100),
        "utime": call("utime", file, struct.pack("=2Q", 1, 2)),
        "utimes": call("utimes", file, times),
        "futimesat": call("futimesat", AT_FDCWD, file, times),
        "utimensat": call("utimensat", AT_FDCWD, file, times, 0),
        "setxattr": call("setxattr", file, b"user.x", b"v", 1, 0),
        "lsetxattr": call("lsetxattr", file, b"user.x", b"v", 1, 0),
        "setxattrat": call("setxattrat", AT_FDCWD, file, 0, b"user.x", attributes, 16),
        "removexattr": call("removexattr", file, b"user.x"),
        "lremovexattr": call("lremovexattr", file, b"user.x"),
        "removexattrat": call("removexattrat", AT_FDCWD, file, 0, b"user.x"),
        "file_setattr": call("file_setattr", AT_FDCWD, file, attributes, 24, 0),
    }
    return {name: act for name, act in made.items() if number(name) is not None}


def test_every_denied_writing_call_fails_and_is_recorded_once(world: World) -> None:
    acts = writing_calls(world.out, world.work / "file")
    before = sorted((str(p), p.lstat()) for p in world.out.rglob("*"))
    outcomes = dict(zip(acts, world.run(*acts.values()), strict=True))
    assert outcomes == dict.fromkeys(acts, "EACCES")
    seen = world.denials()
    assert [name for _, name, _ in seen] == list(acts)
    assert all(rule == "paths-default" and path.startswith(f"{world.out}/") for rule, _, path in seen)
    assert sorted((str(p), p.lstat()) for p in world.out.rglob("*")) == before


def test_the_record_says_who_did_what_to_which_path(world: World) -> None:
    world.run(call("unlink", world.work / "dir-out" / "file"))
    (event,) = world.recorded.events
    assert (event.type, event.action, event.result) == (EventType.PERMISSION_DENIED, Action.DELETE, Result.DENIED)
    assert event.resource == str(world.out / "file")
    details = event.details
    assert (details["mechanism"], details["syscall"], details["access"]) == ("notify", "unlink", "delete")
    assert details["asked"] == str(world.work / "dir-out" / "file")
    assert isinstance(details["pid"], int)
    assert details["exe"]


def test_every_audited_call_works_where_it_is_granted_and_leaves_no_line(world: World) -> None:
    """With and without the audit the same, each on a fresh tree."""
    for name, act in writing_calls(world.work, world.work / "other").items():
        world.reset()
        plain = world.run(act, options=PLAIN)
        world.reset()
        assert world.run(act) == plain, name
        assert world.denials() == []


def test_the_filter_notifies_exactly_the_calls_that_the_audit_understands() -> None:
    notified = {
        name
        for entry in TABLE
        if entry.only is Only.NOTIFY_WRITES and entry.action == seccomp.RET_USER_NOTIF
        for name in entry.calls
    }
    assert notified == set(CALLS)
    assert notified <= set(NUMBERS)


def test_reading_and_what_the_kernel_refuses_anyway_is_not_recorded(world: World) -> None:
    out, work = world.out, world.work
    acts: dict[str, tuple[Act, str | None]] = {
        "reads": (call("openat", AT_FDCWD, out / "file", os.O_RDONLY, 0), None),
        "creates what exists, to read": (call("openat", AT_FDCWD, out / "file", os.O_CREAT, MODE), None),
        "a place": (call("openat", AT_FDCWD, out / "file", os.O_PATH | os.O_RDWR, 0), None),
        "exclusive, exists": (call("openat", AT_FDCWD, out / "file", os.O_CREAT | os.O_EXCL | 1, MODE), "EEXIST"),
        "missing": (call("openat", AT_FDCWD, out / "no", os.O_WRONLY, 0), "ENOENT"),
        "missing directory": (call("openat", AT_FDCWD, out / "no" / "no", os.O_WRONLY | os.O_CREAT, 0), "ENOENT"),
        "through a file": (call("unlink", out / "file" / "x"), "ENOTDIR"),
        "a directory": (call("openat", AT_FDCWD, out, os.O_WRONLY, 0), "EISDIR"),
        "makes what exists": (call("mkdir", out, MODE), "EEXIST"),
        "links to what exists": (call("symlink", b"x", out / "file"), "EEXIST"),
        "removes nothing": (call("unlink", out / "no"), "ENOENT"),
        "no path": (call("openat", AT_FDCWD, 0, os.O_WRONLY, 0), "EFAULT"),
        "too long": (call("mkdir", b"/" + b"a/" * 2100, MODE), "ENAMETOOLONG"),
        "no directory": (call("mkdirat", 999, b"x", MODE), "EBADF"),
        "null device": (call("openat", AT_FDCWD, b"/dev/null", os.O_WRONLY | os.O_TRUNC, 0), None),
        "openat2": (call("openat2", AT_FDCWD, bytes(work / "x"), struct.pack("=QQQ", 0o101, MODE, 0), 24), "ENOSYS"),
    }
    outcomes = world.run(*(act for act, _ in acts.values()))
    assert dict(zip(acts, outcomes, strict=True)) == {name: expected for name, (_, expected) in acts.items()}
    assert world.denials() == []


def test_every_way_to_name_a_file_is_seen_through(world: World) -> None:
    out, work = world.out, world.work

    def by_descriptor() -> None:
        os.unlink("file", dir_fd=os.open(out, os.O_RDONLY))

    def by_working_directory() -> None:
        os.chdir(out)
        try:
            os.close(os.open("../out/file", os.O_WRONLY))
        finally:
            os.chdir(work)

    def by_proc() -> None:
        os.close(os.open(f"/proc/self/fd/{os.open(out / 'file', os.O_RDONLY)}", os.O_WRONLY))

    def by_cwd_link() -> None:
        os.close(os.open("/proc/self/cwd/../out/file", os.O_WRONLY))

    ways: list[tuple[Act, Path]] = [
        (lambda: os.open(work / "leads-out", os.O_WRONLY), out / "file"),
        (lambda: os.open(work / "makes-out", os.O_WRONLY | os.O_CREAT), out / "new"),
        (lambda: os.unlink(work / "dir-out" / "file"), out / "file"),
        (lambda: os.rmdir(f"{work}/dir-out/empty/"), out / "empty"),
        (lambda: os.open(out, os.O_TMPFILE | os.O_RDWR), out),
        (by_descriptor, out / "file"),
        (by_working_directory, out / "file"),
        (by_proc, out / "file"),
        (by_cwd_link, out / "file"),
        (lambda: os.truncate(f"{work}/../out//./file", 0), out / "file"),
    ]
    assert world.run(*(act for act, _ in ways)) == ["EACCES"] * len(ways)
    assert [path for _, _, path in world.denials()] == [str(path) for _, path in ways]


def test_protected_places_inside_a_granted_tree_are_refused_though_landlock_grants_them(world: World) -> None:
    hooks = world.work / ".git" / "hooks"
    acts: list[Act] = [
        lambda: os.makedirs(world.work / ".git"),
        lambda: os.mkdir(hooks),
        lambda: os.rename(world.work / ".git", world.work / "git"),
    ]
    assert world.run(*acts) == [None, "EACCES", "EACCES"]
    assert [(rule, path) for rule, _, path in world.denials()] == [
        ("no-hooks", str(hooks)),
        ("no-hooks", str(world.work / ".git")),
    ]


def test_what_has_no_name_is_the_tasks_own(world: World) -> None:
    def pipe() -> None:
        os.close(os.open(f"/proc/self/fd/{os.pipe()[1]}", os.O_WRONLY))

    def memory() -> None:
        os.close(os.open(f"/proc/self/fd/{os.memfd_create('x')}", os.O_RDWR))

    def deleted() -> None:
        held = os.open(world.work / "gone", os.O_RDWR | os.O_CREAT)
        os.unlink(world.work / "gone")
        os.close(os.open(f"/proc/self/fd/{held}", os.O_WRONLY))

    def opened_times() -> None:
        os.utime(os.open(world.work / "file", os.O_RDONLY))

    assert world.run(pipe, memory, deleted, opened_times) == [None] * 4
    assert world.denials() == []


def test_a_process_that_hides_its_memory_writes_nothing_by_path(world: World) -> None:
    def hidden() -> None:
        process.set_dumpable(False)
        try:
            os.unlink(world.work / "file")
        finally:
            process.set_dumpable(True)

    assert world.run(hidden) == ["EACCES"]
    assert [rule for rule, _, _ in world.denials()] == ["path-unreadable"]
    assert (world.work / "file").exists()


def test_what_the_session_may_not_even_search_is_decided_by_its_text(world: World) -> None:
    closed = world.base / "closed"
    closed.mkdir(mode=0o700)
    acts: list[Act] = [lambda: os.mkdir(closed / "x"), lambda: os.unlink(closed / "a" / ".." / "b")]
    assert world.run(*acts) == ["EACCES"] * 2
    assert [path for _, _, path in world.denials()] == [str(closed / "x"), str(closed / "b")]


def test_before_the_session_starts_only_landlock_decides(world: World) -> None:
    assert world.run(lambda: os.unlink(world.out / "file"), opened=False) == ["EACCES"]
    assert world.denials() == []


def test_a_path_that_changes_after_it_was_read_meets_landlock(world: World) -> None:
    """The race that the audit does not win: it costs the record, never a file."""
    rounds = 300

    def race() -> None:
        good, bad = bytes(world.work / "file"), bytes(world.out / "file")
        size = max(len(good), len(bad)) + 1
        shared = ctypes.create_string_buffer(good, size)
        import threading

        done = threading.Event()

        def swap() -> None:
            while not done.is_set():
                shared.value = bad
                shared.value = good

        thread = threading.Thread(target=swap)
        thread.start()
        for _ in range(rounds):
            try:
                os.close(syscall("openat", AT_FDCWD, shared, os.O_WRONLY | os.O_TRUNC, 0))
            except OSError:
                continue
        done.set()
        thread.join()

    assert world.run(race) == [None]
    assert (world.out / "file").read_text() == "x"


def test_names_that_bind_makes_are_not_seen_and_meet_landlock(world: World) -> None:
    """Said in `doctor` and the docs: a kernel-only refusal."""

    def bind() -> None:
        socket.socket(socket.AF_UNIX).bind(str(world.out / "socket"))

    assert world.run(bind) == ["EACCES"]
    assert world.denials() == []
