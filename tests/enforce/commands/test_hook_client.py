"""The client as a file: what it may use, and where it finds the daemon."""

from __future__ import annotations

import ast
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from agent.enforce.commands import hook_client
from tests.conftest import require

SOURCE = Path(hook_client.__file__)
SYSTEM_PYTHON = "/usr/bin/python3"


def test_it_is_understood_by_python_3_9() -> None:
    ast.parse(SOURCE.read_text(), feature_version=(3, 9))


def test_it_imports_the_standard_library_only() -> None:
    imported = set()
    for node in ast.walk(ast.parse(SOURCE.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported <= sys.stdlib_module_names


def test_it_reads_no_environment() -> None:
    assert "os.environ" not in SOURCE.read_text()
    assert "getenv" not in SOURCE.read_text()


def test_the_system_s_python_runs_it_isolated() -> None:
    require(os.access(SYSTEM_PYTHON, os.X_OK), "no system Python")
    done = subprocess.run(
        [SYSTEM_PYTHON, "-IS", str(SOURCE), "claude-code", "--socket", "/nonexistent"],
        input="{}",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "denied by agent-fault" in done.stderr


def test_the_socket_beside_the_file_is_the_one_asked(tmp_path: Path) -> None:
    copy = tmp_path / "hook_client.py"
    shutil.copyfile(SOURCE, copy)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "hook.sock"))
        listener.listen()
        with subprocess.Popen(
            [sys.executable, "-IS", str(copy)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdin is not None
            process.stdin.write(b'{"tool_name": "X"}')
            process.stdin.close()
            listener.settimeout(60)
            connection, _ = listener.accept()
            connection.close()
            assert process.wait(60) == 2


def test_an_unknown_argument_blocks() -> None:
    done = subprocess.run(
        [sys.executable, "-IS", str(SOURCE), "emacs"],
        input="{}",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "usage" in done.stderr) == (2, True)
