"""What `status` answers: agent.daemon.control.status."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from agent.daemon.base.spec import RunSpec
from agent.daemon.beside.companions import Company
from agent.daemon.control.status import Status
from tests.daemon.base.test_spec import SPEC


def company(spec: RunSpec) -> Company:
    """A session of `spec`, under a guard that has just begun."""
    parts: dict[str, Any] = {
        "spec": spec,
        "policy": lambda: SimpleNamespace(digest="d" * 64, layers=[SimpleNamespace(source="policies")]),
        "metrics": SimpleNamespace(reading=lambda: {"denials": {}}),
        "ledger": SimpleNamespace(boot="b", seq=2, synced=1, failure=None),
        "session_pid": lambda: 7,
    }
    return cast("Company", SimpleNamespace(**parts))


def test_a_session_is_as_old_as_its_run_and_not_as_its_guard() -> None:
    spec = RunSpec.from_bytes(replace(SPEC, began=time.time() - 7200).to_bytes())
    found = Status(company(spec)).document({})
    assert found["uptime_seconds"] in range(7200, 7300)
    assert found["since"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(spec.began))


def test_a_clock_that_was_set_back_gives_no_negative_age() -> None:
    found = Status(company(replace(SPEC, began=time.time() + 3600))).document({})
    assert found["uptime_seconds"] == 0
