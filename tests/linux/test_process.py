"""What a process sets about itself, seen from /proc or from the kernel's refusal."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from agent.linux import process
from tests.conftest import require
from tests.linux.forked import outcome

OTHER = 64321


def status(key: str) -> str:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return line.split(":", 1)[1].strip()
    raise KeyError(key)


def need_root() -> None:
    require(os.geteuid() == 0, "root")


def test_no_new_privs_is_set_and_read() -> None:
    def piece() -> None:
        assert not process.no_new_privs() or status("NoNewPrivs") == "1"
        process.set_no_new_privs()
        assert process.no_new_privs()
        assert status("NoNewPrivs") == "1"

    assert outcome(piece) == 0


def test_dumpable_is_set_and_read() -> None:
    def piece() -> None:
        process.set_dumpable(False)
        assert not process.dumpable()
        process.set_dumpable(True)
        assert process.dumpable()

    assert outcome(piece) == 0


def test_the_parent_death_signal_arrives() -> None:
    read_end, write_end = os.pipe()
    parent = os.fork()
    if parent == 0:
        child = os.fork()
        if child == 0:
            process.set_pdeathsig(signal.SIGKILL)
            os.write(write_end, b"r")
            time.sleep(60)
            os._exit(0)
        os.read(read_end, 1)
        os._exit(0)
    os.waitpid(parent, 0)
    os.close(write_end)
    assert os.read(read_end, 1) == b"", "the grandchild's end is closed: it is dead"
    os.close(read_end)


def test_a_subreaper_gets_orphans() -> None:
    def piece() -> None:
        process.set_child_subreaper()
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                time.sleep(0.05)
                os._exit(42)
            os._exit(0)
        os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]) == 42

    assert outcome(piece) == 0


def test_the_bounding_set_is_emptied() -> None:
    need_root()

    def piece() -> None:
        process.drop_capability_bounding_set()
        assert int(status("CapBnd"), 16) == 0
        assert int(status("CapAmb"), 16) == 0

    assert outcome(piece) == 0


def test_capabilities_are_the_effective_set() -> None:
    shown = int(status("CapEff"), 16)
    assert sum(1 << n for n in process.capabilities()) == shown


def test_dropped_capabilities_are_gone() -> None:
    def piece() -> None:
        process.drop_capabilities()
        assert process.capabilities() == frozenset()
        os.setgroups([1])

    assert outcome(piece) == errno.EPERM


def test_the_filesystem_identity_is_one_threads_and_ends_with_its_context(tmp_path: Path) -> None:
    need_root()
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    identity = process.FilesystemIdentity(OTHER, OTHER)
    with identity:
        with pytest.raises(PermissionError):
            secret.read_text()
        assert os.geteuid() == 0, "only file accesses change"
    assert secret.read_text() == "x"


def test_other_threads_keep_their_filesystem_identity(tmp_path: Path) -> None:
    need_root()
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    inside, checked = threading.Event(), threading.Event()

    def hold() -> None:
        with process.FilesystemIdentity(OTHER, OTHER):
            inside.set()
            checked.wait(120)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(120)
    try:
        assert secret.read_text() == "x"
    finally:
        checked.set()
        thread.join()


def test_without_the_capability_the_filesystem_identity_is_refused() -> None:
    def piece() -> None:
        process.drop_capabilities()
        with process.FilesystemIdentity(OTHER, OTHER):
            os._exit(99)

    assert outcome(piece) == errno.EPERM


def test_an_identity_of_nobody_changes_nothing() -> None:
    with process.FilesystemIdentity(None, None):
        assert status("Uid").split()[3] == str(os.geteuid())


@pytest.mark.parametrize("cloexec", [False, True])
def test_a_range_of_descriptors_is_closed_or_marked(cloexec: bool) -> None:
    def piece() -> None:
        os.closerange(3, 1024)  # of whatever this process has open
        low = os.dup(0)
        for target in (200, 201, 230):
            os.dup2(0, target)
        process.close_range(200, 220, cloexec=cloexec)
        os.fstat(low)
        os.fstat(230)
        assert os.get_inheritable(230)
        if cloexec:
            assert not os.get_inheritable(200)
            assert not os.get_inheritable(201)
        else:
            with pytest.raises(OSError):
                os.fstat(200)

    assert outcome(piece) == 0


def test_a_process_that_ends_is_told_from_one_that_goes_on() -> None:
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    assert not process.ending(child)
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert process.ending(child)  # a zombie
    os.waitpid(child, 0)
    assert process.ending(child)
    assert not process.ending(os.getpid())
