"""Sessions in a small world of their own: only loopback, real ports, a name server, a push gateway, and a journal.

On the host the agent gets a network namespace, in Docker and gVisor the container has none but loopback; `World` of
`arena_inside.py` plays the outside in all three. A `Visit` is what one session left: its output, the audit log, the
counters of the last push, and the journal of everybody who was contacted outside.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from tests.escape.containers import SHARED, Container
from tests.escape.runtime import AGENT, AUDIT, RUN_SECONDS, SYSTEM_TRUST, Outcome, read_log, verify

HERE = Path(__file__).parent
SCRIPTS = ("arena_inside.py", "arena_client.py", "standins.py")
CERTIFIED = ("good.test", "*.good.test", "web.inspect.test", "evil.test", "*.evil.test")
GATEWAY = "http://127.0.0.1:9091"
RESOLVER = "nameserver 127.0.0.53\\noptions timeout:3 attempts:1\\n"
_STARTED = """
if [ -e "$shared/ssh/config" ]; then
    mkdir -p /run/sshd
    "$(command -v sshd)" -f "$shared/ssh/config" -E "$shared/sshd.log"
fi
"$python" "$shared/arena_inside.py" "$shared" > "$shared/ready" 2>&1 &
n=0
until grep -q serving "$shared/ready"; do
    n=$((n + 1)); [ $n -lt 900 ] || { cat "$shared/ready" >&2; exit 99; }; sleep 0.1
done
status=0
"$@" || status=$?  # no exec: the agent ends with all that is below it, and the world outlives it to take the last push
exit $status
"""
ON_HOST = f"""
set -e
shared=$1 python=$2; shift 2
ip link set lo up
for address in 203.0.113.10 203.0.113.11 203.0.113.12; do ip address add $address/32 dev lo; done
mount -t tmpfs tmpfs /srv
mkdir /srv/shared
mount --bind "$shared" /srv/shared
shared=/srv/shared
printf '127.0.0.1 localhost %s\\n::1 localhost\\n' "$(uname -n)" > "$shared/hosts"
printf '{RESOLVER}' > "$shared/resolv.conf"
cat {SYSTEM_TRUST} > "$shared/trust.pem"
sed -n '/BEGIN CERT/,$p' "$shared/upstream.pem" >> "$shared/trust.pem"
mount --bind "$shared/hosts" /etc/hosts
mount --bind "$shared/resolv.conf" "$(readlink -f /etc/resolv.conf)"
mount --bind "$shared/trust.pem" {SYSTEM_TRUST}
{_STARTED}"""
IN_CONTAINER = f"""
set -e
shared=$1 python=$2; shift 2
printf '127.0.0.1 localhost %s\\n::1 localhost\\n' "$(uname -n)" > /etc/hosts
printf '{RESOLVER}options use-vc\n' > /etc/resolv.conf  # by TCP, as docs/architecture.md advises for Go and musl
sed -n '/BEGIN CERT/,$p' "$shared/upstream.pem" >> {SYSTEM_TRUST}
{_STARTED}"""


@dataclass(frozen=True)
class Visit:
    """What one session left behind."""

    outcome: Outcome
    journal: tuple[dict[str, Any], ...]
    metrics: str

    @cached_property
    def answers(self) -> list[dict[str, Any]]:
        """Those of `arena_client.py`, in the order of its cases."""
        assert self.outcome.status == 0, self.outcome.stderr + self.outcome.stdout
        found: list[dict[str, Any]] = json.loads(self.outcome.stdout)
        return found

    @property
    def escapes(self) -> list[dict[str, Any]]:
        return [line for line in self.journal if line["server"] == "escape"]

    @property
    def looked_up(self) -> Counter[str]:
        """How often each name's IPv4 addresses were asked for."""
        return Counter(line["name"] for line in self.journal if line["server"] == "dns" and line["kind"] == 1)

    @property
    def refused(self) -> Counter[tuple[str, str]]:
        """(rule, resource) -> how often the log says that it was refused."""
        found: Counter[tuple[str, str]] = Counter()
        for event in self.outcome.of("network.egress_blocked"):
            if event["result"] == "denied":
                details = event["details"]
                found[details["rule"], event["resource"]] += details.get("count", 1)
        return found

    @property
    def counted(self) -> int:
        """What the last push says of `network.egress_blocked`."""
        pattern = r'^parhelia_security_denied_total\{event_type="network\.egress_blocked"\} (\S+)$'
        found = re.findall(pattern, self.metrics, re.M)
        assert len(found) == 1, self.metrics[-2000:]
        return int(float(found[0]))

    def requests(self, **wanted: object) -> list[dict[str, Any]]:
        """What reached the web server."""
        found = [line for line in self.journal if line["server"] == "request"]
        return [line for line in found if all(line.get(key) == value for key, value in wanted.items())]


class Arena(Protocol):
    """Where the sessions of the attack list run."""

    name: str
    shared: Path

    def visit(self, policy: str, names: Mapping[str, Sequence[Sequence[str]]], command: Sequence[str]) -> Visit:
        """One session. It and its world see `shared` as /srv/shared."""


def prepare(directory: Path, certificate: Path) -> None:
    """What the world reads, in its directory."""
    for script in SCRIPTS:
        shutil.copy(HERE / script, directory)
    shutil.copy(certificate, directory / "upstream.pem")
    directory.chmod(0o755)
    (directory / "policies").mkdir(mode=0o700, exist_ok=True)


def _set_up(directory: Path, policy: str, names: Mapping[str, Sequence[Sequence[str]]]) -> None:
    shutil.rmtree(directory / AUDIT, ignore_errors=True)
    for name in ("journal.jsonl", "metrics"):
        (directory / name).unlink(missing_ok=True)
    (directory / "policies" / "policy.yaml").write_text(policy)
    (directory / "names.json").write_text(json.dumps(names))


def _left(directory: Path, done: subprocess.CompletedProcess[str]) -> Visit:
    audit, journal, metrics = directory / AUDIT, directory / "journal.jsonl", directory / "metrics"
    outcome = Outcome(done.returncode, done.stdout, done.stderr, read_log(audit), audit, verify(audit))
    lines = journal.read_text().splitlines() if journal.exists() else []
    return Visit(outcome, tuple(map(json.loads, lines)), metrics.read_text() if metrics.exists() else "")


def _run(agent: str, command: Sequence[str]) -> list[str]:
    places = ["--policy", f"{SHARED}/policies", "--audit-dir", f"{SHARED}/{AUDIT}", "--workdir", "/tmp"]
    return [agent, "run", *places, "--", *command]


class HostArena:
    """On this machine, in mount and network namespaces of its own."""

    name = "host"

    def __init__(self, directory: Path, certificate: Path) -> None:
        self.shared = directory
        prepare(directory, certificate)

    def visit(self, policy: str, names: Mapping[str, Sequence[Sequence[str]]], command: Sequence[str]) -> Visit:
        _set_up(self.shared, policy, names)
        python = str(AGENT.parent / "python")
        argv = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        argv += ["--propagation", "private", "/bin/sh", "-c", ON_HOST, "arena"]
        argv += [str(self.shared), python, *_run(str(AGENT), command)]
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        environment = kept | {"PARHELIA_PUSHGATEWAY_URL": GATEWAY}
        done = subprocess.run(
            argv, env=environment, capture_output=True, text=True, errors="replace", timeout=RUN_SECONDS,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return _left(self.shared, done)


class ContainerArena:
    """In a container of Docker or gVisor."""

    def __init__(self, container: Container, certificate: Path) -> None:
        self.name = container.name
        self.shared = container.directory
        self._container = container
        prepare(self.shared, certificate)

    def visit(self, policy: str, names: Mapping[str, Sequence[Sequence[str]]], command: Sequence[str]) -> Visit:
        _set_up(self.shared, policy, names)
        binaries = "/opt/parhelia/bin"
        argv = ["/bin/sh", "-c", IN_CONTAINER, "arena"]
        argv += [SHARED, f"{binaries}/python", *_run(f"{binaries}/parhelia-agent", command)]
        return _left(self.shared, self._container.execute(argv, {"PARHELIA_PUSHGATEWAY_URL": GATEWAY}))
