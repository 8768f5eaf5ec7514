"""The audit changes nothing but the record: random calls on random names, with it and without, end the same.

What may differ is said in `same`: what Landlock knows nothing of is refused, and a refusal is always EACCES.
"""

from __future__ import annotations

import os
import random
import stat
import struct
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.linux import seccomp
from agent.linux.syscalls import number, syscall
from tests.conftest import require
from tests.enforce.paths.audited import PLAIN, Act, World

AT_FDCWD = -100
METADATA = {"fchmodat", "fchownat", "utimensat", "chmod", "lchown", "utimes", "lsetxattr"}
"""Of the calls below, those that Landlock does not know."""
NAMES = (
    *("file", "other", "dir", "dir/file", "dir/new", "empty", "link", "new", "new/x", "file/x", "../work/file"),
    *("leads-out", "makes-out", "dir-out", "dir-out/file", "dir-out/new", "dir-out/dir", "../out/file", "../out/new"),
    *("../out/empty", "../out/link", "../new", "..", ".", "", "dir/", "file/", "leads-out/", "new/", "dir/../file"),
    *("/proc/self/cwd/file", "/proc/self/cwd/new", "/proc/self/cwd/dir-out/file", "/proc/self/comm", "/proc/self/root"),
    *("/dev/null", "/dev/fd/0", "loop", "a" * 300, "//dev//null", "/etc/passwd", "/etc/no", "./dir/./new"),
)
FLAGS = (0, 1, 2, 0o100, 0o101, 0o301, 0o1001, 0o2001, 0o200001, 0o400001, 0o400101, 0o20200002, 0o10000001)
TIMES = struct.pack("=4q", 1, 0, 2, 0)


@cache
def notification_available() -> bool:
    return seccomp.notification_available()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    require(os.geteuid() == 0, "root, to give the session a uid of its own")
    require(notification_available(), "seccomp user notification")
    made = World()
    yield made
    made.close()


def opening(name: bytes, flags: int) -> Act:
    return lambda: os.close(syscall("openat", AT_FDCWD, name, flags, 0o600))


def random_call(choice: random.Random) -> tuple[str, str, Act]:
    """The call's name, the whole of it in words, and what makes it."""
    one, two = (choice.choice(NAMES).encode() for _ in range(2))
    flags = choice.choice(FLAGS)
    words: dict[str, tuple[int | bytes, ...]] = {
        "openat": (),
        "creat": (one, 0o600),
        "truncate": (one, 1),
        "mkdirat": (AT_FDCWD, one, 0o755),
        "mknod": (one, 0o100600, 0),
        "symlinkat": (two, AT_FDCWD, one),
        "linkat": (AT_FDCWD, one, AT_FDCWD, two, choice.choice((0, 0x400))),
        "unlinkat": (AT_FDCWD, one, choice.choice((0, 0x200))),
        "rmdir": (one,),
        "renameat2": (AT_FDCWD, one, AT_FDCWD, two, choice.choice((0, 0, 1, 2))),
        "fchmodat": (AT_FDCWD, one, 0o755),
        "chmod": (one, 0o755),
        "fchownat": (AT_FDCWD, one, -1, -1, choice.choice((0, 0x100))),
        "lchown": (one, -1, -1),
        "utimensat": (AT_FDCWD, one, TIMES, choice.choice((0, 0x100))),
        "utimes": (one, TIMES),
        "lsetxattr": (one, b"user.x", b"v", 1, 0),
    }
    name = choice.choice([name for name in words if number(name) is not None] + ["openat"] * 6)
    if name == "openat":
        return name, f"openat({one!r}, {flags:#o})", opening(one, flags)
    return name, f"{name}{words[name]}", lambda: syscall(name, *words[name])


def same(name: str, plain: str | None, audited: str | None) -> bool:
    """A call works with the audit where it works without; a refusal of the audit is EACCES, before other obstacles."""
    return plain == audited or (audited == "EACCES" and (plain is not None or name in METADATA))


def tree(world: World) -> list[tuple[str, int, bytes]]:
    """All that is there. Modes outside of what is granted may be changed without the audit."""
    found = []
    for path in sorted(world.base.rglob("*")):
        content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        mode = path.lstat().st_mode
        found.append((str(path), mode if path.is_relative_to(world.work) else stat.S_IFMT(mode), content))
    return found


@given(seed=st.integers(0, 2**32))
@settings(max_examples=12, deadline=None)
def test_random_calls_end_as_without_the_audit(world: World, seed: int) -> None:
    choice = random.Random(seed)
    calls = [random_call(choice) for _ in range(120)]

    def outcome(audited: bool) -> tuple[list[str | None], list[tuple[str, int, bytes]]]:
        world.reset()
        (world.work / "loop").symlink_to("loop")
        done = world.run(*(act for *_, act in calls)) if audited else world.run(*(a for *_, a in calls), options=PLAIN)
        return done, tree(world)

    plain, left = outcome(audited=False)
    seen, left_audited = outcome(audited=True)
    different = [
        (whole, one, other)
        for (name, whole, _), one, other in zip(calls, plain, seen, strict=True)
        if not same(name, one, other)
    ]
    assert different == []
    assert left_audited == left
    assert seen.count("EACCES") >= len(world.denials())
