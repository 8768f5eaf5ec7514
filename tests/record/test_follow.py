"""Watching a log that is written and rotated meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.record.chain import read
from agent.record.follow import Follower
from tests.record.logs import allowed, chained, open_ledger


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[Follower]:
    follower = Follower(tmp_path)
    yield follower
    follower.close()


def numbers(lines: list[bytes]) -> list[int]:
    return [read(line).seq for line in lines]


@pytest.mark.parametrize(
    ("count", "expected"), [(0, []), (1, [8]), (3, [6, 7, 8]), (6, [3, 4, 5, 6, 7, 8]), (99, list(range(1, 9)))]
)
def test_the_last_lines_are_found_across_files(tmp_path, follower, count, expected):
    lines = chained(8)
    (tmp_path / "audit-000000000001.jsonl").write_bytes(b"".join(lines[:3]))
    (tmp_path / "audit-000000000004.jsonl").write_bytes(b"".join(lines[3:6]))
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines[6:]))
    assert numbers(follower.last(count)) == expected
    assert follower.more() == []


def test_a_line_is_given_once_it_is_whole(tmp_path, follower):
    one, two, three = chained(3)
    path = tmp_path / "audit.jsonl"
    path.write_bytes(one + two[:10])
    assert follower.last(10) == [one]
    assert follower.more() == []
    path.write_bytes(one + two + three[:5])
    assert follower.more() == [two]
    path.write_bytes(one + two + three)
    assert follower.more() == [three]


def test_a_log_that_begins_later_is_seen(tmp_path, follower):
    assert follower.last(10) == []
    assert follower.more() == []
    (tmp_path / "audit.jsonl").write_bytes(chained(1)[0])
    assert numbers(follower.more()) == [1]


def test_no_line_is_missed_or_repeated_over_many_rotations(tmp_path, follower):
    ledger = open_ledger(tmp_path, rotate_bytes=3000)
    seen = follower.last(10)
    for number in range(60):
        ledger.accept(allowed(n=number))
        ledger.flush()
        if number % 7 == 0:
            seen += follower.more()
    ledger.close()
    seen += follower.more()
    assert numbers(seen) == list(range(1, 61))
    assert len(list(tmp_path.glob("audit-*.jsonl"))) > 5


def test_a_replaced_log_is_followed_from_its_beginning(tmp_path, follower):
    one, two = chained(2)
    (tmp_path / "audit.jsonl").write_bytes(one)
    assert follower.last(1) == [one]
    (tmp_path / "audit.jsonl").unlink()
    assert follower.more() == []
    (tmp_path / "audit.jsonl").write_bytes(two)
    assert follower.more() == [two]


def test_a_reader_that_races_with_rotations_misses_nothing(tmp_path, follower):
    ledger = open_ledger(tmp_path, rotate_bytes=2000)

    def write() -> None:
        for number in range(300):
            ledger.accept(allowed(n=number))
            ledger.flush()

    writer = threading.Thread(target=write)
    writer.start()
    seen = follower.last(1_000_000)
    while writer.is_alive():
        seen += follower.more()
    writer.join()
    ledger.close()
    seen += follower.more()
    assert numbers(seen) == list(range(1, 301))
