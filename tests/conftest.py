"""What all tests share: how a missing mechanism is answered."""

from __future__ import annotations

import os

import pytest

pytest_plugins = ["tests.runtimes.fixtures"]


def require(condition: object, reason: str) -> None:
    """Skip with the reason where `condition` is false; fail instead where PARHELIA_TEST_REQUIRE=all (CI)."""
    if condition:
        return
    if os.environ.get("PARHELIA_TEST_REQUIRE") == "all":
        pytest.fail(f"required here, and missing: {reason}")
    pytest.skip(reason)
