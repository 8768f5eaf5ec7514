"""The ledger under a full disk, kill -9 and a second session on one volume."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.record.verify import verify
from tests.record.logs import allowed, events, open_ledger
from tests.record.test_log_faults import in_tmpfs

FULL = """
import os, sys
from pathlib import Path
from agent.record.event import RecordError
from agent.record.metrics import Metrics
from agent.record.verify import verify
from tests.record.logs import allowed, denial, events, open_ledger, wait_until
mount = Path(sys.argv[1])
metrics = Metrics(version="1")
ledger = open_ledger(mount / "log", metrics=metrics, queue_events=60)
ledger.accept(allowed())
ledger.flush()
filler = os.open(mount / "filler", os.O_WRONLY | os.O_CREAT)
try:
    for _ in range(100_000):
        os.write(filler, b"x" * 4096)
except OSError:
    pass
os.ftruncate(filler, os.fstat(filler).st_size - 4096)
refused_allows = refused_denials = 0
for n in range(100):
    try:
        ledger.post(denial(f"h{n}.test:443"))
    except RecordError:
        refused_denials += 1
wait_until(lambda: ledger.failure is not None, "the full disk is noticed")
for n in range(7):
    try:
        ledger.accept(allowed())
    except RecordError as error:
        assert "No space left" in str(error), error
        refused_allows += 1
assert verify(mount / "log").ok
os.close(filler)
os.unlink(mount / "filler")
wait_until(lambda: ledger.failure is None, "writing works again")
ledger.accept(allowed("after.test:443"))
ledger.close()
report = verify(mount / "log")
denied = [e for e in events(mount / "log") if e.details["event_type"] == "network.egress_blocked"]
assert report.ok, report
assert refused_allows == 7
assert refused_denials > 0
assert len(denied) == 100 - refused_denials == metrics.denied_total()["network.egress_blocked"]
assert report.lost == refused_allows + refused_denials, report
print("told", report.gaps >= 1)
"""


def test_a_full_disk_refuses_allows_keeps_denials_and_tells_the_rest(tmp_path):
    out = in_tmpfs(tmp_path / "mnt", "64k", sys.executable, "-c", FULL, str(tmp_path / "mnt"))
    assert out == "told True\n"


KILLED = """
import sys
from tests.record.logs import allowed, denial, open_ledger
ledger = open_ledger(sys.argv[1], boot=sys.argv[2], durability=sys.argv[3], rotate_bytes=30_000)
for n in range(1_000_000):
    ledger.accept(allowed(n=n, round=sys.argv[2], pad="x" * (n % 300)))
    if sys.argv[3] == "strict" or n % 10 == 9:
        ledger.flush()
        print(n, flush=True)
"""


@pytest.mark.parametrize("durability", ["strict", "group"])
def test_kill_9_at_any_moment_leaves_a_log_that_verifies_and_every_acknowledged_event(tmp_path, durability):
    acknowledged: dict[str, int] = {}
    pick = random.Random(7)
    for number in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), str(number), durability], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        last = -1
        for _ in range(pick.randrange(1, 60)):
            last = int(child.stdout.readline())
        threading.Event().wait(pick.random() * 0.02)
        os.kill(child.pid, signal.SIGKILL)
        rest = child.stdout.read().split("\n")
        child.stdout.close()
        child.wait()
        acknowledged[str(number)] = max([last, *(int(line) for line in rest[:-1] if line)])
    ledger = open_ledger(tmp_path, boot="last")
    ledger.accept(allowed())
    ledger.close()
    report = verify(tmp_path)
    assert report.ok, report.broken
    assert report.boots == 9
    found: dict[str, list[object]] = {}
    for link in events(tmp_path):
        found.setdefault(str(link.details.get("round")), []).append(link.details.get("n"))
    for number, last in acknowledged.items():
        assert found[number] == list(range(len(found[number])))
        assert len(found[number]) > last, f"round {number}: {last} was acknowledged"


def test_two_sessions_on_one_volume_are_two_streams_that_verify(tmp_path):
    directories = [tmp_path / "one", tmp_path / "two"]
    ledgers = [open_ledger(directory, session_id=directory.name) for directory in directories]
    for ledger in ledgers * 3:
        ledger.accept(allowed())
    for ledger in ledgers:
        ledger.close()
    reports = [verify(directory) for directory in directories]
    assert all(report.ok and report.events == 3 for report in reports)
    assert len({report.stream for report in reports}) == 2
    assert not verify(Path(__file__).parent).ok
