"""What an egress process refused and its guard did not live to record is left for the next guard."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent.channel import Channel, messages, pair
from agent.daemon.egress.peer import EgressFault, record_last_words
from agent.enforce.egress.recorder import ChannelRecorder
from agent.record.event import EventType
from tests.escape.runtime import read_log
from tests.record.logs import allowed, denial, open_ledger

ACTOR = "session:s"


def words_after(taken: int, denials: int) -> bytes:
    """Of a recorder whose other end took nothing more after `taken`."""

    async def run() -> bytes:
        ours, theirs = pair()
        ours.setblocking(False)
        with ours, theirs:
            recorder = ChannelRecorder(Channel(ours), lambda _: None, max_backlog=2000, remember=True)
            for number in range(denials):
                recorder.post(denial(f"h{number}.test:443"))
            recorder.accept(allowed())
            recorder.taken(taken)
            return recorder.last_words()

    return asyncio.run(run())


@pytest.mark.parametrize("taken", [0, 1, 3, 99])
def test_denials_that_were_not_taken_are_left_with_those_that_were_folded(taken: int) -> None:
    left = [message["event"]["resource"] for message in messages(words_after(taken, 3))]
    assert left == [f"h{number}.test:443" for number in range(taken, 3)]


def test_a_flood_that_was_folded_is_left_with_its_count() -> None:
    async def run() -> bytes:
        ours, theirs = pair()
        ours.setblocking(False)
        with ours, theirs:
            recorder = ChannelRecorder(Channel(ours), lambda _: None, max_backlog=500, remember=True)
            for _ in range(1000):
                recorder.post(denial())
            return recorder.last_words()

    events = [message["event"] for message in messages(asyncio.run(run()))]
    assert sum(event["details"].get("count", 1) for event in events) == 1000
    assert len(events) < 10


def left_in(tmp_path: Path, data: bytes) -> int:
    path = tmp_path / "words"
    path.write_bytes(data)
    return os.open(path, os.O_RDONLY)


def test_the_next_guard_records_them(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "log")
    assert record_last_words(left_in(tmp_path, words_after(1, 4)[:-3]), ledger, ACTOR) == 2  # the last one was cut off
    ledger.close()
    assert [event["resource"] for event in read_log(tmp_path / "log")] == ["h1.test:443", "h2.test:443"]


@pytest.mark.parametrize("old", ["session:s", str(EventType.NETWORK_EGRESS_BLOCKED)])
def test_what_an_egress_process_may_not_say_it_may_not_leave(tmp_path: Path, old: str) -> None:
    ledger = open_ledger(tmp_path / "log")
    new = old[::-1] if old == ACTOR else "session.terminate".ljust(len(old))[: len(old)]
    forged = words_after(0, 1).replace(old.encode(), new.encode())
    with pytest.raises((EgressFault, ValueError)):
        record_last_words(left_in(tmp_path, forged), ledger, ACTOR)
    ledger.close()
    assert read_log(tmp_path / "log") == ()
