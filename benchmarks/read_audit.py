"""What `paths.audit: reads` costs: opens of other files while a file system is marked and while none is, interleaved,
as a ratio; and one refused open, with its record. Opens are made by a process of its own, which has one thread.

Run as root: ``.venv/bin/python -m benchmarks.read_audit [-n 20000] [-r 9]``. A ratio is the median of the rounds' own
ratios.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable

from agent.enforce.paths.reads import ReadAudit
from agent.gate import Gate
from agent.linux import fanotify, namespaces
from agent.policy.model import Policy
from tests.enforce.ring import Recorded

OPENS = """
import os, sys, time
path, count = sys.argv[1], int(sys.argv[2])
started = time.perf_counter()
for _ in range(count):
    try: os.close(os.open(path, os.O_RDONLY))
    except PermissionError: pass
print((time.perf_counter() - started) / count)
"""
FILE = "/usr/bin/env"
STARTS = 5


def opens(path: str, count: int) -> float:
    """Seconds of one open, made or refused."""
    done = subprocess.run(["/usr/bin/python3", "-c", OPENS, path, str(count)], check=True, capture_output=True)
    return float(done.stdout)


def starts(_: str, __: int) -> float:
    """Seconds of one start of Python that imports json."""
    started = time.perf_counter()
    for _ in range(STARTS):
        subprocess.run(["/usr/bin/python3", "-c", "import json"], check=True)
    return (time.perf_counter() - started) / STARTS


def audit(decoys: str) -> ReadAudit:
    """One that answers for `decoys` and keeps nothing."""
    group = fanotify.group()
    fanotify.ask_before_opens(group, decoys)
    gate = Gate(lambda: Policy(layers=(), digest="d" * 64), Recorded(), "session:benchmark")
    made = ReadAudit(group, gate, home="", tmpdir="", ended=print)
    made.start()
    made.open()
    return made


def compare(name: str, decoys: str, given: argparse.Namespace, once: Callable[[str, int], float]) -> None:
    """Print the medians of both and of their ratios."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for index in range(given.r):
        for marked in ((False, True), (True, False))[index % 2]:
            running = audit(decoys) if marked else None
            times[marked].append(once(FILE, given.n))
            if running is not None:
                running.stop()
    ratio = statistics.median(marked / plain for marked, plain in zip(times[True], times[False], strict=True))
    shown = [statistics.median(times[marked]) * 1e6 for marked in (False, True)]
    print(f"{name:34} {shown[0]:9.2f} us -> {shown[1]:9.2f} us  x{ratio:.3f}")


def refused(decoys: str, given: argparse.Namespace) -> None:
    """Print what a refused open takes."""
    running = audit(decoys)
    taken = statistics.median(opens(f"{decoys}/secret", given.n // 20) for _ in range(given.r))
    print(f"{'a refused open, with its record':34} {taken * 1e6:9.2f} us")
    running.stop()


def main() -> None:
    """In a mount namespace of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=20000, help="opens")
    parser.add_argument("-r", type=int, default=9, help="rounds")
    given = parser.parse_args()
    namespaces.unshare(namespaces.NEWNS)
    namespaces.make_mounts_private()
    with tempfile.TemporaryDirectory() as decoys:
        namespaces.tmpfs(decoys, size="64k")
        with open(f"{decoys}/secret", "w", encoding="ascii"):
            compare("an open of another file", decoys, given, opens)
        compare("python3 -c 'import json'", decoys, given, starts)
        refused(decoys, given)
        subprocess.run(["umount", decoys], check=True)


if __name__ == "__main__":
    main()
