"""python -m tests.again CACHE: tests that failed in a run of the suite, run again by themselves, five times.

Rules kept here: a test counts as failed unless it passes each time, in processes that run nothing else; more than a few
that failed are no accident and are not run again. Each one is named at the end, whichever way it went: one that is not
steady is a defect of the test or of the agent, and of an attack it is a hole until it is shown to be the test's.

CACHE is the directory that pytest kept its own cache in for that run (``cache_dir``; its plugin cacheprovider writes
``lastfailed``). Exit status: 0 where all that failed is steady by itself, else 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROUNDS = 5
MOST = 3
"""So many tests of a run may fail by accident: of 11,000, on a machine that other work disturbs."""


def failed_in(cache: Path) -> list[str]:
    """The tests that failed, as pytest names them. Raises OSError or ValueError where it wrote nothing that says so."""
    found = json.loads((cache / "v" / "cache" / "lastfailed").read_text())
    return sorted(str(name) for name in found)


def steady(tests: list[str]) -> bool:
    """Whether all of them pass, each time."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    return all(subprocess.run(command, check=False).returncode == 0 for _ in range(ROUNDS))


def main(cache: Path) -> int:
    try:
        tests = failed_in(cache)
    except (OSError, ValueError) as error:
        print(f"which tests failed is not known: {error}")
        return 1
    if not 0 < len(tests) <= MOST:
        print(f"{len(tests)} tests failed; they are not run again")
        return 1
    print(f"run again by themselves, {ROUNDS} times:", *tests, sep="\n    ", flush=True)
    passed = steady(tests)
    verdict = f"NOT STEADY: failed in the suite, passed {ROUNDS} times alone" if passed else "FAILED, and again alone"
    for test in tests:
        print(f"{verdict}: {test}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
