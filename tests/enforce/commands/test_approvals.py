"""What a process is held to after an exec was approved."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import replace
from pathlib import Path

from agent.enforce.commands.approvals import PER_PROCESS, Approval, Approvals, approval, observed
from agent.enforce.commands.program import File

ECHO = Approval((1, 2), b"echo", (3, 4))


def test_a_process_without_an_approved_exec_is_held_to_nothing() -> None:
    assert Approvals().expected(1) == ()


def test_looking_does_not_use_an_approval_up() -> None:
    """Else a thread could look like what was approved, on purpose, and the raced exec after it would go unchecked."""
    approvals = Approvals()
    approvals.add(7, ECHO)
    assert [approvals.expected(7) for _ in range(3)] == [(ECHO,)] * 3


def test_several_execs_may_be_pending_and_a_repeated_one_counts_once() -> None:
    approvals = Approvals()
    other = replace(ECHO, arguments=b"other")
    for one in (ECHO, other, ECHO):
        approvals.add(7, one)
    assert approvals.expected(7) == (other, ECHO)


def test_the_oldest_of_too_many_is_forgotten_which_can_only_kill() -> None:
    approvals = Approvals()
    many = [replace(ECHO, arguments=b"%d" % n) for n in range(PER_PROCESS + 1)]
    for one in many:
        approvals.add(7, one)
    assert approvals.expected(7) == tuple(many[1:])


def test_only_dead_processes_are_forgotten() -> None:
    approvals = Approvals()
    approvals.add(os.getpid(), ECHO)
    beyond = int(Path("/proc/sys/kernel/pid_max").read_text())
    for pid in range(beyond + 1, beyond + 600):
        approvals.add(pid, ECHO)
    assert approvals.expected(os.getpid()) == (ECHO,)
    assert approvals.expected(beyond + 1) == ()


def test_a_process_looks_like_its_approval_and_like_no_other() -> None:
    argv = (b"cat", b"-")
    process = subprocess.Popen(argv, executable="/bin/cat", cwd="/usr", stdin=-1, stdout=-1, bufsize=0)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(b"x")
        assert process.stdout.read(1) == b"x", "it runs: its exec is over"
        status = os.stat("/bin/cat")
        usr, root = os.open("/usr", os.O_PATH), os.open("/", os.O_PATH)
        file = File("/bin/cat", status.st_dev, status.st_ino)
        seen = observed(process.pid)
        assert seen == approval(file, argv, usr)
        assert seen != approval(file, argv, root), "another directory"
        assert seen != approval(file, (b"cat", b"+"), usr), "another argv"
        assert seen != approval(file, (b"cat", b"-", b""), usr), "another number of words"
        assert seen != approval(replace(file, inode=file.inode + 1), argv, usr), "another file"
        os.close(usr)
        os.close(root)
    finally:
        process.kill()
        process.communicate()


def test_no_argv_is_taken_for_the_digest_of_another(tmp_path: Path) -> None:
    file, cwd = File("/bin/x", 1, 2), os.open(tmp_path, os.O_PATH)
    try:
        long = (b"x" * 4000,)
        digest = hashlib.sha256(long[0] + b"\0").digest()
        spelled = [(digest,), (b"#" + digest,), (b"#" + digest[:-1],), (digest[:-1],)]
        seen = {approval(file, argv, cwd).arguments for argv in [long, (b"x" * 4001,), (b"",), *spelled]}
    finally:
        os.close(cwd)
    assert len(seen) == 7
