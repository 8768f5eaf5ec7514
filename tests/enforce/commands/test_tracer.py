"""The exec ring behind ptrace, against real programs on this kernel: what the notify ring refuses, it refuses too."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.enforce.commands.judge import CommandGate, ExecJudge
from agent.gate import Gate
from agent.linux import bpf, seccomp
from agent.linux.syscalls import Arch, native
from agent.policy.decision import Decision, Verdict
from agent.policy.request import CommandRequest
from agent.session.tracer import GO_ON, LONGEST, Question, answer, greet
from tests.conftest import require
from tests.enforce.commands.filtered import GID, UID, Finished
from tests.enforce.commands.meanwhile import Meanwhile
from tests.enforce.commands.test_supervisor import (  # the same tests, by this module's `supervised`
    Supervised,
    compiled,
    policy,
    test_a_refused_command_ends_with_126_says_why_once_and_is_recorded_once,  # noqa: F401
    test_a_refused_program_stays_refused_behind,  # noqa: F401
    test_an_ordinary_command_runs_and_leaves_no_record,  # noqa: F401
    test_arguments_that_cannot_be_read_whole_are_denied,  # noqa: F401
    test_asking_again_by_the_same_path_is_recorded_again,  # noqa: F401
    test_execveat_is_decided_by_its_descriptor_and_errors_are_the_kernels,  # noqa: F401
    test_memory_that_cannot_be_read_is_denied_and_recorded,  # noqa: F401
    test_scripts_of_all_shapes_run,  # noqa: F401
)
from tests.enforce.commands.test_supervisor_races import RACE, SWAP, LetsItChange, RefusesAttack
from tests.enforce.commands.traced import Traced
from tests.enforce.ring import Recorded, build_request

pytestmark = pytest.mark.skipif(native() is not Arch.X86_64, reason="tracing is for x86-64 only")

AFTER = SWAP.replace("wait_for_the_word();", "phase = 1; wait_for_the_word();").replace(
    "execv(", "while (!phase); execv("
)
"""The thread runs before the exec is asked for: a new thread is not let run while the tracer decides."""
GETPPID = 110  # asm/unistd_64.h


@pytest.fixture(autouse=True)
def _needs_root() -> None:
    require(os.geteuid() == 0, "root, to give the session a uid of its own")


@pytest.fixture
def workspace() -> Iterator[Path]:
    """A directory that the session's user reaches; every run of pytest closes its own to others."""
    directory = Path(tempfile.mkdtemp(prefix="parhelia-trace-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def supervised(workspace: Path) -> Iterator[Supervised]:
    """Runs an argv as the session, traced, with a real gate and `policy()`."""
    recorded = Recorded()
    sessions: list[Traced] = []

    def run(*argv: str, cwd: Path = Path("/"), before_exec: Callable[[], None] | None = None) -> Finished:
        sessions.append(Traced(list(argv), cwd=cwd, before_exec=before_exec))
        sessions[-1].trace(Gate(policy, recorded, "session:test"), build_request, recorded.post)
        return sessions[-1].finish()

    os.chown(workspace, UID, GID)
    yield Supervised(recorded, run, workspace)
    for session in sessions:
        session.close()


@pytest.fixture
def trace(workspace: Path) -> Iterator[Callable[..., tuple[Traced, Recorded]]]:
    """Starts a traced session; what a test leaves of it is ended."""
    sessions: list[Traced] = []

    def start(
        *argv: str,
        gate: CommandGate | None = None,
        before_exec: Callable[[], None] | None = None,
        deadline: float = 5.0,
    ) -> tuple[Traced, Recorded]:
        recorded = Recorded()
        session = Traced(list(argv), before_exec=before_exec)
        sessions.append(session)
        session.trace(gate or Gate(policy, recorded, "session:test"), build_request, recorded.post, deadline)
        return session, recorded

    yield start
    for session in sessions:
        session.close()


type Trace = Callable[..., tuple[Traced, Recorded]]


@pytest.fixture
def meanwhile() -> Iterator[Meanwhile]:
    made = Meanwhile()
    yield made
    made.close()


def test_an_argv_rewritten_by_a_sibling_thread_after_the_check_never_runs(trace: Trace, workspace: Path) -> None:
    program = compiled(workspace, "race", RACE)
    outcomes: list[str] = []
    killed = 0
    for _ in range(40):
        session, recorded = trace(str(program), gate=RefusesAttack())
        finished = session.finish()
        outcomes.append(finished.out.strip())
        if finished.status == -signal.SIGKILL:
            killed += 1
            assert recorded.rules() == ["exec-race"], "a kill is recorded"
        else:
            assert recorded.rules() == []
    assert set(outcomes) <= {"harmless", ""}
    assert killed or "harmless" in outcomes, "the attack was really tried"


@pytest.mark.parametrize("flags", [(), ("-static",)])
def test_an_argv_rewritten_while_the_decision_is_made_is_killed_and_recorded(
    trace: Trace, workspace: Path, meanwhile: Meanwhile, flags: tuple[str, ...]
) -> None:
    program = compiled(workspace, "swap", AFTER, *flags)
    session, recorded = trace(str(program), gate=LetsItChange(meanwhile), before_exec=meanwhile.hand_over)
    finished = session.finish()
    assert (finished.status, finished.out) == (-signal.SIGKILL, "")
    assert recorded.rules() == ["exec-race"]


BARE = r"""
.globl _start
_start: mov $1, %eax; mov $1, %edi; lea text(%rip), %rsi; mov $4, %edx; syscall; mov $60, %eax; xor %edi, %edi; syscall
text: .ascii "ran\n"
"""


def test_a_program_without_libc_does_not_get_past_the_comparison(
    trace: Trace, workspace: Path, meanwhile: Meanwhile
) -> None:
    """The notify ring rests on a call that libc makes; here the kernel itself stops the new program."""
    bare = workspace / "bare"
    subprocess.run(["gcc", "-nostdlib", "-static", "-x", "assembler", "-", "-o", bare], input=BARE.encode(), check=True)
    assert trace(str(bare))[0].finish().out == "ran\n"
    swap = AFTER.replace("/bin/echo", str(bare)).replace('{"echo"', '{"bare"')
    program = compiled(workspace, "swap", swap)
    session, recorded = trace(str(program), gate=LetsItChange(meanwhile), before_exec=meanwhile.hand_over)
    assert session.finish() == Finished(-signal.SIGKILL, "", "")
    assert recorded.rules() == ["exec-race"]


EVERY_WAY = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <errno.h>
#include <signal.h>
static char *argv_[] = {"rm", "-rf", "/", 0}, *env_[] = {0};
static char stack[1 << 16];
static int attempt(void *_) { execve("/bin/rm", argv_, env_); _exit(errno); }
static void *in_thread(void *_) { attempt(0); return 0; }
static void end(const char *how, pid_t pid) {
    int status = 0;
    waitpid(pid, &status, __WALL);
    printf("%s %d\n", how, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    fflush(stdout);
}
int main(void) {
    pid_t pid;
    if ((pid = fork()) == 0) attempt(0);
    end("fork", pid);
    if ((pid = vfork()) == 0) attempt(0);
    end("vfork", pid);
    end("clone", clone(attempt, stack + sizeof stack, SIGCHLD, 0));
    end("clone without a signal", clone(attempt, stack + sizeof stack, CLONE_VM, 0));
    if ((pid = fork()) == 0) { pthread_t t; pthread_create(&t, 0, in_thread, 0); pthread_join(t, 0); }
    end("thread", pid);
    if ((pid = fork()) == 0) {
        if (fork() == 0) { setsid(); if (fork() == 0) attempt(0); }
        _exit(0);
    }
    end("orphan", pid);
    printf("untraced %d", clone(attempt, stack + sizeof stack, CLONE_UNTRACED | SIGCHLD, 0));
    printf(" %d\n", errno);
    return 0;
}
"""


def test_whatever_starts_a_process_its_exec_is_decided(trace: Trace, workspace: Path) -> None:
    session, recorded = trace(str(compiled(workspace, "every", EVERY_WAY)))
    finished = session.finish()
    assert finished.out.splitlines() == [
        *(f"{how} {errno.EACCES}" for how in ("fork", "vfork", "clone", "clone without a signal", "thread")),
        "orphan 0",
        f"untraced -1 {errno.EPERM}",
    ]
    session.close()
    assert recorded.rules() == ["delete-system"] * 6


def test_a_storm_of_forks_and_threads_loses_no_exec(trace: Trace, workspace: Path) -> None:
    storm = workspace / "storm.sh"
    text = "rm=$(ls /bin | grep -x rm); for i in $(seq 40); do (/bin/$rm -rf / & /bin/true & wait) & done"
    storm.write_text(f"{text} 2>/dev/null; wait; echo done")
    session, recorded = trace("/bin/bash", str(storm))
    assert session.finish().out == "done\n"
    assert recorded.rules() == ["delete-system"] * 40


def test_a_program_stopped_by_a_signal_stays_stopped_until_it_is_continued(trace: Trace) -> None:
    """It is continued again and again, since the first time may come before it is stopped."""
    text = "(sleep 0.3; echo continuing; while :; do kill -CONT $$; sleep 0.1; done) & kill -STOP $$; echo resumed"
    session, _ = trace("/bin/sh", "-c", f"{text}; trap 'echo caught; kill -KILL $!; exit 7' TERM; kill -TERM $$")
    assert session.finish() == Finished(7, "continuing\nresumed\ncaught\n", "")


@pytest.mark.parametrize("how", ["killed", "nobody left to ask"])
def test_the_end_of_the_tracer_is_the_end_of_all_that_it_traced(trace: Trace, how: str) -> None:
    session, _ = trace("/bin/sh", "-c", "sleep 100 & sleep 100")
    if how == "killed":
        os.kill(session.tracing, signal.SIGKILL)
    else:
        assert session.tracer is not None
        session.tracer.stop()
    assert session.ended.get(timeout=60) is None
    assert session.finish() == Finished(-signal.SIGKILL, "", "")  # the pipes end too, so nothing is left of it


class Raises:
    """A gate that is broken."""

    def check(self, request: object, /) -> Decision:
        raise RuntimeError("the gate is broken")


def test_a_fault_in_the_decision_is_a_recorded_denial(trace: Trace) -> None:
    session, recorded = trace("/bin/true", gate=Raises())
    assert session.finish() == Finished(126, "", "exec: Permission denied\n")
    assert recorded.rules() == ["agent-fault"]


def test_a_fault_where_nothing_can_be_refused_kills(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExecJudge, "approved", Raises().check)
    session, recorded = trace("/bin/true")
    assert session.finish().status == -signal.SIGKILL
    assert recorded.rules() == ["agent-fault"]


class Hangs:
    """A gate that answers the first request when it is told to, which is too late."""

    def __init__(self) -> None:
        self.answer = threading.Event()

    def check(self, request: CommandRequest, /) -> Decision:
        self.answer.wait(60)
        return Decision(Verdict.ALLOW, "late", "", "")


def test_an_exec_that_is_not_decided_in_time_is_refused_and_the_session_ends_when_it_never_is(trace: Trace) -> None:
    gate = Hangs()
    session, recorded = trace("/bin/true", gate=gate, deadline=1.0)
    assert session.ended.get(timeout=60) == "a call could not be decided"
    gate.answer.set()
    assert session.finish().status == 126
    assert recorded.rules() == ["exec-deadline"]


def test_a_comparison_that_does_not_end_is_a_deadline_too(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Hangs()
    monkeypatch.setattr(ExecJudge, "approved", lambda judge, pid: gate.answer.wait(60))
    session, recorded = trace("/bin/echo", "ran", deadline=1.0)
    assert session.ended.get(timeout=60) == "a call could not be decided"
    gate.answer.set()
    assert session.finish() == Finished(-signal.SIGKILL, "", "")
    assert recorded.rules() == ["exec-deadline"]


def test_an_exec_that_nobody_approved_is_killed_before_its_first_instruction(trace: Trace, workspace: Path) -> None:
    """What would happen if an exec came past the filter: here its process is traced and has no such filter."""
    mark = workspace / "mark"
    session = Traced(["/bin/sh", "-c", f"touch {mark}"], filtered=False)
    recorded = Recorded()
    session.trace(Gate(policy, recorded, "session:test"), build_request, recorded.post)
    assert session.finish().status == -signal.SIGKILL
    session.close()
    assert recorded.rules() == ["exec-race"]
    assert not mark.exists()


def test_other_calls_that_a_filter_of_the_sessions_own_sends_here_fail(trace: Trace) -> None:
    def own_filter() -> None:
        getppid = bpf.assemble(
            [
                bpf.load(bpf.NR_OFFSET),
                bpf.jump_equal(GETPPID, no="allow"),
                bpf.ret(seccomp.RET_TRACE),
                bpf.Label("allow"),
                bpf.ret(seccomp.RET_ALLOW),
            ]
        )
        seccomp.install(getppid)

    session, recorded = trace("/usr/bin/python3", "-c", "import os; print(os.getppid())", before_exec=own_filter)
    assert session.finish().out == f"-{errno.EACCES}\n"
    assert recorded.rules() == []


def test_other_children_of_this_process_stay_its_own(trace: Trace) -> None:
    session, _ = trace("/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8; do /bin/true; done")
    ended = [subprocess.run(["/bin/sh", "-c", f"exit {code}"], check=False).returncode for code in range(1, 9)]
    assert ended == [1, 2, 3, 4, 5, 6, 7, 8]
    assert session.finish().status == 0


ON = "sleep 0; /bin/echo ran; echo $?; r=$(echo rm); /bin/$r -rf /; echo $?; /bin/true && echo went on"


class HangsAtEcho(Hangs):
    """A gate that allows all, until it hangs: as good as dead."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()

    def check(self, request: CommandRequest, /) -> Decision:
        if request.origin.exe != "/usr/bin/echo":
            return Decision(Verdict.ALLOW, "all", "", "")
        self.asked.set()
        return super().check(request)


def test_what_a_dead_guard_had_in_hand_is_refused_by_the_next_one_and_all_else_decided(trace: Trace) -> None:
    gate = HangsAtEcho()
    session, recorded = trace("/bin/sh", "-c", ON, gate=gate, deadline=100.0)
    assert gate.asked.wait(60)
    session.answer(Gate(policy, recorded, "session:test"), build_request, recorded.post, successor=True)
    finished = session.finish()
    gate.answer.set()
    assert finished.out == "126\n126\nwent on\n", finished
    assert recorded.rules() == ["agent-fault", "delete-system"]


@pytest.mark.parametrize(("argv", "out", "rules"), [
    (("/bin/echo", "ran"), "ran\n", []),
    (("/bin/rm", "-rf", "/"), "", ["delete-system", "exec-race"]),
])  # fmt: skip
def test_a_program_that_a_dead_guard_approved_is_decided_again_before_its_first_instruction(
    argv: tuple[str, ...], out: str, rules: list[str]
) -> None:
    """The dead one's answer was the last that it did; what it was asked after that it has not read."""
    recorded = Recorded()
    session = Traced(list(argv))
    session.traced()
    assert session.guards is not None
    greet(session.guards, 1)
    session.go()
    answer(session.guards, Question.parse(session.guards.recv(LONGEST)), GO_ON)
    session.answer(Gate(policy, recorded, "session:test"), build_request, recorded.post, successor=True)
    assert session.finish() == Finished(-signal.SIGKILL if rules else 0, out, "")
    session.close()
    assert recorded.rules() == rules
