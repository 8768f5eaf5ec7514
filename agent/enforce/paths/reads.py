"""Denied reads of sensitive files: every open of a decoy that lies in the place of one is refused and recorded.

Where the session may not read a file that is named sensitive, it sees an empty one (agent.session.decoys), and the
kernel asks here before that is opened (fanotify(7)). All other opens stop nowhere and cost nothing.

Rules kept here:
- Every open is refused (EPERM), whoever asks and whatever goes wrong; nothing is ever let through.
- The refusal is recorded before it is given (`permission.denied`, mechanism ``fanotify``), by what the policy says of
  the path; where that would have granted it, as the agent's own or by rule `file-permissions`.
- Not recorded: opens of the agent's own, which it makes in the session's stead and which the session's own follow, and
  those before the session starts, which are the launcher's proofs.
- What a guard that died had in hand is refused (`agent-fault`): it may be on record already.
"""

from __future__ import annotations

import logging
import os
import resource
import select
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from agent.enforce.memory import identity_of, path_of
from agent.enforce.paths.audit import PathGate
from agent.enforce.who import origin_of
from agent.linux import fanotify
from agent.policy.decision import Decision, Severity, Verdict
from agent.policy.paths import covered
from agent.policy.request import Access, Origin, PathRequest
from agent.policy.rule_ids import AGENT_FAULT, AGENT_FILES

log = logging.getLogger(__name__)

MECHANISM: Final = "fanotify"
FILE_PERMISSIONS: Final = "file-permissions"
STOP_SECONDS: Final = 5.0
_MOST_NUMBERS: Final = 1 << 16


class ReadAudit:
    """One session's, on a thread of its own. `group`: see `agent.linux.fanotify`; it is its own. `home`, `tmpdir`: the
    session's own directories, `agents` the agent's. `ended` is called, on that thread, where it cannot go on.
    `successor`: of another guard's."""

    def __init__(
        self,
        group: int,
        gate: PathGate,
        *,
        home: str,
        tmpdir: str,
        agents: tuple[str, ...] = (),
        ended: Callable[[str], None],
        successor: bool = False,
    ) -> None:
        self.group = group
        self._gate = gate
        self._home, self._tmpdir = home, tmpdir
        self._agents = agents
        self._ended = ended
        self._successor = successor
        self._open = successor
        self._own = os.getpid()
        self._stopping = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="reads", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def open(self) -> None:
        """The session starts: from here on its attempts are recorded."""
        self._open = True

    def stop(self) -> None:
        """Nobody is answered any more; the session has ended."""
        os.eventfd_write(self._stopping, 1)
        self._thread.join(STOP_SECONDS)
        if not self._thread.is_alive():
            os.close(self.group)
            os.close(self._stopping)

    def _run(self) -> None:
        try:
            if self._successor:
                self._refuse_left()
            poll = select.poll()
            poll.register(self.group, select.POLLIN)
            poll.register(self._stopping, select.POLLIN)
            while not any(ready == self._stopping for ready, _ in poll.poll()):
                self._next()
        except Exception as error:
            log.exception("denied reads cannot be answered any more")
            self._ended(f"{type(error).__name__}: {error}")

    def _next(self) -> None:
        try:
            opening = fanotify.receive(self.group)
        except OSError as error:  # the kernel has refused it
            log.warning("an open of a sensitive file could not be looked at: %s", error)
            self._record_fault()
            return
        if opening is None:
            return
        try:
            if self._open and opening.pid != self._own:
                self._record(opening)
        finally:
            fanotify.refuse(self.group, opening.file)
            os.close(opening.file)

    def _record(self, opening: fanotify.Opening) -> None:
        try:
            path = path_of(opening.file)
            request = self._request(path, _origin(opening.pid))
            if self._gate.check(request).permitted:
                self._gate.deny(request, self._by_itself(path))
        except Exception:
            log.exception("an open of a sensitive file is refused, and could not be described")
            self._record_fault(opening.pid)

    def _by_itself(self, path: str) -> Decision:
        """Why it is refused where the policy would grant it."""
        if covered(self._agents, path):
            return Decision(
                Verdict.DENY, AGENT_FILES, "the agent's own files are never granted", "", severity=Severity.CRITICAL
            )
        reason = f"file permissions keep {path} from the session's account"
        return Decision(Verdict.DENY, FILE_PERMISSIONS, reason, "", severity=Severity.MEDIUM)

    def _record_fault(self, pid: int | None = None) -> None:
        reason = "the agent could not decide; see its log"
        request = self._request("?", Origin(MECHANISM, pid=pid))
        self._gate.deny(request, Decision(Verdict.DENY, AGENT_FAULT, reason, "", severity=Severity.HIGH))

    def _request(self, path: str, origin: Origin) -> PathRequest:
        today = datetime.now(UTC).date()
        return PathRequest(Access.READ, path, today, origin, "", home=self._home, tmpdir=self._tmpdir)

    def _refuse_left(self) -> None:
        """Opens that the guard before had taken and not answered: named by numbers of its own table, which began at 0
        and had no more than this process may have."""
        for number in range(min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], _MOST_NUMBERS)):
            while fanotify.refuse(self.group, number):
                self._record_fault()


def _origin(pid: int) -> Origin:
    """Of a process that waits for its answer; killed, it may be gone."""
    try:
        return origin_of(identity_of(pid), MECHANISM)
    except OSError:
        return Origin(MECHANISM, pid=pid)
