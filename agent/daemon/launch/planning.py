"""From the policy, the machine's offer and the run's directories to the launcher's plan."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.daemon.base import places as layout
from agent.daemon.base.names import control_directory
from agent.daemon.base.spec import WORKDIR, RunSpec
from agent.daemon.launch.canary import Canaries
from agent.daemon.launch.environment import session_environment
from agent.daemon.launch.secrets import check_kept, placeholder_environment, secret_files
from agent.daemon.protection.protecting import Protection
from agent.enforce.egress.secrets import Secrets
from agent.policy.grants import DEVICES, Grants
from agent.policy.model import Policy
from agent.policy.paths import covers
from agent.record.event import Json
from agent.session.doors import Door
from agent.session.levels import LANDLOCK_PATHS, LANDLOCK_SCOPE, LANDLOCK_TCP, Offer, Point, Reached
from agent.session.plan import Hold, Plan, Proofs
from agent.shell.redact import redact_argv
from agent.values import dataclass, field

PUBLIC = "/run/parhelia"
"""Where the session finds the agent's public directory wherever a mount namespace is to be had: the hook client's
socket path, HOOK, is compiled in."""
HOOK = f"{PUBLIC}/hook.sock"
RESOLV_CONF = "/etc/resolv.conf"
JAIL_DOORS = (Door.PROXY, Door.CAPTURE, Door.DNS_UDP, Door.DNS_TCP)
INIT = 1
"""The number of the first process of a process namespace (pid_namespaces(7))."""
PROVED = 64
"""Of so many protected places it is proven at the start that they cannot be written."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a launch stands on: the policy, the run's directories, the effective grants, the machine's offer."""

    policy: Policy
    places: layout.Places
    grants: Grants
    offer: Offer
    secrets: Secrets = field(default_factory=Secrets)
    protection: Protection = field(default_factory=Protection)


def workdir(spec: RunSpec) -> str:
    """Where the session starts: as asked, else in the workspaces, else (or where they are not granted) at home."""
    return spec.workdir or (WORKDIR if Path(WORKDIR).is_dir() else spec.session_user.home)


def make_plan(
    spec: RunSpec, ground: Ground, *, port: int, canaries: Canaries, policy_files: Sequence[str], processes: int | None
) -> Plan:
    """Everything the launcher is told. `port`: the proxy's; `processes`: what the session's account may have. Raises
    places.Exposed."""
    places, grants, offer = ground.places, ground.grants, ground.offer
    separate = spec.egress_user is not None
    landlock = offer.landlock >= LANDLOCK_PATHS
    granted = (*grants.read, *grants.write)
    private = layout.private_paths(spec, [*policy_files, *secret_files(ground.policy)])
    hide = layout.to_hide(spec, private, grants, landlock, offer.mounts)
    public = PUBLIC if offer.mounts else places.public
    binds = dict(_binds(spec, places, jailed=offer.jail is not None)) if offer.mounts else {}
    if offer.mounts:
        Path(PUBLIC).mkdir(parents=True, exist_ok=True)
    return Plan(
        argv=spec.command,
        env=_environment(spec, ground, public, port),
        workdir=workdir(spec),
        uid=spec.session_user.uid if separate else None,
        gid=spec.session_user.gid if separate else None,
        jail=offer.jail,
        doors=(*JAIL_DOORS, Door.MARK) if offer.trace else JAIL_DOORS,
        capture=offer.capture,
        mounts=offer.mounts,
        pids=offer.pids,
        processes=processes,
        hide=(*hide, *([str(control_directory(spec.run_dir))] if offer.mounts else [])),
        sockets=tuple(layout.machine_sockets(spec)) if offer.mounts else (),
        empty_run=offer.mounts and not any(covers("/run", root) or covers(root, "/run") for root in granted),
        hold=ground.protection.held,
        empty_file=f"{places.public}/{layout.EMPTY}",
        bind=tuple(binds.items()),
        landlock=landlock,
        read=(
            *grants.read,
            public,
            *(binds[source] for source in (places.resolv_conf, places.hosts) if source in binds),
        ),
        write=grants.write,
        devices=DEVICES,
        connect_ports=_connect_ports(offer, port),
        seccomp=offer.seccomp,
        notify_exec=offer.notify,
        trace_exec=offer.trace,
        notify_connect=offer.connect,
        notify_writes=offer.notify and ground.policy.audits_writes,
        proxy_port=port,
        proofs=_proofs(ground, port, canaries, private, separate=separate),
    )


def _proofs(ground: Ground, port: int, canaries: Canaries, private: Sequence[str], *, separate: bool) -> Proofs:
    """`private`: the agent's own files. `separate`: the session has a uid of its own; else Landlock keeps it out."""
    offer = ground.offer
    closed = offer.jail or offer.connect or _connect_ports(offer, port)
    landlock = offer.landlock >= LANDLOCK_PATHS
    return Proofs(
        dial=canaries.targets if closed else (),
        token=canaries.token,
        ungranted=(ground.places.canary,) if (landlock or offer.mounts) and ground.places.canary else (),
        private=tuple(private) if separate or landlock else (),
        signal=_of_the_agent(offer, separate=separate),
        protected=tuple(path for path, how in ground.protection.places if how is not Hold.PIN)[:PROVED],
    )


def _of_the_agent(offer: Offer, *, separate: bool) -> tuple[int, ...]:
    """The processes that the session must not be able to signal, by the numbers that they have for it: in a process
    namespace of its own only the init has one."""
    if offer.pids:
        return (INIT,) if separate else ()
    return (os.getpid(), os.getppid()) if separate or offer.landlock >= LANDLOCK_SCOPE else ()


def _environment(spec: RunSpec, ground: Ground, public: str, port: int) -> dict[str, str]:
    """The session's variables, none of which holds a secret. Raises places.Exposed."""
    env = session_environment(
        spec,
        ground.policy,
        ground.places,
        workdir=workdir(spec),
        ca_bundle=f"{public}/{layout.CA_BUNDLE}",
        port=port,
        placeholders=placeholder_environment(ground.policy, ground.secrets),
        shells=ground.offer.mounts or os.path.realpath(HOOK) == os.path.realpath(ground.places.hook_socket),
    )
    if ground.offer.connect:
        env.setdefault("RES_OPTIONS", "use-vc")  # resolver(5): look-ups by TCP, which can be captured
    check_kept(ground.secrets, env, spec.command)
    return env


def _connect_ports(offer: Offer, port: int) -> tuple[int, ...] | None:
    """What Landlock lets the session connect to by itself: nothing where the guard connects its sockets."""
    if offer.jail is not None or offer.landlock < LANDLOCK_TCP:
        return None
    return () if offer.connect else (port,)


def _binds(spec: RunSpec, places: layout.Places, *, jailed: bool) -> Iterator[tuple[str, str]]:
    """What appears elsewhere in the session's mount namespace: the public directory, the trust bundle in the place of
    the system's, for programs that look at no variable, and in the jail a resolv.conf that names the name server there
    (where there is none to cover, programs ask 127.0.0.1 anyway: resolv.conf(5)), and a hosts file."""
    yield places.public, PUBLIC
    for source, target in ((places.resolv_conf, RESOLV_CONF), (places.hosts, layout.HOSTS)):
        if jailed and Path(target).is_file():
            yield source, os.path.realpath(target)
    if spec.system_ca is not None:
        yield places.ca_bundle, spec.system_ca


def session_details(spec: RunSpec, plan: Plan, levels: dict[Point, Reached], ground: Ground) -> dict[str, Json]:
    """What `session.create` says: who, what, where, how far each point is enforced, and the digest of the grants and of
    what holds protected places."""
    grants, protection = ground.grants, ground.protection
    shown = json.dumps([grants.read, grants.write, protection.held, protection.owned]).encode(errors="surrogateescape")
    points: dict[str, Json] = {str(point): str(found.level) for point, found in levels.items()}
    argv: list[Json] = [*redact_argv(plan.argv)]
    return {
        "argv": argv,
        "user": spec.session_user.name,
        "workdir": plan.workdir,
        "levels": points,
        "grants_sha256": hashlib.sha256(shown).hexdigest(),
        "protected": sum(how is Hold.READ_ONLY for _, how in protection.places),
        "reserved": sum(how is Hold.RESERVE for _, how in protection.places),
        "env_label": spec.env_label,
    }
