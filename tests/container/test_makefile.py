"""The Makefile: a session's command reaches the agent as it was written; a build gets its secrets as secrets."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import require

CHECKOUT = Path(__file__).parents[2]
AGENT = '#!/bin/sh\nprintf "<%s>" "$@"\nexit 7\n'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout that is set up, with a stand-in for the agent that shows its arguments and ends with 7."""
    require(shutil.which("make"), "make is not installed")
    shutil.copy(CHECKOUT / "Makefile", tmp_path)
    for name, text in (("find-python.sh", ""), ("users.sh", "#!/bin/sh\n"), ("../.venv/bin/parhelia-agent", AGENT)):
        path = tmp_path / "container" / name
        (tmp_path / "container").mkdir(exist_ok=True)
        (tmp_path / ".venv/bin").mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    for name in ("requirements.lock", "requirements-dev.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    for name in ("python", "deps", "project"):
        (tmp_path / f".venv/.stamp-{name}").touch()
    return tmp_path


def make_run(tree: Path, *assignments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("CMD", "MAKEFLAGS", "MAKELEVEL")}
    argv = ["make", "--no-print-directory", "run", *assignments]
    return subprocess.run(argv, cwd=tree, env={**kept, **environment}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "command",
    [
        "id",
        'echo "$HOME" $(id -u) $$ `pwd`',
        "printf '%s\\n' 'single  quoted' \"double\"; exit 3",
        "echo one\necho two",
        "a=1 make -n; # $(shell false) ${x}",
        "-c --flag",
    ],
)
@pytest.mark.parametrize("where", ["argument", "environment"])
def test_the_command_is_handed_over_letter_by_letter(tree: Path, command: str, where: str) -> None:
    done = make_run(tree, f"CMD={command}") if where == "argument" else make_run(tree, CMD=command)
    assert done.stdout == f"<run><--audit-dir><./var/audit><--></bin/sh><-c><{command}>"


def test_without_a_command_it_is_a_shell(tree: Path) -> None:
    assert make_run(tree).stdout.removeprefix("<run><--audit-dir><./var/audit><-->") in ("</bin/bash>", "</bin/sh>")


def test_the_status_of_the_session_is_told(tree: Path) -> None:
    done = make_run(tree, "CMD=id")
    assert done.returncode == 2
    assert "parhelia-agent run: exit status 7" in done.stderr


def test_a_build_gets_certificates_and_configuration_as_secrets(tree: Path) -> None:
    argv = ["make", "--dry-run", "image", "CA=/a/ca.pem", "PIP_CONF=/a/pip.conf", "IMAGE=x:y"]
    kept = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(argv, cwd=tree, env=kept, capture_output=True, text=True, check=True)
    shown = done.stdout.replace("\\\n", " ")
    words = shown.split()
    assert [words[i + 1] for i, word in enumerate(words) if word == "--secret"] == [
        "id=ca,src=/a/ca.pem",
        "id=pip,src=/a/pip.conf",
    ]
    assert words[-3:] == ["--tag", "x:y", "."]
