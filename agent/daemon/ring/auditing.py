"""The guard's part in the audits of paths: whether a session has them, what they are made of, what is said where it has
none."""

from __future__ import annotations

from collections.abc import Callable

from agent.daemon.base.journal import Journal
from agent.daemon.base.places import Places
from agent.daemon.base.spec import RunSpec
from agent.daemon.launch.planning import Ground
from agent.enforce.paths.audit import PathAudit
from agent.enforce.paths.reads import ReadAudit
from agent.gate import Gate
from agent.policy.model import Policy
from agent.session.levels import Level, Offer, Point

UNAVAILABLE = (
    "paths.audit: writes needs seccomp user notification, which this machine does not have: what the kernel refuses is"
    " refused, but not recorded"
)

UNREAD = (
    "paths.audit: reads needs mounts of the session's own and fanotify with the rights of the machine's root, which are"
    " not to be had here: what is refused is not recorded"
)


def say_unaudited(policy: Policy, offer: Offer, level: Level, journal: Journal) -> list[str]:
    """Record and return why an audit that the policy asks for is not to be had; nothing where it is, or is not asked
    for. `level`: that of the paths, which the audit does not change."""
    missing = [UNAVAILABLE] if policy.audits_writes and not offer.notify else []
    missing += [UNREAD] if policy.audits_reads and not offer.reads else []
    for text in missing:
        journal.degraded(Point.PATHS, level, text)
    return missing


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


def make_read_audit(
    group: int, gate: Gate, spec: RunSpec, places: Places, ended: Callable[[str], None], *, successor: bool
) -> ReadAudit:
    """Begins to answer for the session's decoys. `ended`: see `ReadAudit`. `successor`: of another guard's."""
    audit = ReadAudit(
        group,
        gate,
        home=places.home,
        tmpdir=places.tmpdir,
        agents=(spec.audit_dir, *spec.policy_dirs, spec.run_dir),
        ended=ended,
        successor=successor,
    )
    audit.start()
    return audit
