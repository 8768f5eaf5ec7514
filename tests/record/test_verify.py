"""Every way to break a log is named with its file, line and kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.record.chain import Head, Kind, read
from agent.record.verify import verify
from tests.record.logs import chained, reforge


def write(directory: Path, lines: list[bytes], name: str = "audit.jsonl") -> Path:
    directory.mkdir(exist_ok=True)
    (directory / name).write_bytes(b"".join(lines))
    return directory


def head_of(line: bytes) -> Head:
    found = read(line)
    return Head(found.stream, found.seq, found.hash)


def edited(body):
    body["resource"] = "innocent.test:443"


L = chained(8)
OTHER = chained(8, Head("another stream"))
# A chain forked after event 4: different content, linked to it as event 5 is.
FORK = chained(3, Head("stream", 4, read(L[3]).hash))
FIRST = "audit-000000000001.jsonl"
BREAKS = [
    ("edited in place", [*L[:3], L[3].replace(b"host-3", b"host-X"), *L[4:]], 4, Kind.EDITED),
    ("edited with its hash made to match", [*L[:3], reforge(L[3], edited), *L[4:]], 5, Kind.REMOVED),
    ("one removed", [*L[:3], *L[4:]], 4, Kind.REMOVED),
    ("several removed", [*L[:2], *L[6:]], 3, Kind.REMOVED),
    ("neighbours swapped", [*L[:3], L[4], L[3], *L[5:]], 4, Kind.SWAPPED),
    ("the first two swapped", [L[1], L[0], *L[2:]], 1, Kind.SWAPPED),
    ("reordered", [*L[:2], L[5], *L[2:5], *L[6:]], 3, Kind.REORDERED),
    ("duplicated next to itself", [*L[:4], L[3], *L[4:]], 5, Kind.DUPLICATED),
    ("duplicated at the end", [*L, L[2]], 9, Kind.DUPLICATED),
    ("forked", [*L[:6], *FORK], 7, Kind.FORKED),
    ("a second beginning", [*L[:4], *OTHER], 5, Kind.FORKED),
    ("the beginning removed", L[1:], 1, Kind.WRONG_GENESIS),
    ("a beginning with a link", [reforge(L[0], lambda b: b.update(previous_hash="a" * 64))], 1, Kind.WRONG_GENESIS),
    ("a torn tail", [*L, L[0][:50]], 9, Kind.TORN_TAIL),
    ("a tail without its newline", [*L[:7], L[7][:-1]], 8, Kind.TORN_TAIL),
    ("a blank line", [*L[:2], b"\n", *L[2:]], 3, Kind.MALFORMED),
    ("zeroes", [*L[:2], b"\0" * 512 + b"\n", *L[2:]], 3, Kind.MALFORMED),
    ("a line longer than any", [*L[:2], b"a" * 3_000_000 + b"\n", *L[2:]], 3, Kind.MALFORMED),
    ("a key more", [*L[:2], reforge(L[2], lambda b: b.update(note="x")), *L[3:]], 3, Kind.BAD_KEYS),
    ("spaces", [*L[:2], json.dumps(json.loads(L[2])).encode() + b"\n", *L[3:]], 3, Kind.NON_CANONICAL),
    (
        "a seq left out, hashes made to match",
        [*L[:4], *chained(2, Head("stream", 5, read(L[3]).hash))],
        5,
        Kind.SEQ_GAP,
    ),
    ("another stream's name", [*L[:4], *chained(2, Head("x", 4, read(L[3]).hash))], 5, Kind.FOREIGN_STREAM),
    ("nothing", [], 0, Kind.EMPTY),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "line", "kind"), [case[1:] for case in BREAKS], ids=[case[0] for case in BREAKS])
def test_a_broken_log_is_named_by_line_and_kind(tmp_path, lines, line, kind):
    report = verify(write(tmp_path / "log", lines))
    assert report.broken is not None
    assert (report.broken.file, report.broken.line, report.broken.kind) == ("audit.jsonl", line, kind)
    assert report.broken.message
    assert not report.ok


def test_a_sound_log_says_what_it_holds(tmp_path):
    report = verify(write(tmp_path / "log", L))
    assert report.ok and report.anchored
    assert (report.events, report.first_seq, report.last_seq) == (8, 1, 8)
    assert (report.head, report.stream, report.files) == (read(L[-1]).hash, "stream", ["audit.jsonl"])


def test_a_removal_says_which_events_are_missing(tmp_path):
    report = verify(write(tmp_path / "log", [*L[:2], *L[6:]]))
    assert report.broken is not None
    assert "events 3 to 6 are missing" in report.broken.message


def test_a_clean_cut_of_the_tail_is_not_seen_and_the_report_does_not_claim_it(tmp_path):
    report = verify(write(tmp_path / "log", L[:5]))
    assert report.ok
    assert report.last_seq == 5


def rotated(tmp_path: Path) -> Path:
    directory = write(tmp_path / "log", L[:3], "audit-000000000001.jsonl")
    write(directory, L[3:5], "audit-000000000004.jsonl")
    return write(directory, L[5:])


def test_rotated_files_are_one_chain(tmp_path):
    report = verify(rotated(tmp_path))
    assert report.ok
    assert report.files == ["audit-000000000001.jsonl", "audit-000000000004.jsonl", "audit.jsonl"]
    assert report.events == 8


def test_a_crash_between_rename_and_creation_leaves_a_sound_log(tmp_path):
    directory = rotated(tmp_path)
    (directory / "audit.jsonl").unlink()
    assert verify(directory).ok  # a clean cut at a file's border, as any cut of the tail


@pytest.mark.parametrize(
    ("break_it", "file", "line", "kind"),
    [
        (lambda d: (d / "audit-000000000004.jsonl").unlink(), "audit.jsonl", 1, Kind.WRONG_FILE_LINK),
        (lambda d: (d / "audit-000000000001.jsonl").unlink(), "audit-000000000004.jsonl", 1, Kind.WRONG_GENESIS),
        (
            lambda d: (d / "audit-000000000004.jsonl").rename(d / "audit-000000000005.jsonl"),
            "audit-000000000005.jsonl",
            1,
            Kind.WRONG_FILE_LINK,
        ),
        (lambda d: write(d, [*L[:3], L[3][:20]], FIRST), FIRST, 4, Kind.TORN_TAIL),
        (lambda d: write(d, L[:2], FIRST), "audit-000000000004.jsonl", 1, Kind.WRONG_FILE_LINK),
        (lambda d: write(d, L[3:6]), "audit.jsonl", 1, Kind.DUPLICATED),
    ],
)  # fmt: skip
def test_a_break_between_files_names_the_file(tmp_path, break_it, file, line, kind):
    directory = rotated(tmp_path)
    break_it(directory)
    broken = verify(directory).broken
    assert broken is not None
    assert (broken.file, broken.line, broken.kind) == (file, line, kind)


def test_one_rotated_file_alone_is_checked_and_its_first_link_said_to_be_unchecked(tmp_path):
    report = verify(rotated(tmp_path) / "audit-000000000004.jsonl")
    assert report.ok
    assert not report.anchored
    assert (report.first_seq, report.last_seq) == (4, 5)


def test_a_directory_that_is_not_there_is_an_error_and_not_a_verdict(tmp_path):
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "nowhere")


def test_an_emptied_directory_does_not_verify(tmp_path):
    broken = verify(tmp_path).broken
    assert broken is not None
    assert broken.kind is Kind.EMPTY


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_byte_edit_of_a_log_is_caught_at_or_before_the_next_line(tmp_path, data):
    whole = b"".join(L)
    at = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != whole[at]))
    report = verify(write(tmp_path / "log", [whole[:at] + bytes([byte]) + whole[at + 1 :]]))
    assert report.broken is not None
    assert report.broken.line <= whole[:at].count(b"\n") + 1


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_removal_swap_or_duplication_of_lines_is_caught(tmp_path, data):
    lines = list(L)
    what = data.draw(st.sampled_from(["remove", "swap", "duplicate"]))
    one = data.draw(st.integers(0, len(lines) - 2 if what == "remove" else len(lines) - 1))
    if what == "remove":  # the last one alone would be a clean cut of the tail, which no chain shows
        del lines[one]
    elif what == "swap":
        other = data.draw(st.integers(0, len(lines) - 1).filter(lambda n: n != one))
        lines[one], lines[other] = lines[other], lines[one]
    else:
        lines.insert(data.draw(st.integers(0, len(lines))), lines[one])
    assert not verify(write(tmp_path / "log", lines)).ok
