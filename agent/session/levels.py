"""How much is enforced, as a value: the four enforcement points, their levels, and what each machine reaches.

`Offer` is what a machine has (found by `agent.session.probe`); `reached` says which level follows, why, and what would
raise it. One table serves `doctor`, the launcher's choice of mechanisms, the `agent.degraded` events and the metric.
"""

from __future__ import annotations

import platform
from enum import StrEnum

from agent.session.doors import Capture
from agent.session.jail import COMMON_PORTS
from agent.values import dataclass


class Point(StrEnum):
    """The enforcement points."""

    EGRESS = "egress"
    EXEC = "exec"
    PATHS = "paths"
    AGENT = "agent"


class Level(StrEnum):
    """ENFORCED: the session can't get round it, proven at start. PARTIAL: a named hole. ADVISORY: only programs that
    cooperate. OFF: nothing."""

    ENFORCED = "enforced"
    PARTIAL = "partial"
    ADVISORY = "advisory"
    OFF = "off"


CONTAINED = (Point.EGRESS, Point.PATHS, Point.AGENT)
"""What `--require contained` demands to be ENFORCED."""

LANDLOCK_PATHS = 3
"""The first Landlock ABI that covers truncation (landlock(7)); below it a grant can be got round."""
LANDLOCK_TCP = 4
"""The first Landlock ABI with TCP connect rules (landlock(7))."""
LANDLOCK_SCOPE = 6
"""The first Landlock ABI that keeps signals inside a domain (landlock(7)); access to the memory and descriptors of
processes outside of it, which ptrace(2) governs, is refused by every one."""


CAPTURED = {
    Capture.EVERY_PORT: "every TCP connection is captured and decided",
    Capture.COMMON_PORTS: f"TCP connections to ports {', '.join(map(str, COMMON_PORTS))} are captured and decided,"
    " others reach nothing, unrecorded (no nf_tables tproxy in this kernel)",
    Capture.NONE: "the proxy and the name server are the only doors: programs that know no proxy reach nothing,"
    " unrecorded (this kernel lets no address be made local)",
}
"""What becomes of connections that do not ask the proxy, in a network namespace of the session's own."""

VIEW = (
    "a mount namespace in which only what is granted can be entered or read, read-only where it is granted for reading"
)


@dataclass(frozen=True, slots=True)
class Offer:
    """What this machine has for confinement. `jail`: how an isolating network namespace is to be had; `capture`: which
    connections inside it reach the egress process without being sent to the proxy; `connect`: whether, without one, the
    guard can make the session's sockets and connect them."""

    root: bool
    jail: str | None  # "root", "user" or None
    mounts: bool
    landlock: int
    seccomp: bool
    notify: bool
    jail_why: str = ""
    capture: Capture = Capture.NONE
    trace: str | None = None  # how execs can be supervised by tracing: "plain", "user" (in a user namespace) or not
    pids: str | None = None  # how a process namespace with a /proc of its own is to be had: "root", "user" or not
    reads: bool = False  # the guard can be asked before a decoy is opened (agent.session.decoys)
    connect: bool = False  # a supervisor can make the session's sockets, and connect them (not asked for in a jail)

    @property
    def supervised(self) -> bool:
        """Whether every exec of the session is decided, by either mechanism: what only shows there need not be refused
        before."""
        return self.notify or self.trace is not None

    @property
    def guard_replaced(self) -> bool:
        """Whether another guard can take over from one that dies: the session cannot open the memory that is left to
        it. Where there is no notification (gVisor) it could with the agent's uid; no session starts there, see
        `_agent`."""
        return self.notify or self.root


@dataclass(frozen=True, slots=True)
class Reached:
    """One point's level, why it is that, and what would raise it ('' where nothing need)."""

    level: Level
    why: str
    instead: str = ""


def reached(offer: Offer) -> dict[Point, Reached]:
    """The level each enforcement point reaches on a machine that offers this."""
    return {
        Point.EGRESS: _egress(offer),
        Point.EXEC: _exec(offer),
        Point.PATHS: _paths(offer),
        Point.AGENT: _agent(offer),
    }


def shortfall(levels: dict[Point, Reached]) -> list[Point]:
    """The points that keep this machine from being *contained*."""
    return [point for point in CONTAINED if point in levels and levels[point].level is not Level.ENFORCED]


def _egress(offer: Offer) -> Reached:
    if offer.jail:
        how = "" if offer.jail == "root" else " (through a user namespace)"
        return Reached(Level.ENFORCED, f"own network namespace{how}: no route out; {CAPTURED[offer.capture]}")
    if offer.connect:
        wall = ", and Landlock lets it connect nothing by itself" if offer.landlock >= LANDLOCK_TCP else ""
        return Reached(
            Level.ENFORCED,
            "seccomp user notification: the guard makes, connects and binds every socket; TCP connections are captured"
            f" and decided, the session listens on loopback only, and it has no datagram sockets{wall}",
        )
    if offer.landlock >= LANDLOCK_TCP and offer.seccomp:
        return Reached(
            Level.PARTIAL,
            "socket filter and Landlock TCP, which knows ports, not addresses: any address on the proxy's port is open,"
            " and so is what the session itself listens on"
            f" ({offer.jail_why or 'no network namespace to be had'})",
            "a network namespace: CAP_SYS_ADMIN, or user namespaces allowed by the container's seccomp profile",
        )
    return Reached(
        Level.ADVISORY,
        f"proxy variables only: {offer.jail_why or 'no network namespace'}, and no Landlock TCP rules",
        "Linux 6.7 or later (Landlock ABI 4), or a network namespace",
    )


def _exec(offer: Offer) -> Reached:
    if not offer.supervised:
        return Reached(
            Level.ADVISORY,
            "neither seccomp user notification nor tracing: only the first command and what the tool hook sees are"
            " decided",
            "a kernel with seccomp user notification (Linux 5.5 or later), or gVisor on x86-64 with CAP_SYS_PTRACE or"
            " user namespaces",
        )
    if not offer.notify:
        return Reached(
            Level.ENFORCED,
            "ptrace (no seccomp user notification here): every exec is decided on its final argv and checked again"
            " before the program's first instruction",
        )
    if platform.machine() != "x86_64":
        return Reached(
            Level.PARTIAL,
            "every exec is decided, but not checked again afterwards: a sibling thread may rewrite argv in between",
            "x86-64",
        )
    return Reached(Level.ENFORCED, "every exec is decided on its final argv and checked again after the exec")


def path_walls(offer: Offer) -> tuple[str, ...]:
    """What holds the grants of `paths` on a machine that offers this, besides file permissions; it may be nothing."""
    landlock = (f"Landlock (ABI {offer.landlock})",) if offer.landlock >= LANDLOCK_PATHS else ()
    return (*landlock, "mounts") if offer.mounts else landlock


def _paths(offer: Offer) -> Reached:
    if offer.landlock >= LANDLOCK_PATHS or (offer.root and offer.mounts):
        walls = [VIEW if wall == "mounts" else wall for wall in path_walls(offer)]
        uid = "own uid" if offer.root else "one uid with the agent"
        held = "" if offer.mounts else f"; {_unheld(offer)}: a run that finds such places is partial"
        return Reached(Level.ENFORCED, f"{' and '.join(walls)}; {uid}, no_new_privs{held}")
    return Reached(
        Level.PARTIAL,
        "file permissions of a separate uid only: what everybody may read or write (such as /var/tmp) stays open",
        "Linux 6.2 or later with Landlock enabled, or a mount namespace",
    )


def _unheld(offer: Offer) -> str:
    what = "protected places outside of the home" if offer.root else "protected places"
    return f"no mount namespace to hold {what} (`paths.protect`)"


def _agent(offer: Offer) -> Reached:
    if offer.root:
        return Reached(Level.ENFORCED, "the agent runs under other uids than the session")
    raise_it = "start the agent as root, so that it can separate uids"
    if offer.landlock >= LANDLOCK_SCOPE and offer.seccomp:
        return Reached(
            Level.PARTIAL,
            "the agent and the session share one uid: Landlock keeps the session from signalling, tracing and reading"
            " the agent's processes and from opening its files, and the system call filter from changing their limits"
            " and priorities; but mode, times and attributes of the agent's files can be changed, and what is counted"
            " per uid (processes, pending signals) is shared",
            raise_it,
        )
    refused = "" if offer.landlock else ": no session starts, which could read the agent's log (exit 4)"
    return Reached(Level.OFF, f"the agent and the session share one uid{refused}", raise_it)
