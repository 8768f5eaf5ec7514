"""Several sessions on one machine and one audit volume."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.escape.runtime import Case, Host, policy, read_log, verify
from tests.escape.test_death_of_the_agent import WAIT_SECONDS
from tests.escape.test_exec_ring import RM


def start(host: Host, case: Case) -> subprocess.Popen[str]:
    return subprocess.Popen(
        host.command(case), env=host.environment(case), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_two_sessions_at_once_keep_two_streams_that_both_verify(host: Host, tmp_path: Path) -> None:
    first, second = tmp_path / "volume" / "one", tmp_path / "volume" / "two"
    runs = []
    for directory in (first, second):
        host.audit = directory
        runs.append(start(host, Case(("/bin/sh", "-c", f"echo up; read line; {RM} -rf /etc/x; exit 4"), policy())))
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
    for run in runs:
        run.communicate("go\n", timeout=WAIT_SECONDS)
        assert run.returncode == 4
    streams = set()
    for directory in (first, second):
        assert verify(directory) == 0
        events = read_log(directory)
        streams |= {event["details"]["stream"] for event in events}
        assert [e["details"]["rule"] for e in events if e["details"]["event_type"] == "bash.dangerous"] == [
            "recursive-delete-system"
        ]
    assert len(streams) == 2


def test_a_second_writer_on_one_directory_is_refused_and_the_first_goes_on(host: Host) -> None:
    first = start(host, Case(("/bin/sh", "-c", "echo up; read line; echo end"), policy()))
    assert first.stdout is not None
    assert first.stdout.readline() == "up\n"
    second = host.run(Case(("/bin/echo", "never"), policy()))
    assert (second.status, second.stdout) == (5, "")
    assert "audit" in second.stderr
    out, _ = first.communicate("go\n", timeout=WAIT_SECONDS)
    assert (first.returncode, out) == (0, "end\n")
    assert verify(host.audit) == 0
