"""A log whose disk is full, whose file is changed under it, or whose writes and rotations fail."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.record.chain import Head, read
from agent.record.log import Log, LogError
from agent.record.verify import verify
from tests.conftest import require
from tests.record.logs import allowed, chained, open_ledger


@pytest.mark.parametrize("what", ["removed", "replaced", "truncated", "appended"])
def test_a_log_changed_under_the_writer_goes_on_and_shows_it(tmp_path, what):
    ledger = open_ledger(tmp_path)
    for _ in range(3):
        ledger.accept(allowed())
    ledger.flush()
    path = tmp_path / "audit.jsonl"
    match what:
        case "removed":
            path.unlink()
        case "replaced":
            path.rename(tmp_path / "elsewhere")
            path.write_bytes(chained(1, Head("x"))[0])
        case "truncated":
            os.truncate(path, 700)
        case "appended":
            with path.open("ab") as stream:
                stream.write(b'{"half')
    for _ in range(2):
        ledger.accept(allowed())
        ledger.flush()
    ledger.close()
    report = verify(tmp_path)
    assert report.ok is (what == "appended")  # what was appended is set aside; what is gone is a break for ever
    types = [read(line).details["event_type"] for line in path.read_bytes().splitlines()]
    assert "audit.recovered" in types
    assert types.count("network.egress") >= 2
    assert [link.seq for link in map(read, path.read_bytes().splitlines())][-1] == ledger.seq


FULL = """
import os, sys
from pathlib import Path
from agent.record.log import Log, LogError
from tests.record.logs import chained
mount = Path(sys.argv[1])
lines = chained(3)
log = Log(mount / "log")
log.open()
log.append(lines[0], 1, 1)
filler = os.open(mount / "filler", os.O_WRONLY | os.O_CREAT)
try:
    for _ in range(100_000):
        os.write(filler, b"x" * 512)
except OSError as error:
    print("full", error.errno)
big = b"".join([lines[1]] * 128)
for room in (0, 8192, 24576):
    os.ftruncate(filler, os.fstat(filler).st_size - room)  # so that a part of the batch can be written
    try:
        log.append(big, 2, 129)
        print("written")
    except LogError as error:
        print("refused:", error)
    print("intact", (mount / "log" / "audit.jsonl").read_bytes() == lines[0])
log.close()
os.ftruncate(filler, os.fstat(filler).st_size - 4096)
with (mount / "log" / "audit.jsonl").open("ab") as stream:
    stream.write(b"x" * 2000)  # a torn tail, and then no page left to copy it to
try:
    while True:
        os.write(filler, b"x" * 512)
except OSError:
    pass
torn = Log(mount / "log")
try:
    torn.open()
    print("opened")
except LogError as error:
    print("refused:", error)
print("kept", (mount / "log" / "audit.jsonl").read_bytes() == lines[0] + b"x" * 2000, os.listdir(mount / "log"))
os.close(filler)
os.unlink(mount / "filler")
print("head", torn.open().seq)
torn.append(lines[1], 2, 2)
print("again", (mount / "log" / "audit.jsonl").read_bytes() == lines[0] + lines[1])
"""


def in_tmpfs(mount: Path, size: str, *command: str) -> str:
    """Run a command in a mount namespace of its own with a small tmpfs at `mount`."""
    require(os.geteuid() == 0, "mounting a tmpfs needs root")
    mount.mkdir()
    script = 'mount -t tmpfs -o size="$1",mode=0700 none "$2" && shift 2 && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", size, str(mount), *command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    require("permission denied" not in done.stderr.lower(), f"no mount namespace here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_refuses_the_batch_whole_and_takes_it_once_there_is_space(tmp_path):
    out = in_tmpfs(tmp_path / "mnt", "64k", sys.executable, "-c", FULL, str(tmp_path / "mnt")).splitlines()
    assert out[0] == "full 28"
    assert [line.startswith("refused: cannot write the audit log") for line in out[1:7:2]] == [True] * 3
    assert all("No space left" in line and "free space" in line for line in out[1:7:2])
    assert out[2:8:2] == ["intact True"] * 3
    assert out[7].startswith("refused: cannot open the audit log")
    assert out[8].startswith("kept True")
    assert "quarantine" not in out[8]
    assert out[9:] == ["head 1", "again True"]


@pytest.mark.parametrize("failing", ["fdatasync", "write"])
def test_an_io_error_leaves_the_file_as_it_was_and_the_same_bytes_are_written_again(tmp_path, monkeypatch, failing):
    one, two = chained(2)
    log = Log(tmp_path)
    log.open()
    log.append(one, 1, 1)
    real = getattr(os, failing)

    def fails(fd, *rest):
        if failing == "write":
            real(fd, bytes(rest[0])[:100])
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, failing, fails)
    with pytest.raises(LogError, match="Input/output error"):
        log.append(two, 2, 2)
    monkeypatch.undo()
    assert (tmp_path / "audit.jsonl").read_bytes() == one
    log.append(two, 2, 2)
    log.close()
    assert (tmp_path / "audit.jsonl").read_bytes() == one + two


def test_a_failed_write_that_could_not_be_cut_back_is_cut_before_the_next(tmp_path, monkeypatch):
    one, two = chained(2)
    log = Log(tmp_path)
    log.open()
    log.append(one, 1, 1)

    def fails(*args):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fails)
    monkeypatch.setattr(os, "ftruncate", fails)
    with pytest.raises(LogError):
        log.append(two, 2, 2)
    assert (tmp_path / "audit.jsonl").read_bytes() == one + two
    monkeypatch.undo()
    log.append(two, 2, 2)
    log.close()
    assert (tmp_path / "audit.jsonl").read_bytes() == one + two
    assert log.recovered == []


def test_a_rotation_that_fails_half_way_goes_on_in_a_new_file(tmp_path, monkeypatch):
    one, two = chained(2)
    log = Log(tmp_path, rotate_bytes=10)
    log.open()
    log.append(one, 1, 1)
    real = os.open

    def fails(path, flags, *rest, **options):
        if flags & os.O_EXCL:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", fails)
    with pytest.raises(LogError, match="No space left"):
        log.append(two, 2, 2)
    assert not (tmp_path / "audit.jsonl").exists()
    monkeypatch.undo()
    log.append(two, 2, 2)
    log.close()
    report = verify(tmp_path)
    assert (report.ok, report.events, len(report.files)) == (True, 2, 2)
    assert log.recovered == []
