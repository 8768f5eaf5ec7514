"""What this machine offers, which level each enforcement point reaches, why, and what would raise it.

The same probe and the same table as a real start (`agent.session`): `doctor` cannot say more than `run` does. It also
names what no level shows: refusals that only the kernel sees and that therefore leave no line in the log.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.daemon.base.places import NATIVE_CLIENT
from agent.daemon.launch.environment import SHIM
from agent.daemon.ring.limiting import available
from agent.linux.process import Capability, capabilities
from agent.session.levels import Offer, Point, Reached, reached, shortfall
from agent.session.probe import probe

BY_THE_GUARD = "by-the-guard"
UNSEEN_PATHS = (
    "a file access that Landlock, mounts or file permissions refuse fails with EACCES, EPERM or EROFS, unrecorded"
)
AUDITED = (
    "; with `paths.audit: writes` in the policy, calls that would change a file by its path are recorded where the"
    " policy denies them, and there remain: changes through open descriptors (ftruncate, fchmod, fchown,"
    " fsetxattr, futimens), sockets that bind makes in a network namespace, what file permissions alone refuse inside"
    " a granted tree, and a path that another thread changes after it was read"
)
UNAUDITED = "; `paths.audit: writes` is not available here (no seccomp user notification)"
READS_AUDITED = (
    "; with `paths.audit: reads`, opens of files that are named sensitive (docs/policy.md) are refused and recorded,"
    " and of reads there remain: those of all other files, look-ups that open nothing (stat, access), opens with O_PATH"
)
READS_UNAUDITED = "; `paths.audit: reads` is not available here (no mounts, or no fanotify with the rights it needs)"
UNSEEN = (
    (
        Point.EGRESS,
        "datagrams other than DNS, and connections that are neither captured nor sent to the proxy, fail in the kernel"
        " (ECONNREFUSED, no route, or EACCES), unrecorded",
    ),
)
"""Refusals, besides those of paths, that reach nobody but the program that tried (Landlock's audit does not work in a
container)."""


def examine() -> dict[str, Any]:
    """Everything `doctor` says, as JSON-able data."""
    offer = probe()
    levels = reached(offer)
    return {
        "contained": not shortfall(levels),
        "points": {str(point): _point(found) for point, found in levels.items()},
        "mechanisms": _mechanisms(offer),
        "unrecorded": [{"point": str(point), "what": what} for point, what in unseen(offer)],
    }


def unseen(offer: Offer) -> list[tuple[Point, str]]:
    """What leaves no line on a machine that offers this."""
    writes, reads = AUDITED if offer.notify else UNAUDITED, READS_AUDITED if offer.reads else READS_UNAUDITED
    return [(Point.PATHS, UNSEEN_PATHS + writes + reads), *UNSEEN]


def _point(found: Reached) -> dict[str, str]:
    shown = {"level": str(found.level), "why": found.why}
    return shown | {"to_raise": found.instead} if found.instead else shown


def _captured(offer: Offer) -> str:
    """In a jail by its network, elsewhere by the guard, which makes the session's connections."""
    return BY_THE_GUARD if offer.connect and not offer.jail else str(offer.capture)


def _holding(offer: Offer) -> str:
    """What holds `paths.protect`; `policy explain paths` says it of each place."""
    if offer.mounts:
        return "mounts"
    return "ownership, in the home only (tried at the start)" if offer.root else "nothing"


def _mechanisms(offer: Offer) -> dict[str, Any]:
    held = capabilities()
    return {
        "root": offer.root,
        "network_namespace": offer.jail or f"no ({offer.jail_why})",
        "captured_connections": _captured(offer),
        "mount_namespace": offer.mounts,
        "protected_places": _holding(offer),
        "process_namespace": offer.pids or "no",
        "process_limits": available(),
        "landlock_abi": offer.landlock,
        "seccomp_filter": offer.seccomp,
        "seccomp_notification": offer.notify,
        "denied_reads": "fanotify" if offer.reads else "no",
        "tracing": offer.trace or "no",
        "guard_replaced": offer.guard_replaced,
        "hook_client": "native" if NATIVE_CLIENT.is_file() else "python (the native one was not built)",
        "shell_shim": Path(SHIM).is_dir(),
        "capabilities": sorted(capability.name for capability in Capability if capability in held),
    }
