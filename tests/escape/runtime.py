"""Running one session on a runtime and reading what it left: status, output, audit log.

A `Case` is the policy, the session's command and the run's flags; each runtime turns it into a real session with the
stand-in servers of `upstream.py` reachable under the names `allowed.test` and `forbidden.test`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agent.cli.main import main
from tests.escape.outside import RESOLVER, Outside
from tests.escape.upstream import Upstream

CHECKOUT = Path(__file__).parents[2]
AGENT = Path(sys.executable).parent / "parhelia-agent"
NAMES = ("allowed.test", "forbidden.test")
RUN_SECONDS = 120
AUDIT = "audit"
SYSTEM_TRUST = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    status: int
    stdout: str
    stderr: str
    events: tuple[dict[str, Any], ...]
    audit_dir: Path
    verified: int

    def of(self, event_type: str) -> list[dict[str, Any]]:
        """The events of this type, in order."""
        return [event for event in self.events if event["details"]["event_type"] == event_type]


@dataclass(frozen=True)
class Case:
    """One session to be run. `policy` may hold ``{http}``, ``{tls}``, ``{raw}`` for the stand-ins' ports."""

    command: tuple[str, ...]
    policy: str
    flags: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


class Runtime(Protocol):
    """Where sessions run."""

    name: str
    audit: Path
    policies: Path
    upstream: Any

    def agent(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Any other verb of the agent, as root."""

    def run(self, case: Case) -> Outcome:
        """Run it to its end."""


def policy(*, extra_egress: str = "", write: str = "/tmp", commands: str = "") -> str:
    """A test's own policy: the two stand-ins on loopback, the usual read roots, the default commands' meaning."""
    return f"""\
version: 1
egress:
  allow:
    - {{host: allowed.test, ports: [{{http}}], protocol: http, addresses: [127.0.0.0/8]}}
    - {{host: allowed.test, ports: [{{tls}}], addresses: [127.0.0.0/8]}}
{extra_egress}commands:
  deny:
    - mkfs
    - dd if=/dev/zero
    - id: recursive-delete-system
      match: {{program: rm, options: [recursive], operands: ["/", "/*", "/etc/**", "/usr/**"]}}
      severity: critical
      reason: deletes the system
      instead: delete inside the workspace
      examples: {{match: ["rm -rf /"], no_match: ["rm -rf ./build"]}}
{commands}paths:
  write: [{write}]
  read: [/usr, /bin, /sbin, /lib, /lib64, /etc, /opt]
"""


def read_log(directory: Path) -> tuple[dict[str, Any], ...]:
    """The audit log's lines, oldest first; without the one that is being written."""
    files = [*sorted(directory.glob("audit-*.jsonl")), directory / "audit.jsonl"]
    texts = [file.read_text() for file in files if file.exists()]
    return tuple(json.loads(line) for text in texts for line in text[: text.rfind("\n") + 1].splitlines())


def verify(directory: Path) -> int:
    """The exit code of `audit verify`, here: an interpreter of its own for each session would cost minutes."""
    with contextlib.redirect_stderr(io.StringIO()):
        return main(["audit", "verify", str(directory)])


class Host:
    """A session on this machine, as root, in a mount namespace with a hosts file of its own. With `outside`: in that
    network namespace, whose name server is the only one to know the stand-ins' names."""

    name = "host"

    def __init__(self, directory: Path, upstream: Upstream, outside: Outside | None = None) -> None:
        self.directory = directory
        self.upstream = upstream
        self.outside = outside
        self.audit = directory / AUDIT
        self.policies = directory / "policies"

    def command(self, case: Case) -> list[str]:
        """The argument list that starts the session."""
        policies, audit = self.policies, self.audit
        policies.mkdir(mode=0o700, exist_ok=True)
        text = case.policy
        for name, port in self.upstream.ports.items():
            text = text.replace(f"{{{name}}}", str(port))
        (policies / "policy.yaml").write_text(text)
        hosts = self.directory / "hosts"
        hosts.write_text("127.0.0.1 localhost " + (" ".join(NAMES) if self.outside is None else "") + "\n")
        resolver = self.directory / "resolv.conf"
        resolver.write_text(f"nameserver {RESOLVER}\n" if self.outside else Path("/etc/resolv.conf").read_text())
        trust = self.directory / "trust.pem"
        trust.write_text(Path(SYSTEM_TRUST).read_text() + "\n" + self.upstream.certificate_text)
        flags = ["--policy", str(policies), "--audit-dir", str(audit), "--workdir", "/tmp", *case.flags]
        script = (
            f'mount --bind "$0" /etc/hosts && mount --bind "$1" {SYSTEM_TRUST}'
            ' && mount --bind "$2" "$(readlink -f /etc/resolv.conf)" && shift 2 && exec "$@"'
        )
        files = [str(hosts), str(trust), str(resolver)]
        inner = ["/bin/sh", "-c", script, *files, str(AGENT), "run", *flags, "--", *case.command]
        prefix = [] if self.outside is None else self.outside.command_prefix
        return [*prefix, "unshare", "--mount", "--propagation", "private", *inner]

    def agent(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Any other verb of the agent, as root."""
        return subprocess.run([AGENT, *argv], capture_output=True, text=True, timeout=RUN_SECONDS, check=False)

    def environment(self, case: Case) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TERM") if name in os.environ}
        return kept | case.env

    def run(self, case: Case) -> Outcome:
        """Run it to its end."""
        audit = self.audit
        done = subprocess.run(
            self.command(case),
            env=self.environment(case),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=RUN_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr, read_log(audit), audit, verify(audit))


def certificate(directory: Path, names: tuple[str, ...] = NAMES) -> Path:
    """A key and a self-signed certificate for the stand-ins, in one PEM file."""
    path = directory / "upstream.pem"
    alternatives = ",".join(f"DNS:{name}" for name in names)
    subject = ["-subj", f"/CN={names[0]}", "-addext", f"subjectAltName={alternatives}"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")]
    subprocess.run(["openssl", "req", "-x509", *key, "-days", "2", *subject, *files], check=True, capture_output=True)
    path.write_text((directory / "key.pem").read_text() + (directory / "cert.pem").read_text())
    (directory / "cert.pem").chmod(0o644)
    return path
