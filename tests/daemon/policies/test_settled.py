"""Whether a file is still being written is the kernel's word, or no."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.daemon.policies.settled import being_written, open_for_writing

HOLD = "import os, sys; os.open(sys.argv[1], int(sys.argv[2])); print(flush=True); sys.stdin.read()"


@contextmanager
def held(file: Path, flags: int) -> Iterator[None]:
    """Another process has it open."""
    argv = [sys.executable, "-c", HOLD, str(file), str(flags)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
            yield
        finally:
            process.kill()


def test_a_file_that_another_program_writes_is_known_and_one_that_is_read_is_not_held_for_it(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("version: 1\n")
    assert not open_for_writing(file)
    with held(file, os.O_RDONLY):
        assert not open_for_writing(file)
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND):
        with held(file, flags):
            assert open_for_writing(file)
            assert being_written([tmp_path / "missing", tmp_path]) == file
    assert being_written([tmp_path]) is None


def test_what_is_no_file_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "directory.yaml").mkdir()
    (tmp_path / "link.yaml").symlink_to(tmp_path / "nowhere")
    assert being_written([tmp_path]) is None


def test_a_writer_that_comes_while_it_is_asked_writes_on(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("version: 1\n")
    code = "import sys\nfor n in range(3000):\n    open(sys.argv[1], 'a').close()"
    with subprocess.Popen([sys.executable, "-c", code, str(file)]) as writer:
        while writer.poll() is None:
            open_for_writing(file)
    assert writer.returncode == 0
    assert not open_for_writing(file)
