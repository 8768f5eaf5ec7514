"""A chain that goes on in a new one: what it names, what it carries over, and that two copies never write one chain."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agent.record.branch import parent_of
from agent.record.event import EventType, RecordError
from agent.record.family import verify_family
from agent.record.log import Log, LogError
from agent.record.metrics import Metrics
from agent.record.verify import verify
from tests.record.logs import allowed, denial, events, open_ledger, wait_until


def restored(directory: Path, boot: str) -> Path:
    return directory / f"restored-{boot}"


def test_the_new_stream_names_the_last_event_on_disk_and_is_a_whole_chain_of_its_own(tmp_path: Path) -> None:
    metrics = Metrics(version="1")
    ledger = open_ledger(tmp_path / "log", metrics=metrics, boot="first")
    for number in range(3):
        ledger.post(denial(f"{number}.test:443"))
    ledger.flush()
    last = events(tmp_path / "log")[-1]
    ledger.branch(restored(tmp_path / "log", "second"), "second", {"reason": "why"})
    ledger.post(denial("later.test:443"))
    ledger.close()
    assert len(events(tmp_path / "log")) == 3
    first, second = events(restored(tmp_path / "log", "second"))
    parent = parent_of(first.details)
    assert parent is not None
    assert (parent.stream, parent.seq, parent.hash, parent.boot) == (last.stream, 3, last.hash, "first")
    assert (first.details["event_type"], first.details["reason"]) == ("agent.start", "why")
    assert (first.seq, first.previous, first.details["boot"]) == (1, "0" * 64, "second")
    assert first.stream != last.stream
    assert second.body["resource"] == "later.test:443"
    assert metrics.denied_total()["network.egress_blocked"] == 1, "the counters are the sum of the new stream's lines"
    whole, (child,) = verify_family(tmp_path / "log")
    assert whole.ok and child.ok and child.events == 2


def test_what_was_taken_and_not_on_disk_is_written_in_the_new_stream_alone(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "log")
    ledger.accept(allowed("before.test:443"))
    ledger.flush()
    still = False
    ledger.write_while(lambda: still)
    ledger.post(denial("waiting.test:443", n=7))
    wait_until(lambda: ledger.failure is not None, "the writer asks before it writes")
    with pytest.raises(RecordError, match="stood still"):
        ledger.accept(allowed("refused.test:443"))
    still = True
    ledger.branch(restored(tmp_path / "log", "b2"), "b2", {"reason": "why"})
    ledger.accept(allowed("after.test:443"))
    ledger.close()
    assert [each.body["resource"] for each in events(tmp_path / "log")] == ["before.test:443"]
    _, waiting, *rest = events(restored(tmp_path / "log", "b2"))
    assert (waiting.body["resource"], waiting.details["n"], waiting.body["result"]) == ("waiting.test:443", 7, "denied")
    assert waiting.details["written_again"]["seq"] == 2  # type: ignore[index, call-overload]
    assert waiting.details["boot"] == "b2"
    kinds = [each.details["event_type"] for each in rest]
    assert sorted(kinds) == [EventType.AUDIT_GAP, EventType.NETWORK_EGRESS], "the refused one is told as lost"


def test_two_copies_of_one_agent_go_on_in_two_streams_that_lead_back_to_the_same_event(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "log")
    ledger.accept(allowed())
    ledger.close()
    heads = []
    for copy in ("one", "two"):
        shutil.copytree(tmp_path / "log", tmp_path / copy)
        again = open_ledger(tmp_path / copy, boot="same")
        again.branch(restored(tmp_path / copy, f"boot-{copy}"), f"boot-{copy}", {"reason": "restored"})
        again.accept(allowed(f"{copy}.test:443"))
        again.close()
        assert (tmp_path / copy / "audit.jsonl").read_bytes() == (tmp_path / "log" / "audit.jsonl").read_bytes()
        whole, (child,) = verify_family(tmp_path / copy)
        assert whole.ok and child.ok
        heads.append(events(restored(tmp_path / copy, f"boot-{copy}"))[0])
    assert heads[0].stream != heads[1].stream
    assert parent_of(heads[0].details) == parent_of(heads[1].details)


def test_a_stream_of_which_nothing_reached_the_disk_is_nobodys_parent(tmp_path: Path) -> None:
    log = tmp_path / "log"
    ledger = open_ledger(log, boot="first")
    ledger.accept(allowed())
    ledger.flush()
    writing = False
    ledger.write_while(lambda: writing)
    ledger.branch(restored(log, "b2"), "b2", {"reason": "why"})
    writing = True
    ledger.branch(restored(log, "b3"), "b3", {"reason": "why"})
    ledger.close()
    parent = parent_of(events(restored(log, "b3"))[0].details)
    (before,) = events(log)
    assert parent is not None
    assert (parent.stream, parent.seq, parent.boot) == (before.stream, 1, "first")
    whole, found = verify_family(log)
    assert whole.ok and [each.ok for each in found] == [True], "the empty directory of b2 is no stream"


def test_where_no_new_directory_can_be_had_nothing_is_written_anywhere_and_a_later_try_loses_nothing(
    tmp_path: Path,
) -> None:
    ledger = open_ledger(tmp_path / "log")
    ledger.accept(allowed())
    ledger.flush()
    taken = restored(tmp_path / "log", "taken")
    other = open_ledger(taken)
    other.accept(allowed())
    with pytest.raises(LogError):
        ledger.branch(taken, "taken", {"reason": "why"})
    other.close()
    with pytest.raises(LogError, match="a chain already"):
        ledger.branch(taken, "taken", {"reason": "why"})
    ledger.post(denial())
    wait_until(lambda: ledger.failure is not None, "the write that must not be")
    assert len(events(tmp_path / "log")) == len(events(taken)) == 1
    ledger.branch(restored(tmp_path / "log", "free"), "free", {"reason": "why"})
    ledger.close()
    assert [each.details["event_type"] for each in events(restored(tmp_path / "log", "free"))] == [
        "agent.start",
        "network.egress_blocked",
    ]


def test_everything_that_is_counted_begins_at_zero() -> None:
    from tests.container.test_monitoring_live import loaded

    metrics = loaded(9)
    for name, value in vars(metrics).items():
        if type(value) is int:
            setattr(metrics, name, 9)
        elif isinstance(value, dict) and all(type(number) is int for number in value.values()):
            value.update(dict.fromkeys(value, 9))
    metrics.begin_anew()
    samples = [(s.name, s.labels, s.value) for family in metrics.families() for s in family.samples]
    counted = [each for each in samples if not each[0].startswith(("parhelia_agent_info", "parhelia_agent_enforce"))]
    assert [each for each in counted if each[2]] == []


def test_a_chain_that_claims_a_parent_which_is_not_there_is_broken(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "log")
    for _ in range(3):
        ledger.accept(allowed())
    ledger.flush()
    ledger.branch(restored(tmp_path / "log", "b2"), "b2", {"reason": "why"})
    ledger.close()
    lines = (tmp_path / "log" / "audit.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "log" / "audit.jsonl").write_bytes(b"".join(lines[:2]))
    assert verify(tmp_path / "log").ok, "a cut tail is no break of the chain alone"
    whole, (child,) = verify_family(tmp_path / "log")
    assert whole.ok
    assert child.broken is not None
    assert (child.broken.kind, child.broken.line) == ("wrong-parent", 1)


def test_a_directory_that_is_named_like_a_restored_one_and_names_no_parent_is_broken(tmp_path: Path) -> None:
    for directory in (tmp_path / "log", tmp_path / "log" / "restored-x"):
        ledger = open_ledger(directory)
        ledger.accept(allowed())
        ledger.close()
    _, (child,) = verify_family(tmp_path / "log")
    assert child.broken is not None and child.broken.kind == "wrong-parent"


def test_a_log_that_is_closed_and_not_opened_again_writes_nothing(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.open()
    log.close()
    with pytest.raises(LogError):
        log.append(b"x\n", 1, 1)
