"""gVisor: the same image starts there, and the harness tells a verdict from a sandbox that did not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtimes.gvisor import GVisor

pytestmark = [pytest.mark.docker, pytest.mark.gvisor, pytest.mark.root]


def test_the_image_runs_and_its_status_and_both_streams_come_through(gvisor_run: GVisor) -> None:
    script = "uname -v; cat; echo words >&2; exit 3"
    done = gvisor_run("/bin/sh", "-c", script, entrypoint=False, stdin="given")
    assert (done.returncode, done.stderr) == (3, "words\n")
    assert done.stdout.endswith("given")


def test_there_is_no_way_out_but_loopback(gvisor_run: GVisor) -> None:
    done = gvisor_run("/bin/sh", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1", entrypoint=False)
    assert done.stdout.split() == ["lo"]


def test_a_run_changes_the_image_only_for_itself(gvisor_run: GVisor) -> None:
    assert gvisor_run("/bin/sh", "-c", "echo x > /opt/mark; cat /opt/mark", entrypoint=False).stdout == "x\n"
    assert gvisor_run("/bin/sh", "-c", "echo /opt/*", entrypoint=False).stdout == "/opt/parhelia\n"


def test_what_a_run_writes_to_a_mount_stays(gvisor_run: GVisor, tmp_path: Path) -> None:
    gvisor_run("/bin/sh", "-c", "echo x > /out/mark", entrypoint=False, mounts=((tmp_path, "/out"),))
    assert (tmp_path / "mark").read_text() == "x\n"


def test_the_command_line_answers(gvisor_run: GVisor) -> None:
    done = gvisor_run("parhelia-agent", "--help", entrypoint=False)
    assert done.returncode == 0
    assert "run" in done.stdout
