"""A writer that dies loses nothing that it had taken: its successor finds it, once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.linux.memory import nameless
from agent.record import unwritten as module
from agent.record.event import Event
from agent.record.ledger import Ledger
from agent.record.metrics import Metrics
from agent.record.unwritten import Unwritten
from tests.escape.runtime import read_log, verify
from tests.record.logs import allowed, denial


def ledger_in(directory: Path, unwritten: Unwritten, metrics: Metrics | None = None) -> Ledger:
    return Ledger(directory, session_id="s", boot="b", metrics=metrics, unwritten=unwritten)


def die_after(directory: Path, unwritten: Unwritten, events: list[Event], pause: int) -> None:
    """A writer in a process of its own that takes the events and is killed in the moment after the last one."""
    child = os.fork()
    if child == 0:
        try:
            ledger = ledger_in(directory, unwritten)
            ledger.start()
            ledger.accept(allowed("start"))
            ledger.flush()
            for number, event in enumerate(events):
                ledger.post(event)
                if number == pause:
                    ledger.flush()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def take_over(directory: Path, unwritten: Unwritten) -> Metrics:
    metrics = Metrics(version="test")
    ledger = ledger_in(directory, unwritten, metrics)
    ledger.start(0)
    ledger.close()
    return metrics


@pytest.mark.parametrize("pause", [-1, 3, 40])
def test_all_that_a_killed_writer_had_taken_is_in_the_log_and_in_the_counters_once(tmp_path: Path, pause: int) -> None:
    unwritten = Unwritten(nameless("test"))
    bursts = [denial(f"h{n % 3}.test:443") for n in range(60)]
    die_after(tmp_path / "log", unwritten, [*bursts, allowed("last")], pause)
    metrics = take_over(tmp_path / "log", unwritten)
    assert verify(tmp_path / "log") == 0
    events = read_log(tmp_path / "log")
    for host in range(3):
        counts = [event["details"].get("count", 1) for event in events if event["resource"] == f"h{host}.test:443"]
        assert sum(counts) == 20
    assert sum(event["resource"] == "last" for event in events) == 1
    assert metrics.denied_total()[denial().type.value] == 60
    unwritten.close()


def test_a_successor_of_a_successor_does_not_tell_it_again(tmp_path: Path) -> None:
    unwritten = Unwritten(nameless("test"))
    die_after(tmp_path / "log", unwritten, [denial() for _ in range(30)], -1)
    take_over(tmp_path / "log", unwritten)
    before = read_log(tmp_path / "log")
    take_over(tmp_path / "log", unwritten)
    assert read_log(tmp_path / "log") == before
    unwritten.close()


def test_what_is_written_takes_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much goes through while something is held back, and when all is written."""
    monkeypatch.setattr(module, "_GROWTH", 20_000)
    unwritten = Unwritten(nameless("test"))
    ledger = ledger_in(tmp_path / "log", unwritten)
    ledger.start()
    for number in range(3000):
        ledger.post(denial(f"h{number % 2}.test:443"))
    ledger.flush()
    assert os.fstat(unwritten.descriptor).st_blocks * 512 < 4 << 20
    ledger.close()
    left = unwritten.left()
    assert (left.lines, left.bursts) == ((), ())
    assert sum(event["details"].get("count", 1) for event in read_log(tmp_path / "log")) == 3000
    unwritten.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 5)), max_size=30), st.binary(min_size=1, max_size=90))
def test_a_record_whose_writer_died_in_the_middle_is_not_there(steps: list[tuple[str, int]], half: bytes) -> None:
    """Its data come first, and then, at once, what makes it a record."""
    unwritten = Unwritten(nameless("test"))
    lines = [f"{name}{count}\n".encode() * count for name, count in steps]
    for (name, _), line in zip(steps, lines, strict=True):
        unwritten.line(line, allowed(name))
    at = unwritten._end + module._RECORD.size
    unwritten._memory[at : at + len(half)] = half
    successor = Unwritten(os.dup(unwritten.descriptor))
    assert successor.left().lines == tuple(lines)
    for each in (unwritten, successor):
        each.close()
