"""What can be asked over the control socket: one table of verbs, the least role for each, and what answers.

Rules kept here: an answer is one JSON object with `exit`, the exit code of the command line's verb, and `error` where
it did not go well; what a verb changes is recorded by what it calls, with the caller as the actor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent.daemon.control.callers import Caller
from agent.daemon.control.events import ControlEvents
from agent.daemon.control.execs import Execs
from agent.daemon.control.link import ControlLink
from agent.daemon.control.lockdown import Lockdown
from agent.daemon.control.server import Verb
from agent.daemon.control.wire import Message, WireError
from agent.daemon.survival.restoring import Restoring
from agent.exits import Exit
from agent.policy.control_roles import Role
from agent.policy.lockdown import Measure
from agent.policy.words import shown
from agent.record.event import RecordError

if TYPE_CHECKING:  # it is made there
    from agent.daemon.beside.companions import Company

RELOAD_SECONDS = 60.0
MAX_CAUSE = 500


class ControlVerbs:
    """The verbs of one session."""

    def __init__(self, company: Company, lockdown: Lockdown, execs: Execs, restoring: Restoring) -> None:
        self._company = company
        self._lockdown = lockdown
        self._execs = execs
        self._restoring = restoring

    def table(self) -> Mapping[str, Verb]:
        """Verb -> least role and answer."""
        return {
            "status": Verb(Role.VIEWER, self.status),
            "exec": Verb(Role.OPERATOR, self._execs.answer),
            "lockdown": Verb(Role.OPERATOR, self.lockdown),
            "lift": Verb(Role.ADMIN, self.lift),
            "reload": Verb(Role.ADMIN, self.reload),
            "restored": Verb(Role.ADMIN, self.restored),
        }

    async def status(self, caller: Caller, message: Message, link: ControlLink) -> Message:
        """The state of the agent and of the session."""
        return {"exit": int(Exit.OK), "status": self._lockdown.status()}

    async def reload(self, caller: Caller, message: Message, link: ControlLink) -> Message:
        """Read the policy again, and say whether it is in force."""
        try:
            async with asyncio.timeout(RELOAD_SECONDS):
                faults = await self._company.reload(f"asked by {caller.actor}")
        except TimeoutError:
            faults = (f"the policy could not be read within {RELOAD_SECONDS:.0f} s",)
        digest = self._company.policy().digest
        if faults:
            return {"exit": int(Exit.POLICY_INVALID), "error": "\n".join(faults), "digest": digest}
        return {"exit": int(Exit.OK), "digest": digest}

    async def lockdown(self, caller: Caller, message: Message, link: ControlLink) -> Message:
        """Contain the session."""
        try:
            measure = Measure(str(message.get("measure")))
        except ValueError:
            raise WireError("it names no measure") from None
        state = await self._lockdown.engage(measure, _cause(message), caller.actor)
        return {"exit": int(Exit.OK), "lockdown": state.document(), "audit_dir": self._company.spec.audit_dir}

    async def restored(self, caller: Caller, message: Message, link: ControlLink) -> Message:
        """The container was restored from a checkpoint: a new boot and stream."""
        try:
            boot = await self._restoring.restored(caller.actor)
            ControlEvents(self._company.ledger, self._company.spec.session_id).restored(caller, _cause(message))
            await asyncio.to_thread(self._company.ledger.flush)
        except RecordError as error:
            return {"exit": int(Exit.UNPROTECTED), "error": f"no new stream: {error}"}
        return {"exit": int(Exit.OK), "boot": boot}

    async def lift(self, caller: Caller, message: Message, link: ControlLink) -> Message:
        """Let the session go on."""
        if not await self._lockdown.lift(_cause(message), caller.actor):
            return {"exit": int(Exit.USAGE), "error": "the session is in no lockdown that can be lifted"}
        return {"exit": int(Exit.OK), "lockdown": self._lockdown.state.document()}


def _cause(message: Message) -> str:
    cause = message.get("cause")
    if not isinstance(cause, str) or len(cause) > MAX_CAUSE:
        raise WireError(f"its cause is no text of at most {MAX_CAUSE} characters")
    return shown(cause) or "asked for"
