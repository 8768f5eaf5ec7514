"""container/reachable.sh: says what the session's user cannot reach, and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "container/reachable.sh"


def said(*paths: str | Path) -> str:
    done = subprocess.run([str(SCRIPT), *map(str, paths)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    return done.stderr


def test_a_path_that_everybody_reaches_needs_no_words() -> None:
    assert said("/usr/bin/env", "/etc") == ""


def test_an_interpreter_in_a_private_directory_is_named_with_the_directory_and_the_way_out(tmp_path: Path) -> None:
    private = tmp_path / "home"
    private.mkdir(mode=0o700)
    (private / "python3.13").touch(mode=0o755)
    (tmp_path / "python").symlink_to(private / "python3.13")
    lines = said(tmp_path / "python").splitlines()
    assert lines[0] == f"note: {private}/python3.13 cannot be reached by the session's user: {private} is private."
    assert "make clean setup PYTHON=" in lines[-1]


def test_a_checkout_in_a_private_directory_is_named(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    os.chmod(checkout, 0o750)
    assert "Sessions can't read this checkout" in said(checkout)
