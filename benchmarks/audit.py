"""How fast the ledger is, against plain appends: `python -m benchmarks.audit [EVENTS]`.

Three ways to keep the same number of bytes: lines appended without any sync, one fdatasync per line, and the ledger
(chained, hashed, counted, group commit). Rates depend on the disk; the ratios are what to watch. Interleaved rounds,
medians.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from agent.record.event import Action, Event, EventType, RecordError, ResourceType, Result
from agent.record.ledger import Ledger
from agent.record.metrics import Metrics
from agent.record.verify import verify

ROUNDS = 3


def event(number: int) -> Event:
    return Event(
        type=EventType.NETWORK_EGRESS,
        actor="session:bench",
        action=Action.CREATE,
        resource=f"host-{number}.test:443",
        resource_type=ResourceType.NETWORK,
        result=Result.SUCCESS,
        details={"rule": "egress.allow[0]", "mechanism": "proxy", "host": f"host-{number}.test", "port": 443},
    )


def plain(directory: Path, count: int, *, sync: bool) -> float:
    line = b"x" * 640 + b"\n"
    fd = os.open(directory / "plain", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    begin = time.perf_counter()
    for _ in range(count):
        os.write(fd, line)
        if sync:
            os.fdatasync(fd)
    spent = time.perf_counter() - begin
    os.close(fd)
    return count / spent


def ledger(directory: Path, count: int) -> float:
    book = Ledger(directory / "log", session_id="bench", boot="b", policy_digest="d" * 64, metrics=Metrics(version="0"))
    book.start()
    events = [event(number) for number in range(count)]
    begin = time.perf_counter()
    for number, each in enumerate(events):
        try:
            book.accept(each)
        except RecordError:  # the queue is full: the disk is the limit
            book.flush(60)
            book.accept(each)
        if number % 1024 == 1023:
            book.flush(60)
    book.flush(60)
    spent = time.perf_counter() - begin
    book.close()
    return count / spent


def verification(directory: Path, count: int) -> float:
    ledger(directory, count)
    begin = time.perf_counter()
    report = verify(directory / "log")
    spent = time.perf_counter() - begin
    if not report.ok:
        raise SystemExit(f"the benchmark's own log does not verify: {report.broken}")
    return report.events / spent


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    ways: dict[str, Callable[[Path], float]] = {
        "append, no sync": lambda directory: plain(directory, count, sync=False),
        "append, fdatasync each": lambda directory: plain(directory, count // 10, sync=True),
        "ledger, group commit": lambda directory: ledger(directory, count),
        "verify": lambda directory: verification(directory, count),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as scratch:
                rates[name].append(way(Path(scratch)))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        print(f"{name:<24}{rate:>12,.0f} events/s")
    own = medians["ledger, group commit"]
    print(f"ledger / append without sync: {own / medians['append, no sync']:.3f}")
    print(f"ledger / fdatasync each: {own / medians['append, fdatasync each']:.2f}")


if __name__ == "__main__":
    main()
