"""What `exec` takes for a standard stream: bytes from anywhere, and nobody's terminal."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.daemon.control.execs import check_stream
from agent.daemon.control.wire import WireError


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[dict[str, int]]:
    """Descriptors of all kinds."""
    (tmp_path / "file").write_text("x")
    master, slave = os.openpty()
    reading, writing = os.pipe()
    one, other = socket.socketpair()
    network = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found = {
        "the session's side of a terminal": slave,
        "the other side of a terminal": master,
        "a pipe to read": reading,
        "a pipe to write": writing,
        "one of a pair of sockets": one.fileno(),
        "a network connection": network.fileno(),
        "a file": os.open(tmp_path / "file", os.O_RDONLY),
        "a directory": os.open(tmp_path, os.O_RDONLY),
        "a place in the file system": os.open(tmp_path, os.O_PATH),
        "nothing": os.open(os.devnull, os.O_RDWR),
    }
    yield found
    for name in ("the session's side of a terminal", "the other side of a terminal", "a pipe to read"):
        os.close(found[name])
    for name in ("a pipe to write", "a file", "a directory", "a place in the file system", "nothing"):
        os.close(found[name])
    for sock in (one, other, network):
        sock.close()


@pytest.mark.parametrize("kind", ["a pipe to read", "a pipe to write", "one of a pair of sockets", "a file", "nothing"])
def test_a_stream_of_bytes_is_taken(opened: dict[str, int], kind: str) -> None:
    check_stream(0, opened[kind])


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("the session's side of a terminal", "a terminal"),
        ("the other side of a terminal", "a terminal"),
        ("a network connection", "a network connection"),
        ("a directory", "no stream"),
        ("a place in the file system", "no stream"),
    ],
)
def test_what_could_be_more_is_refused(opened: dict[str, int], kind: str, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        check_stream(0, opened[kind])
