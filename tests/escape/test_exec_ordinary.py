"""Ordinary work under the whole ring, with the shipped packs: nothing of it is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import require
from tests.escape.runtime import Case, Host

WORK = Path(__file__).parent / "programs" / "ordinary.sh"
POLICY = """\
version: 1
packs: [core, git, cloud, kubernetes, containers, terraform, databases, package-publishing]
egress:
  allow: []
paths:
  write: [/tmp]
  read: [/usr, /bin, /sbin, /lib, /lib64, /etc, /opt]
"""
RUNNER = 'import subprocess, sys; subprocess.run(["/bin/bash"], input=sys.argv[1], text=True, check=True)'
SAYS = ["Python 3", "one", "ok", "works", "0", "copied", "hi", "perl", "awk", "done"]


@pytest.mark.root
def test_environments_hooks_packages_builds_and_copied_tools_run(host: Host) -> None:
    for tool in ("git", "node", "npm", "make", "cc", "perl"):
        require(shutil.which(tool), tool)
    command = ("/usr/bin/python3", "-c", RUNNER, WORK.read_text())
    outcome = host.run(Case(command, POLICY, env={"PATH": "/usr/local/bin:/usr/bin:/bin"}))
    assert outcome.status == 0, outcome.stderr
    assert outcome.of("bash.dangerous") == []
    said = iter(outcome.stdout.splitlines())
    missing = [word for word in SAYS if not any(word in line for line in said)]
    assert missing == [], outcome.stdout + outcome.stderr
