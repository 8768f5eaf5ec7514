"""A proof that breaks at start: private files end the run; anything else lowers the level, which is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.channel import Channel, pair
from agent.daemon.base.journal import Journal
from agent.daemon.base.refused import Refused
from agent.daemon.protection.protecting import Protection
from agent.daemon.protection.rounds import ROUNDS, Rounds
from agent.daemon.running.bring_up import BringUp
from agent.exits import Exit
from agent.record.ledger import Ledger
from agent.session.levels import Level, Offer, Point, Reached, reached
from agent.session.plan import Hold
from tests.daemon.base.test_spec import SPEC
from tests.escape.runtime import read_log

NATIVE = Offer(root=True, jail="root", mounts=True, landlock=7, seccomp=True, notify=True)


@contextmanager
def started(directory: Path, *, contained: bool) -> Iterator[tuple[BringUp, Journal]]:
    """A run with a log."""
    ours, theirs = pair()
    with ours, theirs:
        spec = replace(SPEC, require_contained=contained)
        run = BringUp(spec, Channel(ours), lambda point, reason: None, offer=NATIVE)
        ledger = Ledger(directory, session_id="s", boot="b")
        ledger.start()
        try:
            yield run, Journal(ledger, SPEC)
        finally:
            ledger.close()


def judged(directory: Path, broken: list[tuple[str, str]], *, contained: bool) -> tuple[BringUp, Refused | None, Level]:
    """Judge these proofs; the run, how it was refused, and the egress level it ends with."""
    levels, refused = reached(NATIVE), None
    with started(directory, contained=contained) as (run, journal):
        try:
            run._judge_proofs(broken, levels, journal)
        except Refused as refusal:
            refused = refusal
    return run, refused, levels[Point.EGRESS].level


def told(directory: Path, place: str, *, contained: bool) -> tuple[BringUp, Refused | None, dict[Point, Reached]]:
    """Announce a place that came while the mounts were made; the run, how it was refused, and its levels."""
    looks = iter([Protection(), *[Protection(held=((place, Hold.READ_ONLY),))] * (ROUNDS + 1)])
    with started(directory, contained=contained) as (run, journal):
        run._rounds = rounds = Rounds(lambda: next(looks))
        while rounds.more([place]):
            pass
        levels, refused = reached(NATIVE), None
        try:
            run._announce_moved(Protection(), levels, journal)
        except Refused as refusal:
            refused = refusal
    return run, refused, levels


@pytest.mark.parametrize(("contained", "exit_code"), [(False, None), (True, Exit.UNPROTECTED)])
def test_a_way_out_lowers_the_level_and_refuses_a_contained_session(
    tmp_path: Path, contained: bool, exit_code: Exit | None
) -> None:
    run, refused, level = judged(tmp_path / "log", [("egress", "it got out")], contained=contained)
    assert (None if refused is None else refused.exit) == exit_code
    assert level is Level.OFF
    assert run.warnings == ["egress is off: it got out"]
    (event,) = read_log(tmp_path / "log")
    assert (event["resource"], event["details"]["event_type"], event["details"]["level"]) == (
        "egress",
        "agent.degraded",
        "off",
    )


@pytest.mark.parametrize("contained", [False, True])
def test_a_private_file_that_opens_always_ends_the_run(tmp_path: Path, contained: bool) -> None:
    _, refused, _ = judged(tmp_path / "log", [("private", "/log could be opened by the session")], contained=contained)
    assert refused is not None
    assert (refused.exit, refused.reason) == (Exit.POLICY_INVALID, "/log could be opened by the session")


def test_proofs_that_hold_change_nothing(tmp_path: Path) -> None:
    run, refused, level = judged(tmp_path / "log", [], contained=True)
    assert (refused, level, run.warnings) == (None, Level.ENFORCED, [])


@pytest.mark.parametrize("contained", [False, True])
def test_a_protected_place_that_came_and_cannot_be_held_makes_paths_partial(tmp_path: Path, contained: bool) -> None:
    run, refused, levels = told(tmp_path / "log", f"{tmp_path}/hooks", contained=contained)
    why = f"{tmp_path}/hooks is protected, and was moved or made while the session was prepared"
    assert (levels[Point.PATHS].level, levels[Point.PATHS].why) == (Level.PARTIAL, why)
    assert run.warnings == [f"paths is partial: {why}"]
    assert (None if refused is None else refused.exit) == (Exit.UNPROTECTED if contained else None)
    (event,) = read_log(tmp_path / "log")
    assert (event["resource"], event["details"]["level"], event["details"]["reason"]) == ("paths", "partial", why)
