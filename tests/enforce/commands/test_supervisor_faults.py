"""The exec ring when a decision fails or never ends, and when the supervisor is gone."""

from __future__ import annotations

import errno
import os
import threading

from agent.policy.decision import Decision, Verdict
from agent.policy.request import CommandRequest
from tests.enforce.commands import test_supervisor as ring
from tests.enforce.commands.filtered import Filtered
from tests.enforce.commands.test_supervisor import supervise
from tests.enforce.ring import Recorded

_needs_root = ring._needs_root


def test_a_fault_in_the_decision_is_a_recorded_denial_and_supervision_goes_on() -> None:
    class Faulty:
        def check(self, request: CommandRequest, /) -> Decision:
            if request.origin.argv == ("/bin/echo", "no"):
                raise RuntimeError("a bug")
            return Decision(Verdict.ALLOW, "fine", "", "")

    recorded, session = Recorded(), Filtered(["/bin/sh", "-c", "/bin/echo no; echo $?; /bin/echo yes"])
    supervisor = supervise(session, recorded, gate=Faulty())
    session.go()
    finished = session.finish()
    supervisor.stop()
    session.close()
    assert finished.out == "126\nyes\n"
    assert recorded.rules() == ["agent-fault"]


def test_a_decision_that_does_not_end_is_denied_at_its_deadline() -> None:
    release = threading.Event()

    class Stuck:
        def check(self, request: CommandRequest, /) -> Decision:
            if request.origin.argv == ("/bin/echo", "slow"):
                release.wait(60)
            return Decision(Verdict.ALLOW, "fine", "", "")

    command = "/bin/echo slow; echo $?; /bin/echo next; echo $?"
    recorded, session = Recorded(), Filtered(["/bin/sh", "-c", command])
    supervisor = supervise(session, recorded, gate=Stuck(), deadline=1.5)
    session.go()
    finished = session.finish()
    release.set()
    supervisor.stop()
    session.close()
    assert finished.out == "126\n126\n"
    assert recorded.rules() == ["exec-deadline", "exec-deadline"]


def test_when_the_supervisor_is_gone_execs_answer_enosys() -> None:
    recorded, session = Recorded(), Filtered(["/bin/sh", "-c", "/bin/echo before; read x; /bin/echo after; echo $?"])
    read_end, write_end = os.pipe()
    session.close()
    session = Filtered(
        ["/bin/sh", "-c", "/bin/echo before; read x; /bin/echo after; echo $?"],
        before_exec=lambda: (os.dup2(read_end, 0), None)[1],
    )
    ended = threading.Event()
    reasons: list[str | None] = []
    supervisor = supervise(session, recorded, ended=lambda reason: (reasons.append(reason), ended.set())[1])
    session.go()
    first = os.read(session._out, 100)
    supervisor.stop()
    os.write(write_end, b"x\n")
    finished = session.finish()
    for descriptor in (read_end, write_end):
        os.close(descriptor)
    session.close()
    assert first == b"before\n"
    assert "after" not in finished.out
    assert os.strerror(errno.ENOSYS) in finished.err
    assert ended.wait(60)
    assert reasons == [None]


def test_supervision_ends_by_itself_with_the_last_task() -> None:
    ended = threading.Event()
    session = Filtered(["/bin/true"])
    supervise(session, Recorded(), ended=lambda reason: ended.set())
    session.go()
    assert session.finish().status == 0
    assert ended.wait(60)
    session.close()
