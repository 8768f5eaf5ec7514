"""The session's limit of descriptors is its own; the guard has room for what it opens in the session's stead."""

from __future__ import annotations

import subprocess

from tests.escape.runtime import RUN_SECONDS, Case, Host, policy

LOOK = r"""
ulimit -Sn
n=0
until [ "$soft" = 1900 ] || [ $n -ge 100 ]; do
  soft=$(sed -n 's/^Max open files *\([0-9]*\) .*/\1/p' "/proc/$PPID/limits"); n=$((n + 1)); sleep 0.1
done
echo "$soft"
"""


def test_the_guard_takes_all_descriptors_and_leaves_the_session_its_limit(host: Host) -> None:
    command = ["prlimit", "--nofile=300:1900", *host.command(Case(("/bin/sh", "-c", LOOK), policy()))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    assert done.stdout.split() == ["300", "1900"], done.stderr
