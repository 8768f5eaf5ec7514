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
    broken = attempt(Proofs(ungranted=(str(file),), private=(str(file),), signal=(os.getpid(),)))
    assert [what for what, _ in broken] == ["paths", "private", "agent"]
    assert all(text for _, text in broken)


def test_closed_doors_say_nothing(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert attempt(Proofs(ungranted=(missing,), private=(missing,), signal=(2**22 - 1,))) == []


def test_what_is_dialled_is_told_by_whoever_is_reached() -> None:
    """tests/daemon/launch/test_canary.py: where connections are captured, the attempt itself cannot tell."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = ("tcp", "127.0.0.1", server.getsockname()[1])
        assert attempt(Proofs(dial=(target, ("udp", "127.0.0.1", 9), ("tcp", "::1", 9)), token="it was here")) == []
        with server.accept()[0] as reached:
            assert reached.recv(64) == b"it was here"
