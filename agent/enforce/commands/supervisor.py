"""The exec ring: every exec of the session stops here and is answered.

Rules: those of `agent.enforce.notify_loop`, which carries the ring; `gate.check`, `build_request`, `post`, `observe`
and `ended` are called on the loop's threads, so they must be safe to call off the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.enforce.commands.executable import Executables
from agent.enforce.commands.judge import (
    CONTINUE,
    BuildRequest,
    CommandGate,
    ExecJudge,
    bare_request,
    own_decision,
)
from agent.enforce.commands.programs import Programs
from agent.enforce.commands.refusal import Given
from agent.enforce.notify_journal import NotifyJournal
from agent.enforce.notify_loop import PROCEED, Answer, Handler, NotifyLoop
from agent.linux import notify, process
from agent.linux.syscalls import number
from agent.policy.decision import Severity
from agent.policy.rule_ids import AGENT_FAULT
from agent.record.event import Event

DEADLINE_S = 5.0
"""How long one call may wait for its answer before it is EACCES."""
FAULT = "the agent could not decide; see its log"
_CALLS = ("execve", "execveat", "arch_prctl")


class ExecSupervisor:
    """Answers for one session's execs, and lends its loop to the `others` that answer for further calls.

    Owns `listener` from `start` on. `session_uid` and `session_gid`: whose memory is read; None where the session has
    the agent's own. `post` takes the events that are not the gate's (a race, unreadable memory, a deadline). `observe`
    gets the seconds each exec took to decide. `ended` is called once at the end, with the reason where it was a fault.
    `journal`: see `NotifyLoop`. `successor`: of another supervisor, whose approvals are not known.
    """

    def __init__(
        self,
        listener: int,
        gate: CommandGate,
        build_request: BuildRequest,
        *,
        session_uid: int | None,
        session_gid: int | None,
        actor: str,
        post: Callable[[Event], None],
        observe: Callable[[float], None] | None = None,
        ended: Callable[[str | None], None] | None = None,
        deadline: float = DEADLINE_S,
        stderr: Given | None = None,
        others: Mapping[int, Handler] | None = None,
        in_force: Callable[[], object] | None = None,
        executables: Executables | None = None,
        journal: NotifyJournal | None = None,
        successor: bool = False,
    ) -> None:
        eyes = process.FilesystemIdentity(session_uid, session_gid)
        self._observe = observe
        self._programs = Programs(session_uid)
        self._judge = ExecJudge(
            gate,
            build_request,
            actor=actor,
            post=post,
            is_valid=lambda ident: notify.is_valid(listener, ident),
            eyes=eyes,
            stderr=stderr,
            programs=self._programs,
            in_force=in_force,
            executables=executables,
            successor=successor,
        )
        self._arch_prctl = number("arch_prctl")
        own: dict[int, Handler] = {found: self for name in _CALLS if (found := number(name)) is not None}
        handlers = own | dict(others or {})
        self._loop = NotifyLoop(
            listener,
            handlers,
            eyes,
            prepare=self._programs.prepare,
            deadline=deadline,
            ended=ended,
            journal=journal,
        )

    def start(self) -> None:
        """Start answering. Raises OSError where the session's file-system identity cannot be taken."""
        self._loop.start()

    def stop(self) -> None:
        """End supervision: later execs of the session answer ENOSYS. Waits for the exec in hand, at most a deadline."""
        self._loop.stop()

    def answer(self, stopped: notify.Notification, listener: int) -> Answer:
        """For the loop (see `Handler`)."""
        found = self._judge.answer(stopped)
        return PROCEED if found == CONTINUE else Answer(found)

    def fault(self, stopped: notify.Notification) -> None:
        self._judge.record(own_decision(AGENT_FAULT, FAULT, Severity.HIGH), bare_request(stopped.tid))

    def overdue(self, stopped: notify.Notification, seconds: float) -> None:
        late = own_decision("exec-deadline", f"not decided within {seconds:g} s", Severity.HIGH)
        self._judge.record(late, bare_request(stopped.tid))

    def took(self, stopped: notify.Notification, seconds: float) -> None:
        if self._observe is not None and stopped.number != self._arch_prctl:
            self._observe(seconds)
