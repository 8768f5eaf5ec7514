"""What was permitted is remembered, and never answers otherwise than the gate would."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.enforce.commands import permitted
from agent.enforce.commands.permitted import MOST, MOST_WORDS, Asked, Permitted, leaves_no_line
from agent.enforce.commands.program import File, Run
from agent.gate import Gate
from agent.linux.syscalls import Arch, native
from agent.policy.decide import decide
from agent.policy.decision import Decision
from agent.policy.model import CommandMatch, CommandRule, CommandSection, Layer, Mode, Policy, RuleException, Where
from agent.policy.request import CommandRequest, Origin
from agent.shell.requests import from_argv
from tests.enforce.commands import test_supervisor as ring
from tests.enforce.commands.filtered import UID, Filtered
from tests.enforce.commands.meanwhile import Meanwhile
from tests.enforce.commands.test_supervisor import compiled, supervise
from tests.enforce.commands.test_supervisor_races import SWAP, RefusesAttack
from tests.enforce.ring import Recorded

workspace = ring.workspace
_needs_root = ring._needs_root
FIRST = date(2026, 11, 22)
WHERE = Where("test.yaml", 1, 1)


def denies(
    match: CommandMatch, *, mode: Mode = Mode.ENFORCE, until: date | None = None, unless_from_itself: bool = False
) -> Policy:
    rule = CommandRule("r", match, WHERE, reason="r", instead="i", unless_from_itself=unless_from_itself)
    exceptions = () if until is None else (RuleException("r", None, None, "who", "why", until, WHERE),)
    section = CommandSection(deny=(rule,), mode=mode)
    return Policy(layers=(Layer("test", commands=section, exceptions=exceptions),), digest=repr((match, mode, until)))


POLICIES = (
    denies(CommandMatch(program=("rm",))),
    denies(CommandMatch(program=("ls",))),
    denies(CommandMatch(program=("ls",)), mode=Mode.OBSERVE),
    denies(CommandMatch(program=("rm",)), until=FIRST + timedelta(days=1)),
    denies(CommandMatch(program=("rm",)), unless_from_itself=True),
    denies(CommandMatch(operands=("/w/**",))),
    denies(CommandMatch(environment=("LD_PRELOAD",))),
    denies(CommandMatch(words=("-f",))),
    Policy(layers=(), digest="none"),
)
ASKED = tuple(
    Asked(cwd, (Run(argv, f"/usr/bin/{name}", File(f"/usr/bin/{name}", 1, inode)),), environment, caller)
    for (name, inode), argv, cwd, environment, caller in itertools.product(
        (("rm", 2), ("ls", 3)),
        ((b"x", b"a"), (b"x", b"-f", b"/w/a"), (b"x", b"$(a)")),
        ("/", "/w"),
        ((), (("LD_PRELOAD", "/w/x.so"),)),
        ("", "rm"),
    )
)


def requests(asked: Asked, today: date) -> Iterator[CommandRequest]:
    for run in asked.runs:
        for name in run.names():
            asks = from_argv(
                [word.decode() for word in run.argv],
                exe=name,
                cwd=asked.cwd,
                home="/h",
                today=today,
                origin=Origin("exec"),
                supervised=True,
                environment=asked.environment,
            )
            yield replace(asks, caller=asked.caller)


class World:
    """A gate with a memory before it, as the judge has it; the policy and the day may change at any time."""

    def __init__(self) -> None:
        self.policy = POLICIES[0]
        self.days = 0
        self.memory = Permitted(lambda: self.policy)
        self.remembered = 0

    @property
    def today(self) -> date:
        return FIRST + timedelta(days=self.days)

    def seconds(self) -> float:
        return datetime(FIRST.year, FIRST.month, FIRST.day, 23, tzinfo=UTC).timestamp() + self.days * 86400

    def quiet(self, asked: Asked) -> bool:
        return all(leaves_no_line(decide(self.policy, request)) for request in requests(asked, self.today))

    def ask(self, asked: Asked, meanwhile: Policy | None) -> None:
        moment = self.memory.now()
        if self.memory.holds(asked, moment):
            self.remembered += 1
            assert self.quiet(asked), (asked, self.policy.digest, self.days)
            return
        quiet = self.quiet(asked)
        if meanwhile is not None:
            self.policy = meanwhile
        if quiet:
            self.memory.add(asked, moment)


STEP = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from(ASKED), st.none() | st.sampled_from(POLICIES)),
    st.tuples(st.just("swap"), st.sampled_from(POLICIES), st.none()),
    st.tuples(st.just("same again"), st.none(), st.none()),
    st.tuples(st.just("days"), st.integers(0, 3), st.none()),
)


@given(st.lists(STEP, max_size=60))
@settings(max_examples=200, deadline=None)
def test_the_memory_says_what_the_gate_would_say(steps: list[tuple[str, object, Policy | None]]) -> None:
    world = World()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(permitted.time, "time", world.seconds)
        for what, value, meanwhile in steps:
            if what == "ask":
                assert isinstance(value, Asked)
                world.ask(value, meanwhile)
            elif what == "swap":
                assert isinstance(value, Policy)
                world.policy = value
            elif what == "days":
                assert isinstance(value, int)
                world.days = value
            else:
                world.policy = replace(world.policy)  # a reload: equal, but another object


def test_what_was_permitted_is_remembered_until_policy_or_day_change() -> None:
    world, asked = World(), ASKED[-1]
    moment = world.memory.now()
    assert not world.memory.holds(asked, moment)
    world.memory.add(asked, moment)
    assert world.memory.holds(asked, world.memory.now())
    world.policy = replace(world.policy)
    assert not world.memory.holds(asked, world.memory.now())
    world.memory.add(asked, moment)
    assert not world.memory.holds(asked, world.memory.now()), "decided by the policy before"


def test_without_a_policy_to_go_by_nothing_is_remembered() -> None:
    memory = Permitted(None)
    memory.add(ASKED[0], memory.now())
    assert not memory.holds(ASKED[0], memory.now())


def test_what_is_kept_is_bounded() -> None:
    world = World()
    moment = world.memory.now()
    world.memory.holds(ASKED[0], moment)

    def called(*words: bytes) -> Asked:
        return Asked("/", (Run((b"x", *words), "/x", File("/x", 1, 1)),), (), "")

    for number in range(MOST + 1):
        world.memory.add(called(b"%d" % number), moment)
    assert not world.memory.holds(called(b"0"), moment)
    assert world.memory.holds(called(b"1"), moment)
    for long in (called(b"x" * 4096), called(*[b""] * MOST_WORDS)):
        world.memory.add(long, moment)
        assert not world.memory.holds(long, moment)
    known = called()._replace(environment=(("LD_PRELOAD", "x" * 4096),))
    world.memory.add(known, moment)
    assert not world.memory.holds(known, moment)


class Counts(RefusesAttack):
    """How often the gate was asked about the harmless echo."""

    asked = 0

    def check(self, request: CommandRequest, /) -> Decision:
        self.asked += request.text == "echo harmless"
        return super().check(request)


DRIVER = """
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int status;
    char *quiet[] = {"echo", "harmless", 0};
    if (!fork()) execv("/bin/echo", quiet);
    wait(&status);
    if (!fork()) execv("./swap", argv);
    wait(&status);
    return WIFSIGNALED(status) ? 9 : 0;
}
"""


@pytest.mark.skipif(native() is not Arch.X86_64, reason="the race check rests on arch_prctl, which only x86-64 has")
def test_an_argv_that_was_permitted_before_and_is_rewritten_after_the_check_is_killed(workspace: Path) -> None:
    """The memory answers without the gate, and what it answered for is held against what runs as ever."""
    swap, driver = compiled(workspace, "swap", SWAP), compiled(workspace, "driver", DRIVER)
    for program in (swap, driver):
        os.chown(program, UID, UID)  # no callers of whom anything follows
    recorded, gate, meanwhile = Recorded(), Counts(), Meanwhile()
    session = Filtered([str(driver)], cwd=workspace, before_exec=meanwhile.hand_over)

    def in_force() -> Policy:
        """Asked for once the argv is read: the rewrite falls between that and the exec."""
        meanwhile.happens()
        return POLICIES[-1]

    supervisor = supervise(session, recorded, gate=gate, in_force=in_force)
    session.go()
    finished = session.finish()
    supervisor.stop()
    session.close()
    meanwhile.close()
    assert (finished.status, finished.out) == (9, "harmless\n")
    assert recorded.rules() == ["exec-race"]
    assert recorded.events[0].resource == "echo ATTACKED"
    assert gate.asked == 1, "the second one was answered from memory"


def test_a_policy_that_changes_is_asked_at_the_next_exec() -> None:
    recorded, read_end, write_end = Recorded(), *os.pipe()
    current = [POLICIES[-1]]
    text = "for i in 1 2 3; do /bin/ls -d /; done; read x; /bin/ls -d /; echo $?"
    session = Filtered(["/bin/sh", "-c", text], before_exec=lambda: (os.dup2(read_end, 0), None)[1])
    gate = Gate(lambda: current[0], recorded, "session:test")
    supervisor = supervise(session, recorded, gate=gate, in_force=lambda: current[0])
    session.go()
    seen = b""
    while seen.count(b"/\n") < 3:
        seen += os.read(session._out, 100)
    current[0] = POLICIES[1]
    os.write(write_end, b"x\n")
    finished = session.finish()
    supervisor.stop()
    session.close()
    for descriptor in (read_end, write_end):
        os.close(descriptor)
    assert finished.out == "126\n"
    assert recorded.rules() == ["r"]


def test_what_is_only_observed_is_recorded_each_time() -> None:
    recorded = Recorded()
    session = Filtered(["/bin/sh", "-c", "/bin/ls -d /; /bin/ls -d /; /bin/ls -d /"])
    gate = Gate(lambda: POLICIES[2], recorded, "session:test")
    supervisor = supervise(session, recorded, gate=gate, in_force=lambda: POLICIES[2])
    session.go()
    finished = session.finish()
    supervisor.stop()
    session.close()
    assert finished.out == "/\n" * 3
    assert recorded.rules().count("r") >= 3
