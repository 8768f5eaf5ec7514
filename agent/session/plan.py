"""What the launcher is told: every step of the session's confinement, as one value; and what a command in it is.

The guard decides (from `agent.session.levels` and the policy) and the launcher obeys; a step that the plan asks for
and that fails ends the launch.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from agent.values import asdict, dataclass

type Target = tuple[str, str, int]
"""``tcp`` or ``udp``, address, port."""
type Decoy = tuple[str, tuple[str, ...]]
"""A place that the session may not read, and the names shown below it: files, directories where they end in ``/`` (the
empty one: the place itself). Without names it is a file."""


class Hold(StrEnum):
    """How a mount keeps a place as it is. READ_ONLY: nothing at or below it is written. PIN: it is neither renamed nor
    removed. RESERVE: a placeholder, shown as an empty file or directory, read-only."""

    READ_ONLY = "read-only"
    PIN = "pin"
    RESERVE = "reserve"


@dataclass(frozen=True, slots=True)
class Proofs:
    """What the confined launcher must fail to do before the session starts; empty: not tried.

    `dial`: canaries of the agent's network namespace, which must not be reached; `token`: what is sent there (whether
    it arrived, the guard sees). `ungranted`: files open to everybody that only the path guard keeps closed. `private`:
    the agent's own files. `signal`: pids that must be out of reach. `protected`: places never written.
    """

    dial: tuple[Target, ...] = ()
    token: str = ""
    ungranted: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    signal: tuple[int, ...] = ()
    protected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the session's: what is executed, with which variables, where."""

    argv: tuple[str, ...]
    env: dict[str, str]
    workdir: str


@dataclass(frozen=True, slots=True)
class Plan:
    """One launch. `jail`: how the network namespace is made (``root``, ``user``) or None; `doors` and `capture`:
    which of agent.session.doors it has. `hide`, `sockets` (of others, by their path), `bind`, `empty_run` (a /run
    without the machine's sockets) and `hold` (protected places; `empty_file` is what a reserved file shows) need a
    mount namespace. `pids`: how the session gets a process namespace and a /proc of its own (``root``, ``user``) or
    None. `processes`: RLIMIT_NPROC of its account, None to leave it. `read`, `write`, `devices` are the Landlock
    grants, used where `landlock` is true; `connect_ports` the TCP ports that stay reachable, None for no TCP rule.
    `trace_exec`: execs stop for the tracer (``plain``, or ``user``: with a user namespace, which makes the tracer its
    owner). `notify_connect`: the guard makes and connects the sockets. `notify_writes`: it is asked before a file is
    changed by its path. Uids None: stay as is. `decoys`: shown in the place of what may not be read, and
    `decoys_at` the directory that their file system covers (agent.session.decoys)."""

    argv: tuple[str, ...]
    env: dict[str, str]
    workdir: str
    uid: int | None
    gid: int | None
    jail: str | None
    doors: tuple[str, ...]
    capture: str
    mounts: bool
    pids: str | None
    processes: int | None
    hide: tuple[str, ...]
    sockets: tuple[str, ...]
    empty_run: bool
    hold: tuple[tuple[str, Hold], ...]
    empty_file: str
    bind: tuple[tuple[str, str], ...]
    landlock: bool
    read: tuple[str, ...]
    write: tuple[str, ...]
    devices: tuple[str, ...]
    connect_ports: tuple[int, ...] | None
    seccomp: bool
    notify_exec: bool
    trace_exec: str | None
    notify_connect: bool
    notify_writes: bool
    proxy_port: int
    proofs: Proofs
    decoys: tuple[Decoy, ...] = ()
    decoys_at: str = ""

    @property
    def command(self) -> Command:
        """The session's first."""
        return Command(self.argv, self.env, self.workdir)

    def dump(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def parse(data: dict[str, Any]) -> Plan:
        """The inverse of `dump` after JSON. Raises TypeError where keys are missing or unknown."""
        proofs = data.pop("proofs")
        for key in ("argv", "doors", "hide", "sockets", "read", "write", "devices"):
            data[key] = tuple(data[key])
        data["bind"] = tuple((source, target) for source, target in data["bind"])
        data["hold"] = tuple((path, Hold(how)) for path, how in data["hold"])
        data["decoys"] = tuple((path, tuple(names)) for path, names in data.get("decoys", ()))
        if data["connect_ports"] is not None:
            data["connect_ports"] = tuple(data["connect_ports"])
        return Plan(
            proofs=Proofs(
                tuple((kind, address, port) for kind, address, port in proofs["dial"]),
                proofs["token"],
                tuple(proofs["ungranted"]),
                tuple(proofs["private"]),
                tuple(proofs["signal"]),
                tuple(proofs["protected"]),
            ),
            **data,
        )
