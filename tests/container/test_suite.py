"""container/suite.sh: both halves run, both are shown, one after the other, and a failure of either is the suite's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "container/suite.sh"
PYTEST = """#!/bin/sh
case "$*" in
    *"-m docker") echo docker begins; sleep 0.2; echo docker ends; exit {containers} ;;
    *"-m not docker") echo rest begins; sleep 0.4; echo rest ends; exit {rest} ;;
    "-m tests.again "*/rest) echo rest again; exit {rest_again} ;;
    "-m tests.again "*/containers) echo docker again; exit {containers_again} ;;
esac
exit 99
"""
SHOWN = ["rest begins", "rest ends", "what needs a container:", "docker begins", "docker ends"]
REAL = """#!/bin/sh
cd {tests} && PYTHONPATH={root} exec {python} "$@"
"""
CASES = """
import pathlib, pytest
runs = pathlib.Path({runs!r})

def once_more():
    runs.write_text(runs.read_text() + "x")
    return len(runs.read_text())

@pytest.mark.docker
def test_in_a_container(): pass
"""


@pytest.mark.parametrize(
    ("containers", "rest", "again", "status"),
    [
        (0, 0, [], 0),
        (0, 2, [], 2),
        (3, 2, [], 3),
        (0, 1, ["rest again"], 0),
        (1, 0, ["docker again"], 7),
        (1, 1, ["rest again", "docker again"], 7),
        (5, 1, ["rest again"], 5),
        (1, 2, ["docker again"], 7),
    ],
)
def test_both_halves_are_run_shown_and_counted(
    tmp_path: Path, containers: int, rest: int, again: list[str], status: int
) -> None:
    python = tmp_path / "python"
    python.write_text(PYTEST.format(containers=containers, rest=rest, rest_again=0, containers_again=7))
    python.chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    done = subprocess.run([str(SCRIPT), str(python)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == status
    assert done.stdout.splitlines() == [*SHOWN, *again]
    assert list(tmp_path.iterdir()) == [python]


@pytest.mark.parametrize(
    ("fails", "status", "rounds"),
    [("number == 1", 0, 6), ("number in (1, 6)", 1, 6), ("number < 3", 1, 2), ("False", 0, 1)],
)
def test_what_fails_counts_as_failed_unless_it_passes_five_times_alone(
    tmp_path: Path, fails: str, status: int, rounds: int
) -> None:
    """With the real pytest."""
    tests, runs = tmp_path / "tests", tmp_path / "runs"
    tests.mkdir()
    runs.touch()
    (tests / "pytest.ini").write_text("[pytest]\nmarkers = docker\n")
    case = f"def test_at_times():\n    number = once_more()\n    assert not ({fails})\n"
    (tests / "test_cases.py").write_text(CASES.format(runs=str(runs)) + "\n" + case)
    python = tmp_path / "python"
    python.write_text(REAL.format(tests=tests, root=ROOT, python=sys.executable))
    python.chmod(0o755)
    done = subprocess.run([str(SCRIPT), str(python)], capture_output=True, text=True, check=False)
    assert (done.returncode, len(runs.read_text())) == (status, rounds), done.stdout
    told = "NOT STEADY: " if status == 0 else "FAILED, and again alone: "
    assert done.stdout.splitlines()[-1].startswith(told) == (rounds > 1)


def run_again(cache: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.again", str(cache)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_more_than_a_few_failures_are_not_run_again(tmp_path: Path) -> None:
    cache = tmp_path / "v" / "cache"
    cache.mkdir(parents=True)
    (cache / "lastfailed").write_text('{"a": true, "b": true, "c": true, "d": true}')
    done = run_again(tmp_path)
    assert (done.returncode, done.stdout) == (1, "4 tests failed; they are not run again\n")


def test_where_it_is_not_known_what_failed_the_suite_failed(tmp_path: Path) -> None:
    done = run_again(tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("which tests failed is not known: ")
