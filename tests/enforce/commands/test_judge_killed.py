"""A process that is killed while its exec is being read has executed nothing and was refused nothing."""

from __future__ import annotations

import errno
import os

from agent.enforce.commands.judge import ExecJudge
from agent.gate import Gate
from agent.linux import notify
from agent.linux.process import FilesystemIdentity
from agent.policy.model import Policy
from tests.enforce.commands.filtered import GID, UID, Filtered
from tests.enforce.ring import Recorded, build_request, require_ring


def answered(*, killed: bool) -> tuple[int, list[object]]:
    """What an exec with words that cannot be read comes to, the process killed before they are, or not."""
    require_ring()
    recorded, session = Recorded(), Filtered(["/bin/true", "x" * 4_000_000])
    checks = []

    def is_valid(ident: int) -> bool:
        checks.append(notify.is_valid(session.listener, ident))
        if killed and len(checks) == 1:
            session.kill()
            os.waitid(os.P_PID, session.pid, os.WEXITED | os.WNOWAIT)
        return checks[-1]

    try:
        session.go()
        stopped = notify.receive(session.listener)
        assert stopped is not None
        judge = ExecJudge(
            Gate(lambda: Policy(layers=(), digest="d" * 64), recorded, "session:test"), build_request,
            actor="session:test", post=recorded.post, is_valid=is_valid, eyes=FilesystemIdentity(UID, GID),
        )  # fmt: skip
        return judge.answer(stopped), recorded.rules()
    finally:
        os.close(session.listener)
        session.close()


def test_an_exec_whose_process_is_killed_meanwhile_is_no_refusal_on_record() -> None:
    assert answered(killed=True) == (errno.EACCES, [])


def test_an_exec_that_cannot_be_read_is_one() -> None:
    assert answered(killed=False) == (errno.EACCES, ["exec-unreadable"])
