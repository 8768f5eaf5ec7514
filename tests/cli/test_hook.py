"""The verb `hook`: the same answers as the client, and no exit status but 0 and 2."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from agent.cli.hook import guarded


def run(*arguments: str, text: str = "{}") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", "hook", *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("protocol", ["claude-code", "codex", "gemini", "cursor"])
def test_without_a_daemon_it_blocks(protocol: str) -> None:
    call = {"tool_name": "Bash", "tool_input": {"command": "ls"}}
    done = run(protocol, "--socket", "/nonexistent/hook.sock", text=json.dumps(call))
    assert done.returncode == 2
    assert "agent-fault" in done.stderr


def test_an_unknown_protocol_blocks() -> None:
    assert run("emacs").returncode == 2


def test_no_protocol_blocks() -> None:
    assert run().returncode == 2


def test_help_is_no_refusal() -> None:
    assert run("--help").returncode == 0


@pytest.mark.parametrize(
    "fault", [KeyboardInterrupt(), MemoryError(), ImportError("no module"), BrokenPipeError(), SystemExit(1)]
)
def test_a_fault_before_the_hook_is_at_work_blocks(fault: BaseException) -> None:
    def fail() -> int:
        raise fault

    assert guarded(fail) == 2


@pytest.mark.parametrize(("status", "said"), [(0, 0), (2, 2), (1, 2), (130, 2)])
def test_no_other_status_than_0_and_2_gets_out(status: int, said: int) -> None:
    assert guarded(lambda: status) == said
