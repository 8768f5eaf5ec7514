"""The hook's client without an answer that can be believed: no daemon, another user's, half a permit."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from agent.enforce.commands import hook_wire
from tests.conftest import require
from tests.enforce.commands import test_hook_server as hook
from tests.enforce.commands.test_hook_server import Client, Running, bash

client = hook.client
running = hook.running


def test_without_a_daemon_everything_is_blocked(client: Client, tmp_path: Path) -> None:
    done = client(json.dumps(bash("ls")), "claude-code", "--socket", str(tmp_path / "none.sock"))
    assert done.returncode == 2
    assert "cannot be reached" in done.stderr


HEADER = hook_wire.encode_answer(True, "", "")


TEXTS = hook_wire.encode_answer(True, "{}\n", "")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{",
        HEADER[:-1],
        TEXTS[:-1],
        TEXTS + b"x",
        b"PX" + HEADER[2:],
        b"PH\2" + HEADER[3:],
        b"PH\1\1" + HEADER[4:],
        b"PH\1\0" + b"\xff" * 8,
        b"PH\1\0\0\0\0\0\0\1\0\0",
        hook_wire.encode_answer(True, "x" * (64 << 10), "x"),
        b"x" * (2 << 20),
    ],
)
def test_an_answer_that_is_not_a_whole_permit_blocks(client: Client, tmp_path: Path, answer: bytes) -> None:
    with answering(tmp_path / "s.sock", answer):
        done = client(json.dumps(bash("ls")), "--socket", str(tmp_path / "s.sock"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "denied by agent-fault: the agent" in done.stderr


def test_a_whole_permit_is_told_as_it_came(client: Client, tmp_path: Path) -> None:
    with answering(tmp_path / "s.sock", hook_wire.encode_answer(True, "{}\n", "note\n")):
        done = client(json.dumps(bash("ls")), "--socket", str(tmp_path / "s.sock"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "{}\n", "note\n")


@contextlib.contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """A daemon that takes one question and gives this answer."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def reply() -> None:
            connection, _ = listener.accept()
            with connection:
                while connection.recv(65536):
                    pass
                with contextlib.suppress(OSError):
                    connection.sendall(answer)

        thread = Thread(target=reply)
        thread.start()
        yield
        thread.join(60)


def test_a_daemon_of_another_user_is_not_believed(client: Client) -> None:
    require(os.getuid() == 0, "needs root to serve as another user")
    impostor = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
os.setuid(65534)
listener.bind(sys.argv[1])
listener.listen()
print("up", flush=True)
connection, _ = listener.accept()
connection.sendall(bytes.fromhex(sys.argv[2]))
connection.close()
"""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o777)
        path = f"{place}/s.sock"
        with subprocess.Popen(
            [sys.executable, "-c", impostor, path, TEXTS.hex()], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            done = client(json.dumps(bash("rm -rf /")), "--socket", path)
            process.kill()
    assert done.returncode == 2
    assert "the socket" in done.stderr
    assert "agent cannot be reached" not in done.stderr


def test_the_environment_cannot_name_another_socket(running: Running, tmp_path: Path) -> None:
    environment = {"PARHELIA_RUN_DIR": str(tmp_path), "PYTHONPATH": "/nonexistent", "PARHELIA_HOOK_SOCKET": "/x"}
    done = running.ask(bash("rm -rf /"), env=environment)
    assert "recursive-delete-system" in done.stderr


def test_an_interrupted_hook_blocks(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with subprocess.Popen(
            [*client.command, "--socket", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            process.stdin.write(json.dumps(bash("ls")).encode())
            process.stdin.close()
            connection, _ = listener.accept()
            process.terminate()
            assert process.wait(60) == 2
            connection.close()


def test_a_closed_stdout_blocks_and_never_ends_in_another_status(running: Running) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*running.client.command, "--socket", str(running.path)],
        input=json.dumps(bash("ls")).encode(),
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 2
