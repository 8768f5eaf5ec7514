"""container/find-python.sh: a fitting interpreter or words that help, never silence."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "container/find-python.sh"
TOOLS = "/usr/bin:/bin"


def find(path: str = "", home: Path = Path("/nonexistent"), **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script with nothing but these directories and variables; `path` comes before the basic tools."""
    env = {"PATH": f"{path}:{TOOLS}" if path else TOOLS, "HOME": str(home), **environment}
    return subprocess.run([str(SCRIPT)], env=env, capture_output=True, text=True, check=False)


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return path


def test_the_named_interpreter_is_taken() -> None:
    done = find(PYTHON=sys.executable)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]


def test_a_named_interpreter_that_does_not_fit_is_refused_and_not_replaced(tmp_path: Path) -> None:
    old = program(tmp_path / "python3", "#!/bin/sh\nexit 1\n")
    done = find(path=os.path.dirname(sys.executable), PYTHON=str(old))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"PYTHON={old} is not a Python 3.12 or newer with venv and ensurepip.\n"


def test_a_shim_that_fails_is_passed_by(tmp_path: Path) -> None:
    shims = tmp_path / "shims"
    program(shims / "python3.13", "#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    program(tmp_path / "real/python3.12", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    done = find(path=f"{shims}:{tmp_path}/real")
    assert done.returncode == 0
    assert Path(done.stdout.strip()).exists()


def test_an_interpreter_of_a_version_manager_in_the_home_is_found(tmp_path: Path) -> None:
    program(tmp_path / ".pyenv/versions/3.13.9/bin/python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    done = find(home=tmp_path)
    assert done.returncode == 0
    assert Path(done.stdout.strip()).exists()


def test_where_nothing_fits_the_words_say_what_to_install(tmp_path: Path) -> None:
    for name in ("python3", "python3.12", "python3.13", "python3.14"):
        program(tmp_path / name, "#!/bin/sh\nexit 1\n")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "cat", "dirname", "stat"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    env = {"PATH": f"{tmp_path}:{tools}", "HOME": "/nonexistent"}
    done = subprocess.run(["/bin/sh", str(SCRIPT)], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "No Python 3.12 or newer" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr
