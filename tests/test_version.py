"""The version that is told is the installed one."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from agent.version import version


def test_it_is_the_one_of_the_installed_distribution() -> None:
    assert version() == metadata.version("parhelia-agent")


def test_a_package_that_was_never_installed_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "gone")])
    assert version() == "unknown"
    (tmp_path / "parhelia_agent-1.2.dist-info").mkdir()
    assert version() == "1.2"
