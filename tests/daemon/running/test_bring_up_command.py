"""The session's own command is decided before anything of it runs: what only shows at its execs runs where they are
decided, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from agent.channel import Channel, pair
from agent.daemon.base.refused import Refused
from agent.daemon.running.bring_up import BringUp
from agent.exits import Exit
from agent.gate import Gate
from agent.policy.model import CommandMatch, CommandRule, CommandSection, Layer, Mode, Policy, Unverifiable, Where
from agent.session.levels import Offer
from tests.daemon.base.test_spec import SPEC
from tests.enforce.ring import Recorded

NOTIFIED = Offer(root=True, jail="root", mounts=True, landlock=7, seccomp=True, notify=True)
TRACED = replace(NOTIFIED, notify=False, trace="plain")
ALONE = replace(NOTIFIED, notify=False)
HIDDEN = ("/bin/sh", "-c", "$(cat /etc/name) -rf /")
REFUSED = ("mkfs", "/dev/null")


@dataclass
class Store:
    """A policy store with this one."""

    current: Policy


@dataclass
class Judged:
    """How the command was judged."""

    refused: Refused | None
    rules: list[object]


@pytest.fixture
def judge() -> Callable[..., Judged]:
    """Judges a command on what a machine offers, by a policy that denies mkfs."""

    def judged(command: tuple[str, ...], offer: Offer, **section: object) -> Judged:
        rule = CommandRule(id="no-mkfs", match=CommandMatch(program=("mkfs",)), where=Where("p.yaml", 1, 1))
        commands = CommandSection(deny=(rule,), **section)  # type: ignore[arg-type]
        policy = Policy(layers=(Layer(source="test", commands=commands),), digest="d" * 64)
        ours, theirs = pair()
        run = BringUp(replace(SPEC, command=command), Channel(ours), lambda point, reason: None, offer=offer)
        run._opening.store = Store(policy)  # type: ignore[assignment]
        recorded, refused = Recorded(), None
        try:
            run._judge_command(Gate(lambda: policy, recorded, "session:test"), offer)
        except Refused as refusal:
            refused = refusal
        ours.close()
        theirs.close()
        return Judged(refused, [event.details["rule"] for event in recorded.events])

    return judged


@pytest.mark.parametrize("offer", [NOTIFIED, TRACED])
def test_what_only_shows_at_exec_starts_where_execs_are_decided(judge: Callable[..., Judged], offer: Offer) -> None:
    assert judge(HIDDEN, offer) == Judged(None, [])


def test_what_only_shows_at_exec_is_refused_where_nobody_decides_it_there(judge: Callable[..., Judged]) -> None:
    found = judge(HIDDEN, ALONE)
    assert found.refused is not None
    assert found.refused.exit is Exit.COMMAND_DENIED
    assert found.rules == ["commands-unverifiable"]


def test_a_policy_that_denies_the_unverifiable_does_so_before_the_exec(judge: Callable[..., Judged]) -> None:
    found = judge(HIDDEN, NOTIFIED, unverifiable=Unverifiable.DENY)
    assert found.refused is not None
    assert found.rules == ["commands-unverifiable"]


@pytest.mark.parametrize("offer", [NOTIFIED, TRACED, ALONE])
def test_a_refused_command_is_refused_and_recorded_everywhere(judge: Callable[..., Judged], offer: Offer) -> None:
    found = judge(REFUSED, offer)
    assert found.refused is not None
    assert found.rules == ["no-mkfs"]


@pytest.mark.parametrize(("offer", "recorded"), [(NOTIFIED, []), (TRACED, []), (ALONE, ["no-mkfs"])])
def test_what_is_only_observed_is_recorded_once(
    judge: Callable[..., Judged], offer: Offer, recorded: list[object]
) -> None:
    """By the ring, when it is executed; here only where there is none."""
    assert judge(REFUSED, offer, mode=Mode.OBSERVE) == Judged(None, recorded)
