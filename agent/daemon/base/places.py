"""The directories of one run: what is made for the session, and what must stay out of its reach.

`public` is the only part of the agent's run directory that the session may read: the CA bundle, the hook's socket and
its client, the ProxyCommand for ssh. Everything else of the agent's (log, policy, sockets) is private: closed by
ownership, by a grant that does not cover it, or by a covering mount; where none of these is to be had the run is
refused.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agent.daemon.base import names
from agent.daemon.base.spec import RunSpec
from agent.daemon.base.trust import make_directory, movable, planted
from agent.policy.grants import Grants
from agent.policy.paths import covers
from agent.values import dataclass, replace

_ENFORCE = Path(__file__).parents[2] / "enforce"
NATIVE_CLIENT = _ENFORCE / "commands" / "native" / "parhelia-hook"
CLIENTS = (
    NATIVE_CLIENT,
    _ENFORCE / "commands" / "hook_client.py",
    _ENFORCE / "egress" / "ssh_proxy.py",
)
"""Programs for the session: static, or of one file and the standard library only. The first is there where `make setup`
found a C compiler."""


CA_BUNDLE = "ca-bundle.pem"
EMPTY = "empty"
"""What a reserved file shows."""
HOSTS = "/etc/hosts"
RESOLV_CONF = "nameserver 127.0.0.1\noptions timeout:2 attempts:2\n"
"""resolv.conf(5) of a session whose name server is the egress process's: one server, and no search list, so that the
name that is decided is the name that was asked for."""


class Exposed(Exception):
    """Something private could be read by the session; the text names it and the fix."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where things lie in this run."""

    public: str
    private: str
    tmpdir: str
    home: str
    ca_bundle: str
    resolv_conf: str
    hosts: str
    hook_socket: str
    canary: str | None = None


def lay_out(spec: RunSpec) -> Places:
    """Make the session's own directories. Raises OSError."""
    public = Path(spec.run_dir, "public")
    private = Path(spec.run_dir, "private")
    public.mkdir(mode=0o755)
    private.mkdir(mode=0o700)
    names.control_directory(spec.run_dir).mkdir(mode=0o711)
    above = names.own_directory(spec)
    above.mkdir(mode=0o711)
    tmpdir, home = above / "tmp", Path(spec.session_user.home)
    _make(tmpdir, spec)
    if not home.is_dir() or home.stat().st_uid != spec.session_user.uid:  # not one that the session could write to
        home = above / "home"
        _make(home, spec)
    for client in CLIENTS:
        if client.is_file():
            shutil.copyfile(client, public / client.name)
            (public / client.name).chmod(0o755)
    (public / EMPTY).touch(mode=0o444)
    resolv_conf, hosts = public / "resolv.conf", public / "hosts"
    resolv_conf.write_text(RESOLV_CONF, encoding="ascii")
    with suppress(FileNotFoundError):
        hosts.write_bytes(own_hosts(Path(HOSTS).read_bytes(), os.uname().nodename))
    for file in (resolv_conf, hosts):
        if file.exists():
            file.chmod(0o644)
    return Places(
        public=str(public),
        private=str(private),
        tmpdir=str(tmpdir),
        home=str(home),
        ca_bundle=str(public / CA_BUNDLE),
        resolv_conf=str(resolv_conf),
        hosts=str(hosts),
        hook_socket=str(public / "hook.sock"),
    )


def own_hosts(machine: bytes, name: str) -> bytes:
    """The session's hosts(5): the machine's, but that the machine's own name is loopback. In the jail its other
    addresses are elsewhere, like everybody's, and looking the name up would be an attempt to get out."""
    lines = []
    for line in machine.splitlines():
        fields = line.partition(b"#")[0].split()
        kept = [field for field in fields[1:] if field.lower() != os.fsencode(name).lower()]
        if len(kept) == len(fields[1:]):
            lines.append(line)
        elif kept:
            lines.append(b" ".join([fields[0], *kept]))
    return b"\n".join([*lines, b"127.0.0.1 " + os.fsencode(name), b""])


def set_canary(places: Places, grants: Grants, spec: RunSpec) -> Places:
    """Lay a file that everybody may read and write where no grant covers it: only the path guard keeps it closed, and
    the launcher proves that it does. No canary where the policy grants everything."""
    granted = (*grants.read, *grants.write)
    for path in names.canaries(spec):
        if not path.parent.is_dir() or any(covers(root, str(path.resolve())) for root in granted):
            continue
        try:
            with path.open("x", encoding="ascii") as file:  # where others can write: nothing that is there is followed
                file.write("outside every grant; see agent/session/proofs.py\n")
                os.fchmod(file.fileno(), 0o666)
        except OSError:  # not ours to write (an agent without root)
            continue
        return replace(places, canary=str(path))
    return places


def publish_hook(places: Places, spec: RunSpec) -> None:
    """Where the session has no mount namespace: let the hook client's compiled-in path lead to this session's socket.

    The first session of a container has it; another one's is left alone (its hook calls are then refused by the first
    agent, which knows its own processes)."""
    fixed = names.hook_link(spec)
    with suppress(OSError):
        if fixed.is_symlink() and not fixed.exists():
            fixed.unlink()
        fixed.symlink_to(places.hook_socket)


def make_roots(grants: Grants, spec: RunSpec) -> list[str]:
    """Make missing write roots for the session; returns the missing read roots (they are only warned about).

    Raises Exposed where a root leads through a symlink that an earlier session may have left; OSError."""
    user = spec.session_user if os.geteuid() == 0 else None
    for root in (*grants.write, *grants.read):
        link = None if user is None else planted(root, user)
        if link is not None:
            raise Exposed(f"{root} is granted and leads through {link}, a link that the session's user made: remove it")
    for root in grants.write:
        if not Path(root).exists():
            make_directory(root, user)
    return [root for root in grants.read if not Path(root).exists()]


def write_ca_bundle(places: Places, system_ca: str | None, more: str) -> None:
    """The session's trust: the system's certificates, and `more` (PEM): the policy's, and where interception is on the
    agent's own. A file that is there is changed in place, where it is bound to; what stays is there at every moment."""
    system = Path(system_ca).read_text(encoding="utf-8") if system_ca else ""
    text = (system.rstrip("\n") + "\n" + more).encode()
    with open(os.open(places.ca_bundle, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644), "wb") as bundle:
        bundle.write(text)
        bundle.truncate()
        os.fchmod(bundle.fileno(), 0o644)


def check_own_paths(spec: RunSpec) -> None:
    """The log, the policy, the run directory and the agent's program must be out of the session's account's reach, by
    file permissions alone: covering a directory does not keep one above it from being renamed. Raises Exposed."""
    if spec.egress_user is None:  # one user for all: nothing could tell them apart
        return
    own = (spec.audit_dir, spec.run_root, *spec.policy_dirs, str(_ENFORCE.parent), sys.executable)
    for path in own:
        name = movable(path, spec.session_user)
        if name is not None:
            raise Exposed(
                f"{path} is the agent's, and the session's user may rename or replace {name}: choose another place, or"
                " make every directory on the way to it root's"
            )


def machine_sockets(spec: RunSpec) -> list[str]:
    """Unix sockets with a path that anything on this machine serves now (proc_net_unix(5)), but this run's own:
    connecting to one is no file access to Landlock."""
    found = []
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.rstrip("\n").split(None, 7)
            path = fields[7] if len(fields) == 8 else ""
            if path.startswith("/") and not path.startswith(f"{spec.run_dir}/") and Path(path).is_socket():
                found.append(path)
    return list(dict.fromkeys(found))


def private_paths(spec: RunSpec, policy_files: Sequence[str]) -> list[str]:
    """What the session must never read: log, policy files, the run directory's private part."""
    return [spec.audit_dir, f"{spec.run_dir}/private", *policy_files]


def to_hide(spec: RunSpec, paths: list[str], grants: Grants, landlock: bool, mounts: bool) -> list[str]:
    """The private paths that only a covering mount keeps from the session. Raises Exposed where there is no mount."""
    granted = (*grants.read, *grants.write)
    open_ones = []
    for path in paths:
        ungranted = landlock and not any(covers(root, path) for root in granted)
        if not ungranted and not closed(path, spec.session_user.uid, spec.session_user.gid):
            open_ones.append(path)
    if open_ones and not mounts:
        raise Exposed(
            f"{open_ones[0]} can be read by the session's user: chmod 700 it (owner root), or do not grant it"
        )
    return open_ones


def closed(path: str, uid: int, gid: int) -> bool:
    """True where file permissions keep this uid from reaching `path` (some directory on the way, or it itself)."""
    real = Path(os.path.realpath(path))
    for part in (*reversed(real.parents), real):
        try:
            info = part.stat()
        except FileNotFoundError:
            continue
        if info.st_uid == uid:
            return False
        needed = stat.S_IRWXG if info.st_gid == gid else stat.S_IRWXO
        searchable = stat.S_IXGRP if info.st_gid == gid else stat.S_IXOTH
        if part == real and not info.st_mode & needed:
            return True
        if part != real and not info.st_mode & searchable:
            return True
    return False


def _make(path: Path, spec: RunSpec) -> None:
    path.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(path, spec.session_user.uid, spec.session_user.gid)
