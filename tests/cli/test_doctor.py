"""`doctor` for a reader: agent.cli.doctor."""

from __future__ import annotations

from typing import Any

import pytest

from agent.cli.main import main
from agent.operate import doctor

FOUND: dict[str, Any] = {
    "contained": False,
    "points": {
        "egress": {"level": "enforced", "why": "a namespace"},
        "agent": {"level": "partial", "why": "one uid", "to_raise": "start as root"},
    },
    "mechanisms": {
        "root": False,
        "mount_namespace": True,
        "landlock_abi": 7,
        "process_limits": {"pids": "control group", "memory": "no"},
        "capabilities": [],
    },
    "unrecorded": [{"point": "paths", "what": "a closed path"}],
}


def test_levels_mechanisms_and_what_is_not_recorded_are_said_in_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: FOUND)
    assert main(["doctor"]) == 0
    page = capsys.readouterr().err.splitlines()
    assert "  egress   enforced  a namespace" in page
    assert page[page.index("  agent    partial   one uid") + 1].strip() == "to raise it: start as root"
    assert "contained: no" in page
    mechanisms = page[page.index("mechanisms") + 1 : page.index("not recorded (only the kernel sees it)")]
    assert mechanisms == [
        "  root: no",
        "  mount_namespace: yes",
        "  landlock_abi: 7",
        "  process_limits: pids by control group, memory no",
        "  capabilities: none",
    ]
    assert page[-1] == "  paths: a closed path"


@pytest.mark.parametrize(("contained", "status"), [(True, 0), (False, 5)])
def test_a_machine_that_falls_short_of_what_is_required_is_exit_5(
    contained: bool, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: {**FOUND, "contained": contained})
    assert main(["doctor", "--json", "--require", "contained"]) == status
    assert capsys.readouterr().out.startswith("{")
