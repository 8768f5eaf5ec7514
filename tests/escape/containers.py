"""Sessions in containers of the project's image: Docker with its default capabilities and seccomp profile, Docker as a
Kubernetes-restricted pod, and gVisor.

The stand-in servers run in the container beside the agent, outside of the session. One shared directory carries policy,
log and whatever escaped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.escape.runtime import AUDIT, NAMES, Case, Outcome, read_log, verify
from tests.runtimes.engine import KUBERNETES_RESTRICTED, Engine
from tests.runtimes.gvisor import GVisor

SHARED = "/srv/shared"
RESTRICTED_UID = 1000
PORTS = {"http": 18080, "tls": 18443, "raw": 19090}
INSIDE = f"""\
set -e
if [ -w /etc/hosts ]; then
    printf '127.0.0.1 {" ".join(NAMES)}\\n' >> /etc/hosts
    sed -n '/BEGIN CERT/,$p' {SHARED}/upstream.pem >> /etc/ssl/certs/ca-certificates.crt
fi
env -i PATH="$PATH" python3 {SHARED}/upstream.py {PORTS["http"]} {PORTS["tls"]} {PORTS["raw"]} \
    {SHARED}/upstream.pem {SHARED}/escaped > {SHARED}/upstream.log 2>&1
exec "$@"
"""


@dataclass(frozen=True)
class Ports:
    """What the tests ask of the stand-ins in a container."""

    directory: Path
    ports: dict[str, int]

    @property
    def pushed(self) -> str:
        return str(self.directory / "escaped.pushed")

    @property
    def escapes(self) -> int:
        escaped = self.directory / "escaped"
        return len(escaped.read_text()) if escaped.exists() else 0


class Container:
    """What Docker and gVisor have in common."""

    name = ""

    def __init__(self, directory: Path, certificate: Path) -> None:
        self.directory = directory / "shared"
        self.directory.mkdir(mode=0o755)
        (self.directory / "policies").mkdir(mode=0o700)
        for script in ("upstream.py", "death_inside.py", "killer.py", "outliving_inside.py"):
            shutil.copy(Path(__file__).parent / script, self.directory)
        shutil.copy(certificate, self.directory)
        (self.directory / "upstream.pem").chmod(0o600)
        self.upstream = Ports(self.directory, PORTS)
        self.audit = Path(f"{SHARED}/{AUDIT}")
        self.policies = Path(f"{SHARED}/policies")

    def argv(self, case: Case) -> list[str]:
        """The container's command."""
        text = case.policy
        for name, port in PORTS.items():
            text = text.replace(f"{{{name}}}", str(port))
        (self.directory / "policies" / "policy.yaml").write_text(text)
        places = ["--policy", str(self.policies), "--audit-dir", str(self.audit), "--workdir", "/tmp"]
        run = ["/opt/parhelia/bin/parhelia-agent", "run", *places, *case.flags, "--", *case.command]
        return ["/bin/sh", "-c", INSIDE, "inside", *run]

    def agent(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Any other verb of the agent, as the container's root."""
        return self.execute(["/opt/parhelia/bin/parhelia-agent", *argv], {})

    def run(self, case: Case) -> Outcome:
        """Run it to its end."""
        return self.outcome(self.execute(self.argv(case), case.env))

    def outcome(self, done: subprocess.CompletedProcess[str]) -> Outcome:
        """What a run left behind."""
        audit = self.directory / AUDIT
        return Outcome(done.returncode, done.stdout, done.stderr, read_log(audit), audit, verify(audit))

    def execute(self, argv: Sequence[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        raise NotImplementedError


class Docker(Container):
    """Docker's defaults."""

    name = "docker"
    options: tuple[str, ...] = ()

    def __init__(self, directory: Path, certificate: Path, engine: Engine, image: str) -> None:
        super().__init__(directory, certificate)
        self._engine = engine
        self._image = image

    def execute(self, argv: Sequence[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """In a container of its own; the image's entrypoint stands aside for the stand-in servers."""
        options = ["--network=none", "--volume", f"{self.directory}:{SHARED}", "--entrypoint", argv[0], *self.options]
        for name, value in env.items():
            options += ["--env", f"{name}={value}"]
        return self._engine.run(self._image, list(argv[1:]), options=tuple(options), timeout=180)


class Restricted(Docker):
    """Docker as Kubernetes' "restricted" profile: uid 1000, no capabilities, no new privileges. All is of one uid."""

    name = "restricted"
    options = (
        *KUBERNETES_RESTRICTED,
        *(f"--add-host={name}:127.0.0.1" for name in NAMES),
        *("--tmpfs", f"/run/parhelia:uid={RESTRICTED_UID},mode=0700"),
    )

    def own(self) -> None:
        """Give that uid what it must write and read."""
        for root, directories, files in os.walk(self.directory):
            for name in (".", *directories, *files):
                os.chown(Path(root, name), RESTRICTED_UID, RESTRICTED_UID, follow_symlinks=False)


class Gvisor(Container):
    """gVisor without a network of its own."""

    name = "gvisor"

    def __init__(self, directory: Path, certificate: Path, runsc: GVisor, name: str = "gvisor") -> None:
        super().__init__(directory, certificate)
        self.name = name
        self._runsc = runsc

    def execute(self, argv: Sequence[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """In a sandbox of its own."""
        mounts = ((self.directory, SHARED),)
        return self._runsc(*argv, entrypoint=False, environment=env, mounts=mounts, timeout=240)

    def unprivileged(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Of an account that has no right, without the stand-in servers."""
        return self._runsc(*argv, entrypoint=False, user=RESTRICTED_UID, capabilities=(), timeout=240)
