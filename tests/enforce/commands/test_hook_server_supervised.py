"""The hook lets what cannot be known before it runs pass only where every exec is decided again."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.enforce.commands.hook_server import HookServer
from tests.enforce.commands import test_hook_server as hook
from tests.enforce.commands.test_hook_server import TODAY, Client, RecordingGate, Running, bash, serve

client = hook.client


@pytest.mark.parametrize(("supervised", "status"), [(True, 0), (False, 2)])
def test_what_cannot_be_known_before_it_runs_passes_only_where_every_exec_is_decided(
    tmp_path: Path, client: Client, supervised: bool, status: int
) -> None:
    path = tmp_path / "hook.sock"
    server = HookServer(str(path), RecordingGate(), home="/home/session", supervised=supervised, today=lambda: TODAY)
    for _ in serve(server):
        done = Running(path, RecordingGate(), client).ask(bash('"$(cat name)" --version'))
        assert done.returncode == status
        assert ("commands-unverifiable" in done.stderr) is not supervised
