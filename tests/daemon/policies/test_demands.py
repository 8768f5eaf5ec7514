"""What a policy does without, and what no mechanism enforces, lowers the level and is said."""

from __future__ import annotations

import pytest

from agent.daemon.policies.demands import paths_observed, run_levels, with_protection
from agent.policy.load import LayerSource, load_policy
from agent.policy.model import Policy
from agent.session.levels import Level, Offer, Point, Reached, shortfall

NATIVE = Offer(root=True, jail="root", mounts=True, landlock=7, seccomp=True, notify=True)


def loaded(*texts: str) -> Policy:
    return load_policy([LayerSource(f"l{n}", (("p.yaml", "version: 1\n" + t),)) for n, t in enumerate(texts)], {})


@pytest.mark.parametrize(
    ("texts", "point", "level", "why"),
    [
        (["paths: {write: [/tmp]}\n"], Point.PATHS, Level.ENFORCED, "Landlock"),
        (["paths: {write: [/tmp], protect: ['.env']}\n"], Point.PATHS, Level.ENFORCED, "Landlock"),
        (["paths: {mode: observe, write: [/tmp]}\n"], Point.PATHS, Level.OFF, "observe"),
        (["egress: {mode: observe, allow: [a.test]}\n"], Point.EGRESS, Level.OFF, "observe"),
        (["commands: {mode: observe, deny: [mkfs]}\n"], Point.EXEC, Level.OFF, "observe"),
        (["paths: {mode: observe, write: [/tmp]}\n", "paths: {write: [/tmp]}\n"], Point.PATHS, Level.ENFORCED, ""),
    ],
)
def test_the_level_follows_the_policy(texts: list[str], point: Point, level: Level, why: str) -> None:
    policy = loaded(*texts)
    found = run_levels(policy, NATIVE)
    assert found[point].level is level
    assert why in found[point].why
    assert (point in shortfall(found)) is (level is not Level.ENFORCED and point is not Point.EXEC)
    assert paths_observed(policy) is (point is Point.PATHS and level is Level.OFF)


@pytest.mark.parametrize(
    ("before", "weak", "after", "why"),
    [
        (Level.ENFORCED, (), Level.ENFORCED, "w"),
        (Level.ENFORCED, ("x is held by nothing",), Level.PARTIAL, "x is held by nothing"),
        (Level.PARTIAL, ("x is held by nothing",), Level.PARTIAL, "w; x is held by nothing"),
        (Level.OFF, ("x is held by nothing",), Level.OFF, "w"),
    ],
)
def test_a_protected_place_that_nothing_holds_lowers_the_level(
    before: Level, weak: tuple[str, ...], after: Level, why: str
) -> None:
    found = with_protection(Reached(before, "w"), weak)
    assert (found.level, found.why) == (after, why)
