"""Which level each machine reaches, and what it says about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.record import metrics
from agent.session.doors import Capture
from agent.session.levels import Level, Offer, Point, path_walls, reached, shortfall

NATIVE = Offer(root=True, jail="root", mounts=True, landlock=7, seccomp=True, notify=True, capture=Capture.EVERY_PORT)
DOCKER = Offer(
    root=True, jail=None, mounts=False, landlock=7, seccomp=True, notify=True, jail_why="not permitted", connect=True
)
NO_ADDFD = replace(DOCKER, connect=False)
UNTRACED = Offer(root=True, jail="user", mounts=False, landlock=0, seccomp=True, notify=False)
GVISOR = replace(UNTRACED, trace="user")
MOUNTED = replace(GVISOR, mounts=True)
NOTHING = Offer(root=False, jail=None, mounts=False, landlock=0, seccomp=False, notify=False)
E, P, A, O = Level.ENFORCED, Level.PARTIAL, Level.ADVISORY, Level.OFF  # noqa: E741


@pytest.mark.parametrize(
    ("offer", "egress", "paths", "agent", "execs", "missing"),
    [
        (NATIVE, E, E, E, E, []),
        (DOCKER, E, E, E, E, []),
        (NO_ADDFD, P, E, E, E, [Point.EGRESS]),
        (replace(DOCKER, root=False), E, E, P, E, [Point.AGENT]),
        (replace(DOCKER, root=False, landlock=5), E, E, O, E, [Point.AGENT]),
        (replace(DOCKER, root=False, seccomp=False), E, E, O, E, [Point.AGENT]),
        (GVISOR, E, P, E, E, [Point.PATHS]),
        (MOUNTED, E, E, E, E, []),
        (UNTRACED, E, P, E, A, [Point.PATHS]),
        (NOTHING, A, P, O, A, [Point.EGRESS, Point.PATHS, Point.AGENT]),
    ],
)
def test_each_machine_reaches_its_level(
    offer: Offer, egress: Level, paths: Level, agent: Level, execs: Level, missing: list[Point]
) -> None:
    levels = reached(offer)
    found = [levels[point].level for point in (Point.EGRESS, Point.PATHS, Point.AGENT, Point.EXEC)]
    assert found == [egress, paths, agent, execs]
    assert shortfall(levels) == missing
    for point, said in levels.items():
        assert said.why, point
        assert bool(said.instead) is (said.level is not E), point


def test_the_metric_knows_the_same_points_and_levels() -> None:
    assert set(metrics.POINTS) == {str(point) for point in Point}
    assert set(metrics.LEVELS) == {str(level) for level in Level}


def test_the_leak_of_landlock_tcp_is_named() -> None:
    assert "any address on the proxy's port is open" in reached(NO_ADDFD)[Point.EGRESS].why


def test_what_a_session_without_a_namespace_does_without_is_named() -> None:
    assert "no datagram sockets" in reached(DOCKER)[Point.EGRESS].why
    assert "Landlock" not in reached(replace(DOCKER, landlock=3))[Point.EGRESS].why


@pytest.mark.parametrize(
    ("offer", "walls", "said"),
    [
        (NATIVE, ("Landlock (ABI 7)", "mounts"), "own uid"),
        (MOUNTED, ("mounts",), "read-only where it is granted for reading; own uid"),
        (DOCKER, ("Landlock (ABI 7)",), "no mount namespace to hold protected places outside of the home"),
        (replace(DOCKER, root=False), ("Landlock (ABI 7)",), "; one uid with the agent"),
        (GVISOR, (), "file permissions of a separate uid only"),
    ],
)
def test_what_holds_the_paths_is_said_as_it_is(offer: Offer, walls: tuple[str, ...], said: str) -> None:
    assert path_walls(offer) == walls
    assert said in reached(offer)[Point.PATHS].why


@pytest.mark.parametrize(
    ("capture", "said"),
    [
        (Capture.EVERY_PORT, "every TCP connection is captured and decided"),
        (Capture.COMMON_PORTS, "ports 22, 80, 443 are captured"),
        (Capture.NONE, "programs that know no proxy reach nothing"),
    ],
)
def test_a_jail_says_what_becomes_of_programs_that_know_no_proxy(capture: Capture, said: str) -> None:
    found = reached(replace(NATIVE, capture=capture))[Point.EGRESS]
    assert found.level is E
    assert said in found.why


def test_what_only_shows_at_exec_may_wait_for_either_mechanism_and_for_nothing_else() -> None:
    assert [offer.supervised for offer in (NATIVE, DOCKER, GVISOR, UNTRACED, NOTHING)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert "ptrace" in reached(GVISOR)[Point.EXEC].why
    assert "ptrace" not in reached(DOCKER)[Point.EXEC].why


def test_a_guard_is_replaced_where_the_session_cannot_open_what_is_left_to_the_next_one() -> None:
    one_uid = replace(GVISOR, root=False, jail=None, trace="plain")
    found = [offer.guard_replaced for offer in (NATIVE, DOCKER, GVISOR, UNTRACED, replace(DOCKER, root=False), one_uid)]
    assert found == [True, True, True, True, True, False]
    assert "no session starts" in reached(one_uid)[Point.AGENT].why
