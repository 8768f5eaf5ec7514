"""An attempt that succeeds is told; one that fails, as it must, is silent."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from agent.session.plan import Proofs
from agent.session.proofs import attempt


def test_open_doors_are_named_with_what_they_break(tmp_path: Path) -> None:
    file = tmp_path / "open"
    file.write_text("x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        broken = attempt(
            Proofs(dial=server.getsockname()[1], ungranted=(str(file),), private=(str(file),), signal=(os.getpid(),))
        )
    assert [what for what, _ in broken] == ["egress", "paths", "private", "agent"]
    assert all(text for _, text in broken)


def test_closed_doors_say_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    missing = str(tmp_path / "missing")
    assert attempt(Proofs(dial=port, ungranted=(missing,), private=(missing,), signal=(2**22 - 1,))) == []
