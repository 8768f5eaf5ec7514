"""The writer: what it takes is on disk, what it cannot take is told, and killing it loses nothing acknowledged."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import pytest

from agent.record.chain import read
from agent.record.coalesce import Coalescer
from agent.record.event import EventType, RecordError, Result
from agent.record.ledger import Ledger
from agent.record.metrics import Metrics
from agent.record.verify import verify
from tests.record.logs import allowed, denial, events, open_ledger, wait_until


def test_every_event_carries_where_it_stands_and_under_which_policy(tmp_path):
    digests = iter(["first", "second"])
    ledger = open_ledger(tmp_path, session_id="sess", boot="boot-7", policy_digest=lambda: next(digests))
    ledger.accept(allowed())
    ledger.accept(allowed(policy_digest="own"))
    ledger.post(denial())
    ledger.close()
    found = [link.details for link in events(tmp_path)]
    assert [details["policy_digest"] for details in found] == ["first", "own", "second"]
    assert [details["seq"] for details in found] == [1, 2, 3]
    assert {(details["session_id"], details["boot"]) for details in found} == {("sess", "boot-7")}
    assert len({details["event_id"] for details in found}) == 3
    assert all(str(details["mono_ns"]).isdigit() for details in found)
    assert [int(str(d["mono_ns"])) for d in found] == sorted(int(str(d["mono_ns"])) for d in found)


def test_an_accepted_event_reaches_the_disk_without_further_calls(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger.accept(allowed())
    with ledger._lock:
        assert ledger._done.wait_for(lambda: ledger.synced == 1, 60)
    assert verify(tmp_path).events == 1
    ledger.close()


def test_strict_durability_returns_only_once_the_event_is_on_disk(tmp_path):
    ledger = open_ledger(tmp_path, durability="strict")
    for number in range(1, 6):
        ledger.accept(allowed())
        assert ledger.synced >= number
        assert len(events(tmp_path)) >= number
    ledger.close()


def test_a_reloaded_policy_can_make_it_strict(tmp_path):
    class Settings:
        durable = "strict"

    ledger = open_ledger(tmp_path)
    ledger.configure(Settings())
    ledger.accept(allowed())
    assert ledger.synced == 1
    ledger.close()


def test_who_watches_sees_every_event_that_was_taken_in_the_order_of_the_log_and_no_other(tmp_path):
    seen: list[str] = []
    ledger = open_ledger(tmp_path, coalescer=Coalescer(first=2))
    ledger.watch_with(lambda event: seen.append(f"{event.resource} {event.count}"))
    ledger.accept(allowed("a.test:443"))
    with pytest.raises(RecordError):
        ledger.accept(allowed("b.test:443", count=0))
    for _ in range(6):
        ledger.post(denial("c.test:443"))
    ledger.flush()
    ledger.watch_with(None)
    ledger.accept(allowed("d.test:443"))
    ledger.close()
    written = [(link.body["resource"], link.details.get("count", 1)) for link in events(tmp_path)]
    assert seen == [f"{resource} {count}" for resource, count in written if resource != "d.test:443"]
    assert [each for each in seen if "test" in each] == ["a.test:443 1", "c.test:443 1", "c.test:443 1", "c.test:443 4"]


def test_events_of_many_threads_are_one_chain(tmp_path):
    ledger = open_ledger(tmp_path, rotate_bytes=20_000)

    def work(number: int) -> None:
        for n in range(50):
            ledger.accept(allowed(f"t{number}.test:443", n=n))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.close()
    assert (verify(tmp_path).ok, verify(tmp_path).events) == (True, 400)
    for number in range(8):
        own = [link.details["n"] for link in events(tmp_path) if link.body["resource"] == f"t{number}.test:443"]
        assert own == list(range(50))


@pytest.mark.parametrize("call", ["accept", "post"])
def test_nothing_is_taken_before_start_or_after_close(tmp_path, call):
    ledger = Ledger(tmp_path, session_id="s", boot="b")
    with pytest.raises(RecordError, match="not open"):
        getattr(ledger, call)(allowed())
    ledger.start()
    ledger.accept(allowed())
    ledger.close()
    with pytest.raises(RecordError, match="closing"):
        getattr(ledger, call)(allowed())
    assert verify(tmp_path).ok
    assert verify(tmp_path).lost == 1  # what came too early is told; what comes after the end can only be counted


def test_what_was_lost_is_told_by_a_gap_event_with_its_types(tmp_path):
    metrics = Metrics(version="1")
    ledger = open_ledger(tmp_path, metrics=metrics)
    for bad in (
        denial(x=1.5),
        denial(count=0),
        denial(count=-3),
        denial(count=True),
        allowed(count="7"),
        denial(x=2**60),
    ):
        with pytest.raises(RecordError):
            ledger.accept(bad)
    ledger.flush()
    ledger.accept(allowed())
    ledger.close()
    gaps = [link for link in events(tmp_path) if link.details["event_type"] == "audit.gap"]
    sums: dict[str, int] = {}
    for gap in gaps:  # the writer may tell them in one line or in several
        assert gap.body["result"] == "error"
        for event_type, count in gap.details["lost_by_type"].items():
            sums[event_type] = sums.get(event_type, 0) + count
    assert sums == {"network.egress": 1, "network.egress_blocked": 5}
    assert (verify(tmp_path).gaps, verify(tmp_path).lost) == (len(gaps), 6)
    assert "parhelia_agent_audit_lost_total 6.0" in metrics.render().decode()
    assert metrics.denied_total()["network.egress_blocked"] == 0


def test_a_full_queue_refuses_and_the_losses_are_exact(tmp_path, monkeypatch):
    metrics = Metrics(version="1")
    ledger = open_ledger(tmp_path, metrics=metrics, queue_events=10, coalescer=Coalescer(first=1000))
    gate = threading.Event()
    real = os.fdatasync

    def slow(fd: int) -> None:
        assert gate.wait(60)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", slow)
    refused = 0
    for number in range(500):
        try:
            ledger.post(denial(f"h{number}.test:443"))
        except RecordError as error:
            assert "queue is full" in str(error)
            refused += 1
    gate.set()
    ledger.flush(30)
    ledger.accept(allowed())
    ledger.close()
    report = verify(tmp_path)
    taken = [link for link in events(tmp_path) if link.details["event_type"] == "network.egress_blocked"]
    assert report.ok
    assert refused == 490
    assert report.lost == refused
    assert len(taken) == 10
    assert metrics.denied_total()["network.egress_blocked"] == 10


def test_a_burst_is_few_lines_and_the_counters_equal_the_sum_of_lines(tmp_path):
    metrics = Metrics(version="1")
    ledger = open_ledger(tmp_path, metrics=metrics)
    for number in range(1000):
        ledger.post(denial(f"h{number % 3}.test:443"))
    ledger.post(replace(denial(), type=EventType.BASH_DANGEROUS))
    ledger.post(replace(denial("observed.test:443", enforced=False), result=Result.SUCCESS))
    ledger.close()
    lines = events(tmp_path)
    sums: dict[object, int] = {}
    for link in lines:
        if link.body["result"] == "denied":
            kind = link.details["event_type"]
            count = link.details.get("count", 1)
            assert isinstance(count, int)
            sums[kind] = sums.get(kind, 0) + count
    assert sums == {"network.egress_blocked": 1000, "bash.dangerous": 1}
    assert len(lines) < 60
    assert metrics.denied_total() == {"network.egress_blocked": 1000, "bash.dangerous": 1, "permission.denied": 0}


def test_a_held_burst_is_written_when_its_window_ends_without_further_calls(tmp_path):
    ledger = open_ledger(tmp_path, coalescer=Coalescer(first=1, window_ns=50_000_000))
    for _ in range(4):
        ledger.post(denial())

    def written() -> int:
        """In whole lines; a machine that is busy may need more than one window for the four."""
        lines = (tmp_path / "audit.jsonl").read_bytes().splitlines(keepends=True)
        return sum(int(str(read(line).details.get("count", 1))) for line in lines if line.endswith(b"\n"))

    wait_until(lambda: written() == 4, "the burst is in the log")
    ledger.close()


def test_a_failed_sync_is_retried_and_meanwhile_allows_are_refused_and_denials_kept(tmp_path, monkeypatch):
    ledger = open_ledger(tmp_path)
    real = os.fdatasync
    broken = threading.Event()
    broken.set()

    def fails(fd: int) -> None:
        if broken.is_set():
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fails)
    ledger.accept(allowed("first.test:443"))
    with pytest.raises(RecordError, match="Input/output error"):
        ledger.flush()
    assert ledger.failure is not None
    with pytest.raises(RecordError, match="cannot write the audit log"):
        ledger.accept(allowed("refused.test:443"))
    for number in range(20):
        ledger.post(denial(f"h{number}.test:443"))
    broken.clear()
    with ledger._lock:
        assert ledger._done.wait_for(lambda: ledger.synced >= 21, 60)
    ledger.accept(allowed("later.test:443"))
    ledger.close()
    report = verify(tmp_path)
    resources = [str(link.body["resource"]) for link in events(tmp_path)]
    assert report.ok
    assert "refused.test:443" not in resources
    assert (report.gaps, report.lost) == (1, 1)
    assert {"first.test:443", "later.test:443", *(f"h{n}.test:443" for n in range(20))} <= set(resources)


def test_a_strict_event_that_was_refused_for_the_disk_is_disowned_by_name(tmp_path, monkeypatch):
    ledger = open_ledger(tmp_path, durability="strict")
    ledger.accept(allowed("good.test:443"))
    real = os.fdatasync

    def fails(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fails)
    with pytest.raises(RecordError, match="Input/output error"):
        ledger.accept(allowed("refused.test:443"))
    monkeypatch.setattr(os, "fdatasync", real)
    with ledger._lock:
        assert ledger._done.wait_for(lambda: ledger.synced >= 3, 60)
    ledger.close()
    gap = events(tmp_path)[-1]
    assert gap.details["unacknowledged_seq"] == [2]
    assert verify(tmp_path).ok


def test_closing_with_a_dead_disk_is_bounded_and_says_what_is_missing(tmp_path, monkeypatch):
    ledger = open_ledger(tmp_path)

    def fails(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", fails)
    for _ in range(3):
        ledger.accept(allowed())
    with pytest.raises(RecordError, match="3 queued"):
        ledger.close(30)
    monkeypatch.undo()
    ledger = open_ledger(tmp_path)  # the lock is free, the file is sound
    ledger.accept(allowed())
    ledger.close()
    assert verify(tmp_path).events == 1


def test_a_writer_thread_that_dies_of_a_bug_takes_nothing_more(tmp_path, monkeypatch):
    ledger = open_ledger(tmp_path)
    seen: list[object] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    monkeypatch.setattr(os, "fdatasync", lambda fd: {}["a bug"])
    ledger.accept(allowed())
    ledger._thread.join(60)
    assert len(seen) == 1
    with pytest.raises(RecordError, match="not open"):
        ledger.accept(allowed())
