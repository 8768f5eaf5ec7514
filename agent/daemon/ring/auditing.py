"""The guard's part in the path audit: whether a session has one, what it is made of, what is said where it has none."""

from __future__ import annotations

from collections.abc import Callable

from agent.daemon.base.journal import Journal
from agent.daemon.base.spec import RunSpec
from agent.daemon.launch.planning import Ground
from agent.enforce.paths.audit import PathAudit
from agent.gate import Gate
from agent.policy.model import Policy
from agent.session.levels import Level, Offer, Point

UNAVAILABLE = (
    "paths.audit: writes needs seccomp user notification, which this machine does not have: what the kernel refuses is"
    " refused, but not recorded"
)


def say_unaudited(policy: Policy, offer: Offer, level: Level, journal: Journal) -> list[str]:
    """Record and return why the audit that the policy asks for is not to be had; nothing where it is, or is not asked
    for. `level`: that of the paths, which the audit does not change."""
    if offer.notify or not policy.audits_writes:
        return []
    journal.degraded(Point.PATHS, level, UNAVAILABLE)
    return [UNAVAILABLE]


def make_path_audit(spec: RunSpec, ground: Ground, gate: Gate, in_force: Callable[[], Policy]) -> PathAudit | None:
    """For a session that stands on `ground`; None where it has none. `in_force`: the policy by which `gate` decides."""
    if not (ground.policy.audits_writes and ground.offer.notify):
        return None
    separate = spec.egress_user is not None
    return PathAudit(
        gate,
        in_force,
        session_uid=spec.session_user.uid if separate else None,
        session_gid=spec.session_user.gid if separate else None,
        home=ground.places.home,
        tmpdir=ground.places.tmpdir,
    )
