"""Races against the exec ring: what was read is changed before it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.linux.syscalls import Arch, native
from agent.policy.decision import Decision, Verdict
from agent.policy.request import CommandRequest
from agent.record.event import EventType
from tests.conftest import require
from tests.enforce.commands import test_supervisor as ring
from tests.enforce.commands.filtered import Filtered, Finished
from tests.enforce.commands.meanwhile import PIECES, Meanwhile
from tests.enforce.commands.test_supervisor import compiled, supervise
from tests.enforce.ring import Recorded

_needs_root = ring._needs_root
workspace = ring.workspace


RACE = """
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
#include <string.h>
static volatile char word[64] = "harmless";
static void *flip(void *_) {
    for (;;) {
        strcpy((char *)word, "harmless");
        for (volatile int i = 0; i < 300; i++);
        strcpy((char *)word, "ATTACKED");
        for (volatile int i = 0; i < 300; i++);
    }
}
int main(int argc, char **argv) {
    pthread_t t;
    pthread_create(&t, 0, flip, 0);
    usleep(1000 + (getpid() % 7) * 100);
    char *args[] = {"echo", (char *)word, 0};
    execv("/bin/echo", args);
    return 3;
}
"""


class RefusesAttack:
    """Denies any argv with the attacker's word, so that what it allowed never held it."""

    def __init__(self) -> None:
        self.allowed = 0

    def check(self, request: CommandRequest, /) -> Decision:
        bad = any(word != "harmless" for word in (request.origin.argv or ())[1:])
        self.allowed += not bad
        return Decision(Verdict.DENY if bad else Verdict.ALLOW, "attack" if bad else "fine", "", "")


@pytest.mark.skipif(native() is not Arch.X86_64, reason="the race check rests on arch_prctl, which only x86-64 has")
def test_an_argv_rewritten_by_a_sibling_thread_after_the_check_never_runs(workspace: Path) -> None:
    program = compiled(workspace, "race", RACE)
    outcomes: list[str] = []
    killed = 0
    for _ in range(40):
        recorded, session = Recorded(), Filtered([str(program)])
        supervisor = supervise(session, recorded, gate=RefusesAttack())
        session.go()
        finished = session.finish()
        supervisor.stop()
        session.close()
        outcomes.append(finished.out.strip())
        if finished.status == -9:
            killed += 1
            assert recorded.rules() == ["exec-race"], "a kill is recorded"
        else:
            assert recorded.rules() == []
    assert "ATTACKED" not in outcomes
    assert all(out in ("harmless", "") for out in outcomes)
    assert killed or "harmless" in outcomes, "the attack was really tried"


SWAP = (
    f"""
#define _GNU_SOURCE
{PIECES}"""
    + """
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
#include <signal.h>
#include <sys/syscall.h>
#include <asm/prctl.h>
static volatile char word[64] = "harmless";
static volatile int phase;
static void *flip(void *_) {
    wait_for_the_word();
    for (int i = 0; i < 64; i++) word[i] = "ATTACKED"[i % 8] * (i < 8);
    changed();
    return 0;
}
int main(int argc, char **argv) {
    pthread_t t;
    char *args[] = {"echo", (char *)word, 0};
    pthread_create(&t, 0, flip, 0);
    announce();
    execv("/bin/echo", args);
    return 3;
}
"""
)


class LetsItChange(RefusesAttack):
    """Has the change made once the arguments are read: between check and exec."""

    def __init__(self, meanwhile: Meanwhile) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    def check(self, request: CommandRequest, /) -> Decision:
        decision = super().check(request)
        self._meanwhile.happens()
        return decision


def changed_meanwhile(program: Path) -> tuple[Finished, Recorded]:
    """What comes of a program that makes its change while its exec is decided."""
    meanwhile, recorded = Meanwhile(), Recorded()
    session = Filtered([str(program)], before_exec=meanwhile.hand_over)
    supervisor = supervise(session, recorded, gate=LetsItChange(meanwhile))
    session.go()
    finished = session.finish()
    supervisor.stop()
    session.close()
    meanwhile.close()
    return finished, recorded


@pytest.mark.skipif(native() is not Arch.X86_64, reason="the race check rests on arch_prctl, which only x86-64 has")
def test_an_argv_rewritten_while_the_decision_is_made_is_killed_and_recorded(workspace: Path) -> None:
    finished, recorded = changed_meanwhile(compiled(workspace, "swap", SWAP))
    assert (finished.status, finished.out) == (-9, "")
    (event,) = recorded.events
    assert event.type is EventType.BASH_DANGEROUS
    assert event.details["rule"] == "exec-race"
    assert event.details["severity"] == "critical"
    assert event.resource == "echo ATTACKED"


def test_a_working_directory_moved_during_the_decision_is_a_race(workspace: Path) -> None:
    require(native() is Arch.X86_64, "arch_prctl, which only x86-64 has")
    moved = SWAP.replace('for (int i = 0; i < 64; i++) word[i] = "ATTACKED"[i % 8] * (i < 8);', 'chdir("/usr");')
    assert moved != SWAP
    finished, recorded = changed_meanwhile(compiled(workspace, "moved", moved))
    assert (finished.status, finished.out) == (-9, "")
    assert recorded.rules() == ["exec-race"]
