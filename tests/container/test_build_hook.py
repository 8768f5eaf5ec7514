"""The hook client's build: with a compiler a program, without one a note and no fault."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.conftest import require

CHECKOUT = Path(__file__).parents[2]
SCRIPT = CHECKOUT / "container" / "build-hook.sh"


def test_without_a_compiler_it_says_so_and_leaves_no_old_program(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("dirname", "rm"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or "")
    old = tmp_path / "parhelia-hook"
    old.touch()
    environment = {"PATH": str(tmp_path / "bin")}
    done = subprocess.run([SCRIPT, old], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "hook_client.py takes its place" in done.stderr) == (0, True)
    assert not old.exists()


def test_a_compiler_that_fails_fails_the_build_and_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "CC": "false"}
    done = subprocess.run([SCRIPT, tmp_path / "x"], env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_each_compiler_that_is_here_takes_it_without_a_warning_and_without_headers(tmp_path: Path) -> None:
    here = [name for name in ("gcc", "clang", "aarch64-linux-gnu-gcc") if shutil.which(name)]
    require(here, "no C compiler")
    for name in here:
        environment = {**os.environ, "CC": f"{name} -nostdinc -Wconversion"}
        done = subprocess.run([SCRIPT, tmp_path / name], env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), name
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o755
