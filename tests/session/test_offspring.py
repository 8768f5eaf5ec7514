"""Everything below a process is found and ended, the spared and the rest of the machine are not."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from agent.session.offspring import descendants, end_all
from tests.conftest import require

TWO_TREES = (
    "import subprocess, sys; trees = [subprocess.Popen([sys.executable, '-c', sys.argv[1]]) for _ in range(2)]; "
    "print(*(tree.pid for tree in trees), flush=True); [tree.wait() for tree in trees]"
)
TREE = "import os, subprocess, sys, time; subprocess.Popen(['setsid', 'sleep', '60']); time.sleep(60)"


def wait_for(count: int, root: int) -> list[int]:
    for _ in range(3000):
        found = descendants(root)
        if len(found) >= count:
            return found
        time.sleep(0.02)
    raise AssertionError(f"only {descendants(root)}")


def test_a_tree_is_ended_and_a_spared_branch_lives() -> None:
    top = subprocess.Popen([sys.executable, "-c", TWO_TREES, TREE], stdout=subprocess.PIPE, text=True)
    assert top.stdout is not None
    ended, spared = (int(word) for word in top.stdout.readline().split())
    try:
        below = wait_for(4, top.pid)
        assert {ended, spared} < set(below)
        kept = {spared, *wait_for(1, spared)}
        assert end_all(top.pid, (spared,), lambda: None, seconds=60.0) == 0
        assert set(descendants(top.pid)) == kept
    finally:
        for pid in (*descendants(top.pid), top.pid):
            os.kill(pid, 9)
        top.wait()
        top.stdout.close()


HOPPER = """
import os, sys, time
from agent.session.offspring import adopt_orphans, end_all
account, end = int(sys.argv[1]), time.monotonic() + 60
assert adopt_orphans()
begun, begin = os.pipe()
if not os.fork():
    os.setresuid(account, account, account)
    os.write(begin, b"x")
    while time.monotonic() < end:
        if os.fork():
            os._exit(0)
    os._exit(0)
def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError: pass
os.read(begun, 1)
end_all(os.getpid(), (), reap, account=account, seconds=10.0)
try:
    while True: os.waitpid(-1, 0)
except ChildProcessError:
    print("nothing is left", time.monotonic() < end)
"""


def test_what_forks_and_exits_for_ever_is_ended_and_not_outrun() -> None:
    require(os.geteuid() == 0, "an account of its own needs root")
    account = 1_000_000 + os.getpid()  # nobody else's
    argv = [sys.executable, "-c", HOPPER, str(account)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("nothing is left True\n", "")
