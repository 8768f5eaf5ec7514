"""`audit verify` and `audit tail` as their users call them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli.audit import shown, visible
from agent.cli.main import main
from agent.exits import Exit
from tests.record.logs import allowed, chained, denial, events, open_ledger


@pytest.fixture
def log(tmp_path: Path) -> Path:
    directory = tmp_path / "log"
    ledger = open_ledger(directory)
    ledger.accept(allowed())
    ledger.post(denial("evil.test:443", reason="not on the allowlist", where="policies/egress.yaml:4"))
    ledger.accept(allowed("pypi.org:443"))
    ledger.close()
    return directory


def test_a_sound_log_exits_0_and_says_what_it_does_not_show(log, capsys):
    assert main(["audit", "verify", str(log)]) == Exit.OK
    out, err = capsys.readouterr()
    assert out == ""
    assert "ok: 3 events, seq 1 to 3, 1 file(s), 1 boot(s)" in err
    assert events(log)[-1].hash in err
    assert "cannot show a clean cut of its tail" in err


def test_a_broken_log_exits_6_and_names_file_line_and_kind(log, capsys):
    path = log / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b"evil.test", b"good.test"))
    assert main(["audit", "verify", str(log)]) == Exit.AUDIT_BROKEN
    assert "BROKEN at audit.jsonl:2 (seq 2): edited" in capsys.readouterr().err


def test_json_is_one_document_on_stdout(log, capsys):
    assert main(["audit", "verify", "--json", str(log)]) == Exit.OK
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["events"], report["broken"]) == (True, 3, None)
    (log / "audit.jsonl").write_bytes(b"".join(chained(3)[1:]))
    assert main(["audit", "verify", "--json", str(log)]) == Exit.AUDIT_BROKEN
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert {key: report["broken"][key] for key in ("file", "line", "kind", "seq")} == {
        "file": "audit.jsonl", "line": 1, "kind": "wrong-genesis", "seq": 2,
    }  # fmt: skip


@pytest.mark.parametrize("part", ["verify", "tail"])
def test_the_directory_comes_from_the_environment_when_not_given(log, part, monkeypatch, capsys):
    monkeypatch.setenv("PARHELIA_AUDIT_DIR", str(log))
    assert main(["audit", part]) == Exit.OK
    monkeypatch.setenv("PARHELIA_AUDIT_DIR", "")
    assert main(["audit", part]) == Exit.USAGE
    assert "PARHELIA_AUDIT_DIR" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["verify", "tail"])
def test_a_directory_that_is_not_there_exits_2_and_says_which(tmp_path, part, capsys):
    assert main(["audit", part, str(tmp_path / "nowhere")]) == Exit.USAGE
    assert f"{tmp_path}/nowhere: No such file or directory" in capsys.readouterr().err


def test_one_file_can_be_verified_alone(tmp_path, capsys):
    (tmp_path / "audit-000000000003.jsonl").write_bytes(b"".join(chained(5)[2:]))
    assert main(["audit", "verify", str(tmp_path / "audit-000000000003.jsonl")]) == Exit.OK
    assert "taken on trust" in capsys.readouterr().err


def test_lost_events_and_recoveries_are_told(log, capsys):
    with (log / "audit.jsonl").open("ab") as stream:
        stream.write(b'{"torn')
    ledger = open_ledger(log)
    with pytest.raises(Exception, match="float"):
        ledger.accept(denial(x=0.5))
    ledger.flush()
    ledger.accept(allowed())
    ledger.close()
    assert main(["audit", "verify", str(log)]) == Exit.OK
    err = capsys.readouterr().err
    assert "1 event(s) could not be recorded" in err
    assert "1 recovery line(s)" in err


def test_tail_shows_who_what_and_why(log, capsys):
    assert main(["audit", "tail", "-n", "2", str(log)]) == Exit.OK
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].split()[1:4] == ["denied", "network.egress_blocked", "evil.test:443"]
    for part in (
        "actor=session:s",
        "rule=egress-default",
        'reason="not on the allowlist"',
        "where=policies/egress.yaml:4",
    ):
        assert part in lines[0]
    assert "pypi.org:443" in lines[1]


def test_tail_says_what_contained_a_session_and_how_it_ended(tmp_path, capsys):
    ledger = open_ledger(tmp_path)
    ledger.accept(allowed(cause="ticket 7", measures=["cut", "freeze"], evidence="evidence-000000000012"))
    ledger.accept(allowed(exit_status=126))
    ledger.close()
    assert main(["audit", "tail", str(tmp_path)]) == Exit.OK
    first, second = capsys.readouterr().out.splitlines()
    assert 'cause="ticket 7"  measures=["cut", "freeze"]  evidence=evidence-000000000012' in first
    assert "exit_status=126" in second


def test_what_a_session_names_cannot_drive_the_terminal(tmp_path, capsys):
    hostile = "a\x1b[2J\x1b]0;owned\x07\u202egnp.exe\u200b\x9b31m\r\nnext\u2028line\x7f"
    ledger = open_ledger(tmp_path)
    ledger.accept(allowed(hostile, reason=hostile, exe=hostile))
    ledger.close()
    for arguments in (["tail"], ["tail", "--json"]):
        assert main(["audit", *arguments, str(tmp_path)]) == Exit.OK
        out = capsys.readouterr().out
        assert out.count("\n") == 1
        assert set(out) - {"\n"} <= {c for c in out if c.isprintable()} | {"\x7f"}
        assert "\x1b" not in out
        assert "owned" in out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain caf\u00e9", "plain caf\u00e9"),
        ("\x1b[0m", "\\x1b[0m"),
        ("a\u202eb", "a\\u202eb"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_invisible_characters_are_spelled_out(text, expected):
    assert visible(text) == expected


@pytest.mark.parametrize("line", [b"not json\n", b"{}\n", b"[]\n", b"\xff\x1b\n", b'{"details":7}\n'])
def test_a_line_that_is_no_event_is_shown_raw_and_safe(line):
    text = shown(line)
    assert text.startswith("not an event: ")
    assert text.isprintable()


def test_colour_marks_the_result_and_nothing_else():
    line = chained(1)[0]
    assert shown(line, colour=True).replace("\x1b[32m", "").replace("\x1b[0m", "") == shown(line)


def test_json_lines_are_the_events(log, capsys):
    assert main(["audit", "tail", "--json", str(log)]) == Exit.OK
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [link.body for link in events(log)]


@pytest.mark.parametrize("count", ["-1", "x"])
def test_a_wrong_number_of_lines_is_a_usage_error(log, count):
    with pytest.raises(SystemExit) as caught:
        main(["audit", "tail", "-n", count, str(log)])
    assert caught.value.code == Exit.USAGE


def test_follow_shows_what_is_added_across_a_rotation_until_interrupted(log):
    child = subprocess.Popen(
        [sys.executable, "-m", "agent", "audit", "tail", "-f", "-n", "1", str(log)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        assert "pypi.org:443" in child.stdout.readline()
        ledger = open_ledger(log, rotate_bytes=600)
        for number in range(4):
            ledger.accept(allowed(f"new-{number}.test:443"))
            ledger.flush()
        ledger.close()
        assert [f"new-{number}.test" in child.stdout.readline() for number in range(4)] == [True] * 4
    finally:
        os.kill(child.pid, signal.SIGINT)
        child.stdout.close()
        assert child.wait(60) == 130
