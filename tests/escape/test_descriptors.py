"""The session's limit of descriptors is its own; the guard has room for what it opens in the session's stead."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.escape.runtime import Case, Host, policy
from tests.escape.test_death_of_the_agent import part, until


def test_the_guard_takes_all_descriptors_and_leaves_the_session_its_limit(host: Host) -> None:
    case = Case(("/bin/sh", "-c", "ulimit -Sn; read end"), policy())
    running = subprocess.Popen(
        ["prlimit", "--nofile=300:1900", *host.command(case)],
        env=host.environment(case), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "300\n"
        limits = Path(f"/proc/{part(running.pid, 'agent.daemon.guard')}/limits")
        until(lambda: re.search(r"^Max open files +1900 ", limits.read_text(), re.M), "the guard to take its limit")
    finally:
        running.communicate("end\n")
    assert running.returncode == 0
