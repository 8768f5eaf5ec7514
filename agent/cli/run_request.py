"""What `run` was asked to do, from its flags and the environment (flags win), with users and directories resolved.

Rules kept here: what cannot be followed raises, and says what to change; nothing is made on the machine.
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.daemon.base.spec import AUDIT_ROOT, POLICIES, RUN_ROOT, RunSpec, User
from agent.version import version

SESSION_USER = "session"
EGRESS_USER = "parhelia"
SYSTEM_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
KEPT = re.compile(r"^(PATH|HOME|USER|SHELL|TERM|LANG|LC_[A-Z]+|TZ|PWD)$")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class UsageError(Exception):
    """The caller's fault; the text says what to change."""


class MissingUser(Exception):
    """A required account is not there."""


def build_spec(args: argparse.Namespace, environ: dict[str, str]) -> RunSpec:
    """What was asked, from flags and environment. Raises UsageError, MissingUser."""
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError("no command: parhelia-agent run -- CMD [ARG]…")
    session_id = environ.get("PARHELIA_SESSION_ID") or str(uuid.uuid4())
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", session_id):
        raise UsageError("PARHELIA_SESSION_ID must be 1-100 of A-Z a-z 0-9 . _ - and start with a letter or digit")
    boot = uuid.uuid4().hex[:12]
    instance = f"{session_id}-{boot}"
    run_root = str(Path(args.run_dir or environ.get("PARHELIA_RUN_DIR") or RUN_ROOT).absolute())
    audit_dir = args.audit_dir or environ.get("PARHELIA_AUDIT_DIR") or f"{AUDIT_ROOT}/{instance}"
    session_user, egress_user = _users(args.user)
    missing = [name for name in args.env if name not in environ]
    if missing:
        raise UsageError(f"--env {missing[0]}: not set in the agent's environment")
    kept = {name: value for name, value in environ.items() if KEPT.match(name)}
    kept |= {"HOME": session_user.home, "USER": session_user.name, "SHELL": session_user.shell}
    kept.setdefault("PATH", DEFAULT_PATH)
    return RunSpec(
        command=tuple(command),
        policy_dirs=tuple(str(layer.absolute()) for layer in policy_directories(args.policy, environ)),
        audit_dir=str(Path(audit_dir).absolute()),
        run_root=run_root,
        run_dir=f"{run_root}/{instance}",
        workdir=None if args.workdir is None else str(Path(args.workdir).absolute()),
        require_contained=args.require == "contained",
        session_id=session_id,
        boot=boot,
        env_label=environ.get("PARHELIA_ENV") or "default",
        pushgateway_url=environ.get("PARHELIA_PUSHGATEWAY_URL") or None,
        session_user=session_user,
        egress_user=egress_user,
        session_env=kept | {name: environ[name] for name in args.env},
        caller_env={name: value for name, value in environ.items() if not name.startswith("PARHELIA_")},
        system_ca=next((path for path in SYSTEM_BUNDLES if Path(path).is_file()), None),
        verbose=args.verbose,
        version=version(),
    )


def policy_directories(flags: Sequence[str], environ: Mapping[str, str]) -> list[Path]:
    """The layers asked for: flags, else the environment, else the standard directory, else none (the embedded one)."""
    if flags:
        return [Path(flag) for flag in flags]
    if given := environ.get("PARHELIA_POLICY_DIR"):
        return [Path(given)]
    standard = Path(POLICIES)
    return [standard] if standard.is_dir() else []


def _users(name: str | None) -> tuple[User, User | None]:
    if os.geteuid() != 0:
        return _account(os.geteuid()), None
    session = _named(name or SESSION_USER)
    if session.uid == 0:
        raise UsageError("the session's user must not be root")
    egress = _named(EGRESS_USER)
    if session.uid == egress.uid:
        raise UsageError(f"the session's user must not be {EGRESS_USER}, which is the agent's own")
    return session, egress


def _account(uid: int) -> User:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return User(str(uid), uid, os.getegid(), "/tmp", "/bin/sh")  # noqa: S108
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell or "/bin/sh")


def _named(name: str) -> User:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise MissingUser(
            f"the account {name!r} does not exist: `make setup` and the Dockerfile make it, or name another with --user"
        ) from None
    login_shell = entry.pw_shell if entry.pw_shell and not entry.pw_shell.endswith("nologin") else "/bin/sh"
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, login_shell)
