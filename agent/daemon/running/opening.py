"""Opening what a run stands on: its log, its policy, its secrets; and closing the log at the end.

Rules kept here: whatever cannot be had raises `Refused` with the contract's exit code; nothing is recorded before the
log is open, and no line of it holds a secret's value or placeholder once the secrets are read.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from agent.daemon.base import places as layout
from agent.daemon.base.journal import Journal
from agent.daemon.base.refused import Refused
from agent.daemon.base.spec import RunSpec
from agent.daemon.launch.secrets import SecretMissing, read_secrets, secrets_of
from agent.daemon.policies.accounts import role_faults, unknown_names
from agent.daemon.policies.store import PolicyStore, StoreState
from agent.daemon.survival.standing import Counts
from agent.enforce.egress.secrets import Secrets
from agent.exits import Exit
from agent.policy.detection import severities
from agent.policy.load import PolicyError
from agent.policy.model import Policy
from agent.record.event import RecordError
from agent.record.ledger import Ledger, WriterBusy
from agent.record.metrics import Metrics
from agent.record.push import Pusher
from agent.record.unwritten import Unkept

log = logging.getLogger(__name__)

_RELEASED_SECONDS = 5.0


class Opening:
    """One run's log, policy and numbers. `unwritten`: where the log keeps what it has not written yet. `store`,
    `ledger`, `journal` are there once opened."""

    def __init__(self, spec: RunSpec, unwritten: Unkept | None = None) -> None:
        self._spec = spec
        self._unwritten = unwritten
        self.store: PolicyStore | None = None
        self.metrics = Metrics(version=spec.version)
        self.ledger: Ledger | None = None
        self.journal: Journal | None = None
        self._pusher: Pusher | None = None
        self.warnings: list[str] = []

    def check_own_paths(self) -> None:
        """The agent's own files are out of the session's reach. Raises Refused."""
        try:
            layout.check_own_paths(self._spec)
        except layout.Exposed as error:
            raise Refused(Exit.POLICY_INVALID, str(error)) from error
        except OSError as error:
            raise Refused(Exit.UNPROTECTED, f"the agent's own places: {error}") from error

    def open_log(self) -> tuple[Ledger, Journal]:
        """Take the log, and say that the agent has started. Raises Refused."""
        spec = self._spec
        ledger = self._make_ledger(spec.boot, spec.audit_dir)
        try:
            ledger.start()
        except WriterBusy as error:
            raise Refused(Exit.UNPROTECTED, f"audit log: {error}") from error
        except (RecordError, OSError) as error:
            raise Refused(Exit.UNPROTECTED, f"audit log {spec.audit_dir}: {error}") from error
        journal = self._record_with(ledger)
        journal.agent_started()
        return ledger, journal

    async def reopen(self, store: StoreState, counts: Counts, secrets: Secrets) -> tuple[Ledger, Journal]:
        """Go on with the log, the policy and the numbers of a guard that died. Raises RecordError, OSError."""
        spec = self._spec
        ledger = self._make_ledger(counts.boot or spec.boot, counts.directory or spec.audit_dir)
        ledger.redact_with(secrets.redact_event)
        self.store = self._make_store(store)
        policy = self.store.current
        ledger.configure(policy.audit)
        self.metrics.set_policy(policy.digest, [entry.name for entry in secrets_of(policy)], severities(policy))
        self.metrics.resume(counts.metrics)
        await _start(ledger, counts.seq)
        return ledger, self._record_with(ledger)

    def _make_ledger(self, boot: str, directory: str) -> Ledger:
        return Ledger(
            Path(directory),
            session_id=self._spec.session_id,
            boot=boot,
            policy_digest=lambda: "" if self.store is None else self.store.current.digest,
            metrics=self.metrics,
            unwritten=self._unwritten,
        )

    def _make_store(self, left: StoreState | None = None) -> PolicyStore:
        """Raises PolicyError where there is nothing left and the first load fails."""
        spec = self._spec
        return PolicyStore([Path(directory) for directory in spec.policy_dirs], left, own=[spec.audit_dir])

    def _record_with(self, ledger: Ledger) -> Journal:
        spec = self._spec
        self.ledger = ledger
        self.journal = Journal(ledger, spec)
        if spec.pushgateway_url:
            self._pusher = Pusher(
                self.metrics,
                spec.pushgateway_url,
                env=spec.env_label,
                instance=lambda: f"{spec.session_id}-{ledger.boot}",
            )
            self._pusher.start()
        return self.journal

    def load_policy(self, ledger: Ledger, journal: Journal) -> Policy:
        """Read the policy and put it in force. Raises Refused."""
        try:
            self.store = self._make_store()
        except PolicyError as error:
            journal.policy_rejected(str(error))
            raise Refused(Exit.POLICY_INVALID, str(error)) from error
        policy = self.store.current
        if faults := role_faults(policy, self._spec):
            journal.policy_rejected("; ".join(faults))
            raise Refused(Exit.POLICY_INVALID, "\n".join(faults))
        self.warnings += [f"control: there is no {name} on this machine" for name in unknown_names(policy)]
        ledger.configure(policy.audit)
        detectors = severities(policy)
        self.metrics.set_policy(policy.digest, [entry.name for entry in secrets_of(policy)], detectors)
        self.warnings += [str(warning) for warning in policy.warnings]
        journal.policy_loaded([layer.source for layer in policy.layers])
        return policy

    def read_secrets(self, policy: Policy, ledger: Ledger, journal: Journal) -> Secrets:
        """Read the secrets' values: from here on no line of the log holds one, or a placeholder. Raises Refused."""
        try:
            secrets = read_secrets(policy, self._spec, journal.secret_read)
        except layout.Exposed as error:
            raise Refused(Exit.POLICY_INVALID, str(error)) from error
        except (SecretMissing, RecordError) as error:
            raise Refused(Exit.UNPROTECTED, str(error)) from error
        ledger.redact_with(secrets.redact_event)
        return secrets

    def current(self) -> Policy:
        """The policy in force. Raises LookupError where none is."""
        if self.store is None:
            raise LookupError("no policy is loaded")
        return self.store.current

    def close(self, reason: str) -> None:
        """The last event; the log is closed."""
        if self.ledger is None or self.journal is None:
            return
        self.journal.agent_stopped(reason)
        try:
            self.ledger.close()
        except RecordError as error:
            log.error("%s", error)

    async def push_last(self) -> None:
        """The last numbers, where any are pushed."""
        if self._pusher is not None:
            self.metrics.end_session()
            await asyncio.to_thread(self._pusher.close)


async def _start(ledger: Ledger, counted: int) -> None:
    """Raises WriterBusy, where another process keeps the lock: a child that a dead guard forked may for a moment."""
    deadline = asyncio.get_running_loop().time() + _RELEASED_SECONDS
    while True:
        try:
            ledger.start(counted)
        except WriterBusy:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.01)
        else:
            return
