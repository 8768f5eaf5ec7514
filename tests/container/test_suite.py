"""container/suite.sh: both halves run, both are shown, one after the other, and a failure of either is the suite's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "container/suite.sh"
PYTEST = """#!/bin/sh
case "$*" in
    "-m pytest -m docker") echo docker begins; sleep 0.2; echo docker ends; exit {containers} ;;
    "-m pytest -m not docker") echo rest begins; sleep 0.4; echo rest ends; exit {rest} ;;
esac
exit 99
"""


@pytest.mark.parametrize(("containers", "rest", "status"), [(0, 0, 0), (1, 0, 1), (0, 2, 2), (3, 2, 3)])
def test_both_halves_are_run_shown_and_counted(tmp_path: Path, containers: int, rest: int, status: int) -> None:
    python = tmp_path / "python"
    python.write_text(PYTEST.format(containers=containers, rest=rest))
    python.chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    done = subprocess.run([str(SCRIPT), str(python)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == status
    shown = ["rest begins", "rest ends", "what needs a container:", "docker begins", "docker ends"]
    assert done.stdout.splitlines() == shown
    assert list(tmp_path.iterdir()) == [python]
