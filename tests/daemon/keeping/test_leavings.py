"""What a run that nobody could end in order has left goes with a later one; what is in use, or no run's, stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.daemon.base.spec import RunSpec
from agent.daemon.keeping.leavings import hold, sweep_dead
from tests.conftest import require
from tests.daemon.base.test_spec import SPEC

BOOT = "0123456789ab"


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    return replace(SPEC, run_root=str(tmp_path), run_dir=str(tmp_path / "own-ba9876543210"))


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    run = tmp_path / f"other-{BOOT}"
    run.mkdir()
    descriptor = hold(str(run))
    yield run, descriptor
    try:
        os.close(descriptor)
    except OSError:
        return


def test_a_run_whose_keeper_lives_stays_and_goes_when_it_is_dead(spec: RunSpec, held: tuple[Path, int]) -> None:
    run, descriptor = held
    sweep_dead(spec)
    assert run.exists()
    os.close(descriptor)
    sweep_dead(spec)
    assert not run.exists()


def test_what_was_never_held_is_no_run_or_has_just_begun(spec: RunSpec, tmp_path: Path) -> None:
    others = [tmp_path / f"new-{BOOT}", tmp_path / "public", tmp_path / "own-ba9876543210"]
    for other in others:
        (other / "private").mkdir(parents=True)
    (others[1] / "held").touch()
    (others[2] / "held").touch()
    (tmp_path / f"link-{BOOT}").symlink_to(others[1])
    sweep_dead(spec)
    assert [other for other in others if not other.exists()] == []


def test_a_run_of_another_kernel_stays_whose_locks_are_not_seen_here(spec: RunSpec, held: tuple[Path, int]) -> None:
    run, descriptor = held
    os.close(descriptor)
    (run / "held").chmod(0o600)
    (run / "held").write_text("00000000-0000-0000-0000-000000000000\n")
    sweep_dead(spec)
    assert run.exists()


def test_what_belongs_to_somebody_else_stays(spec: RunSpec, held: tuple[Path, int]) -> None:
    require(os.geteuid() == 0, "root, to give a directory away")
    run, descriptor = held
    os.close(descriptor)
    os.chown(run, 65534, 65534)
    sweep_dead(spec)
    assert run.exists()
