"""A session's first moments under attack: while it is made, before its first instruction, before its agent answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.escape.runtime import AGENT, Case, Host, policy, read_log, verify
from tests.escape.test_death_of_the_agent import RUN_ROOT

PATIENCE_S = 90.0
REPLACING = """
import os, sys
target, session = sys.argv[1:]
print("up", flush=True)
while True:
    for name in os.listdir("/tmp"):
        for path in (f"/tmp/{name}", f"/tmp/{name}/tmp", f"/tmp/{name}/home"):
            if name.startswith(f"session-{session}-") and not name.endswith(".away") and not os.path.islink(path):
                try:
                    os.rename(path, path + ".away")
                    os.symlink(target, path)
                except OSError: continue
"""
"""Takes away what is made for a session and puts a symlink in its place."""
UNGRANTED = "/var/lib/dpkg"


@contextmanager
def somebody(script: str, *words: str) -> Iterator[None]:
    """A process of the session's account, outside of any session, that runs this for as long as it is open."""
    argv = ["setpriv", "--reuid=session", "--regid=session", "--clear-groups", "/usr/bin/python3", "-c", script, *words]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == b"up\n"
            yield
        finally:
            running.kill()


def test_what_is_made_for_a_session_is_not_replaced_by_another_process_of_its_account(host: Host) -> None:
    reading = f'head -c 8 {UNGRANTED}/status; echo "$?"; touch "$TMPDIR/x"; echo "$?"; readlink "$TMPDIR"'
    session = f"births-{os.getpid()}"
    case = Case(("/bin/sh", "-c", reading), policy(write="/var/tmp"), env={"PARHELIA_SESSION_ID": session})
    with somebody(REPLACING, UNGRANTED, session):
        outcome = host.run(case)
    assert outcome.stdout == "1\n0\n", outcome.stderr
    assert outcome.verified == 0
