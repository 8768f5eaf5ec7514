"""The files: opened, locked, recovered from every torn state, rotated, and kept sound by a failing disk."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.record.chain import Head, Kind, link, read
from agent.record.event import EventType
from agent.record.log import Log, LogError, WriterBusy
from agent.record.verify import verify
from tests.conftest import require
from tests.record.logs import STAMPS, allowed, chained, denial, events, open_ledger, reforge


def seeded(directory: Path, data: bytes) -> Path:
    directory.mkdir(mode=0o700)
    (directory / "audit.jsonl").write_bytes(data)
    return directory


def restart(directory: Path) -> None:
    ledger = open_ledger(directory, boot="boot-2")
    ledger.accept(allowed("after.test:443"))
    ledger.close()


def test_a_new_log_is_private_to_the_agent(tmp_path):
    before = os.umask(0)
    try:
        restart(tmp_path / "vol" / "log")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "vol" / "log").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "vol" / "log" / "audit.jsonl").stat().st_mode) == 0o600


SECOND = """
import sys
import threading
from pathlib import Path
from agent.record.log import Log, WriterBusy
try:
    Log(Path(sys.argv[1])).open()
except WriterBusy:
    print("busy")
"""


def test_a_second_writer_is_busy_and_the_first_goes_on(tmp_path):
    ledger = open_ledger(tmp_path)
    with pytest.raises(WriterBusy, match="another process writes"):
        open_ledger(tmp_path)
    other = subprocess.run([sys.executable, "-c", SECOND, str(tmp_path)], capture_output=True, text=True, check=True)
    assert other.stdout == "busy\n"
    ledger.accept(allowed())
    ledger.close()
    restart(tmp_path)
    assert verify(tmp_path).events == 2


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_a_directory_in_which_others_could_replace_the_log_is_refused(tmp_path, mode):
    tmp_path.chmod(mode)
    with pytest.raises(LogError, match="others could replace"):
        Log(tmp_path).open()


@pytest.mark.root
def test_a_directory_or_file_of_another_user_is_refused(tmp_path):
    require(os.geteuid() == 0, "giving files away needs root")
    (tmp_path / "log").mkdir(mode=0o700)
    (tmp_path / "log" / "audit.jsonl").write_bytes(b"")
    os.chown(tmp_path / "log" / "audit.jsonl", 12345, 12345)
    with pytest.raises(LogError, match="not a regular file of the agent's own user"):
        Log(tmp_path / "log").open()
    os.chown(tmp_path / "log", 12345, 12345)
    with pytest.raises(LogError, match="others could replace the audit log here \\(owner 12345"):
        Log(tmp_path / "log").open()


@pytest.mark.parametrize("name", ["audit.jsonl", "audit.lock"])
def test_a_symlink_in_the_place_of_a_file_is_not_followed(tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "log").mkdir(mode=0o700)
    (tmp_path / "log" / name).symlink_to(victim)
    with pytest.raises(LogError):
        Log(tmp_path / "log").open()
    assert victim.read_text() == "precious"


def test_a_fifo_in_the_place_of_the_log_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "audit.jsonl")
    with pytest.raises(LogError, match="not a regular file"):
        Log(tmp_path).open()


def test_a_path_that_cannot_be_a_directory_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "log"):
        with pytest.raises(LogError, match="audit log in"):
            Log(path).open()


def test_every_byte_prefix_of_a_log_recovers_and_loses_no_whole_line(tmp_path, monkeypatch):
    for name in ("fsync", "fdatasync"):  # thousands of them, of which a slow disk takes minutes, show nothing here
        monkeypatch.setattr(os, name, lambda fd: None)
    lines = chained(2)
    whole = b"".join(lines)
    ends = [sum(map(len, lines[:n])) for n in range(3)]
    for cut in range(len(whole) + 1):
        directory = seeded(tmp_path / str(cut), whole[:cut])
        kept = sum(end <= cut for end in ends) - 1
        restart(directory)
        report = verify(directory)
        assert report.ok, (cut, report.broken)
        torn = cut - ends[kept]
        assert report.recovered == (1 if torn else 0)
        assert [link.hash for link in events(directory)[:kept]] == [read(line).hash for line in lines[:kept]]
        if torn:
            told = events(directory)[kept].details
            assert (told["event_type"], told["sidecar_bytes"]) == ("audit.recovered", torn)
            assert (directory / str(told["sidecar"])).read_bytes() == whole[ends[kept] : cut]


@pytest.mark.parametrize(
    "garbage",
    [b"\n", b"\0" * 4096, b"\0" * 100 + b"\n", b'{"a":1}\n', b"x" * 3_000_000, b"a\nb\nc\n", chained(1)[0][5:]],
)
def test_an_unparsable_tail_is_set_aside_whole(tmp_path, garbage):
    directory = seeded(tmp_path / "log", b"".join(chained(2)) + garbage)
    restart(directory)
    report = verify(directory)
    assert (report.ok, report.events, report.recovered) == (True, 4, 1)
    told = events(directory)[2].details
    sidecar = directory / str(told["sidecar"])
    assert sidecar.read_bytes() == garbage
    assert stat.S_IMODE(sidecar.stat().st_mode) == 0o600


def test_an_edited_last_line_is_evidence_and_stays_where_it_is(tmp_path):
    first, second = chained(2)
    directory = seeded(tmp_path / "log", first + second.replace(b"host-1", b"host-X"))
    restart(directory)
    broken = verify(directory).broken
    assert broken is not None
    assert (broken.line, broken.kind) == (2, Kind.EDITED)
    lines = (directory / "audit.jsonl").read_bytes().splitlines()
    assert b"host-X" in lines[1]
    assert read(lines[2]).details["event_type"] == EventType.AUDIT_RECOVERED
    assert "edited" in str(read(lines[2]).details["reason"])


def test_a_crash_between_setting_aside_and_telling_is_told_at_the_next_start(tmp_path):
    directory = seeded(tmp_path / "log", chained(1)[0] + b"torn")
    log = Log(directory)
    log.open()
    log.close()  # the tail is cut, the event is not written: as if killed here
    assert len(list(directory.glob("quarantine-*.pending"))) == 1
    restart(directory)
    assert verify(directory).recovered == 1
    assert [path.read_bytes() for path in directory.glob("quarantine-*.bin")] == [b"torn"]
    assert list(directory.glob("*.pending")) == []
    restart(directory)
    assert verify(directory).recovered == 1


def test_the_chain_goes_on_across_restarts_with_its_stream_and_a_new_boot(tmp_path):
    for boot in ("one", "two", "three"):
        ledger = open_ledger(tmp_path, boot=boot)
        ledger.accept(allowed())
        ledger.close()
    found = events(tmp_path)
    assert [link.seq for link in found] == [1, 2, 3]
    assert [link.details["boot"] for link in found] == ["one", "two", "three"]
    assert len({link.stream for link in found}) == 1
    assert verify(tmp_path).boots == 3


def test_rotation_is_by_size_names_files_by_their_first_seq_and_keeps_the_chain(tmp_path):
    for boot in range(3):
        ledger = open_ledger(tmp_path, boot=str(boot), rotate_bytes=4000)
        for number in range(20):
            ledger.accept(allowed(f"h{number}.test:443"))
            ledger.flush()
        ledger.close()
    names = sorted(path.name for path in tmp_path.glob("audit-*.jsonl"))
    assert len(names) >= 8
    for name in names:
        data = (tmp_path / name).read_bytes()
        assert len(data) <= 4000
        assert name == f"audit-{read(data.splitlines()[0]).seq:012d}.jsonl"
    report = verify(tmp_path)
    assert (report.ok, report.events) == (True, 60)


def test_a_crash_in_the_middle_of_a_rotation_goes_on_from_the_rotated_file(tmp_path):
    restart(tmp_path)
    (tmp_path / "audit.jsonl").rename(tmp_path / "audit-000000000001.jsonl")
    restart(tmp_path)
    report = verify(tmp_path)
    assert (report.ok, report.events, len(report.files)) == (True, 2, 2)


def test_rotation_never_overwrites_a_file(tmp_path):
    log = Log(tmp_path, rotate_bytes=10)
    log.open()
    one, two = chained(2)
    log.append(one, 1, 1)
    (tmp_path / "audit-000000000001.jsonl").write_bytes(b"evidence")
    with pytest.raises(LogError, match="there already"):
        log.append(two, 2, 2)
    log.close()
    assert (tmp_path / "audit-000000000001.jsonl").read_bytes() == b"evidence"
    assert (tmp_path / "audit.jsonl").read_bytes() == one


def test_a_log_verifies_at_every_moment_of_being_written_and_rotated(tmp_path):
    ledger = open_ledger(tmp_path, rotate_bytes=50_000)
    stop = threading.Event()

    def write() -> None:
        for number in range(20_000):
            if stop.is_set():
                return
            ledger.accept(allowed(n=number))
            if number % 50 == 49:
                ledger.flush()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while writer.is_alive() and (len(seen) < 2 or len(seen[-1].files) < 8):  # bounded by what the writer writes
        report = verify(tmp_path)
        if report.events:
            seen.append(report)
    stop.set()
    writer.join()
    ledger.close()
    assert len(seen) > 1
    assert [report.broken for report in seen] == [None] * len(seen)
    assert [report.events for report in seen] == sorted(report.events for report in seen)
    assert verify(tmp_path).ok


def test_a_line_linked_by_hand_is_what_the_log_holds(tmp_path):
    log = Log(tmp_path)
    assert log.open() is None
    line, head = link(Head("s"), denial(), STAMPS, 0)
    log.append(line, 1, 1)
    log.close()
    again = Log(tmp_path)
    assert again.open() == head
    again.close()
    assert reforge(line, lambda body: None) == line
