"""The limits of all of a session's processes together: a control group of its own, or its account's, or none.

Rules kept here: what the policy names and this machine cannot hold is said, never dropped; what is held is held before
a command's first instruction (a process that cannot be put into its group is not let go). The account's limit
(RLIMIT_NPROC, getrlimit(2)) counts every process of that uid on the kernel, those of other containers too: it is only
used where the policy names a number itself. The session's init is in no such group, so that it can always end all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.daemon.base.journal import Journal
from agent.daemon.base.names import group_name
from agent.daemon.base.refused import Refused
from agent.daemon.base.spec import RunSpec
from agent.exits import Exit
from agent.linux import cgroups
from agent.policy.model import Policy
from agent.policy.model_session import ProcessLimits
from agent.session.levels import Level, Point
from agent.session.probe import account_limits
from agent.values import dataclass

DEFAULT_PIDS = 4096
"""Processes and threads of a session where the policy does not say, and a control group can hold it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds. `place` puts a process into the session's groups (raises OSError). `by_account`: RLIMIT_NPROC for
    the session's account. `missing`: what the policy names and nothing holds, as sentences."""

    place: Callable[[int], None]
    by_account: int | None = None
    missing: tuple[str, ...] = ()


def hold(asked: ProcessLimits, name: str, *, account: int | None) -> Limits:
    """Make the groups `name`. `account`: the session's uid, None where it is the agent's too."""
    made: list[cgroups.Limit] = []
    missing: list[str] = []
    by_account = None
    for controller, most, named in (
        (cgroups.PIDS, asked.pids or DEFAULT_PIDS, asked.pids is not None),
        (cgroups.MEMORY, asked.memory or 0, asked.memory is not None),
    ):
        if not most:
            continue
        try:
            limit = cgroups.find(controller, name, most)
            limit.make()
            made.append(limit)
        except OSError as error:
            if named and controller == cgroups.PIDS and account is not None and account_limits(account):
                by_account = most
            elif named:
                missing.append(f"session.limits.{controller}: nothing here holds it (control group: {error.strerror})")
    return Limits(lambda pid: _place(made, pid), by_account, tuple(missing))


def hold_limits(spec: RunSpec, policy: Policy, journal: Journal | None, warnings: list[str]) -> Limits:
    """The run's. What is missing is `agent.degraded` and a warning. Raises Refused under ``--require contained``."""
    account = None if spec.egress_user is None else spec.session_user.uid
    limits = hold(policy.process_limits, group_name(spec.boot), account=account)
    for text in limits.missing:
        warnings.append(text)
        if journal is not None:
            journal.degraded(Point.AGENT, Level.PARTIAL, text)
        if spec.require_contained:
            raise Refused(Exit.UNPROTECTED, f"--require contained: {text}")
    return limits


def placing(spec: RunSpec) -> Callable[[int], None]:
    """How a process is put into the groups that this run has already."""
    made = cgroups.existing(group_name(spec.boot))
    return lambda pid: _place(made, pid)


def available() -> dict[str, str]:
    """Which limits can be held here, by trying, for `doctor`: controller -> how. Leaves nothing behind."""
    found: dict[str, str] = {}
    for controller in (cgroups.PIDS, cgroups.MEMORY):
        name = group_name("doctor")
        try:
            cgroups.find(controller, name, DEFAULT_PIDS if controller == cgroups.PIDS else 1 << 30).make()
            found[controller] = "control group"
        except OSError:
            found[controller] = "account, where session.limits names it" if controller == cgroups.PIDS else "no"
        finally:
            cgroups.remove(name)
    return found


def _place(made: Sequence[cgroups.Limit], pid: int) -> None:
    for limit in made:
        limit.add(pid)
