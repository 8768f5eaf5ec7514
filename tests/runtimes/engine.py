"""A Docker engine of the suite's own: own data, own sockets, own bridge, started by hand, ended by its pid.

- Concurrent runs on one machine share it: the first starts it, the last stops it.
- It changes nothing on the machine that its end does not undo: no iptables rules, no forwarding. So a container on its
  bridge reaches the host's side of that bridge and nothing else; `--network=host` is for what must reach an index.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.runtimes.cache import HOST_CA_BUNDLE, base_archive, cache_directory, command, locked

BASE_IMAGE = "python:3.13-slim-trixie"
BRIDGE = "phtest0"
GATEWAY = "10.213.77.1"
RUN = Path("/run/parhelia-tests")
LABEL = "parhelia.tests=1"
KUBERNETES_RESTRICTED = ("--user", "1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def client() -> str | None:
    """Debian's client where there is one: it is of the engine's own version, and needs no plugin to build."""
    return "/usr/bin/docker" if Path("/usr/bin/docker").exists() else shutil.which("docker")


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine."""

    docker: str
    gateway: str = GATEWAY

    def cli(self, *argv: str, timeout: float = 120, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """The docker client on this engine. Raises subprocess.TimeoutExpired."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
        environment = {**kept, "DOCKER_HOST": f"unix://{RUN}/docker.sock", "DOCKER_BUILDKIT": "1"}
        return subprocess.run(
            [self.docker, *argv],
            input=stdin if stdin is not None else "",
            capture_output=True, text=True, errors="replace", timeout=timeout, check=False, env=environment,
        )  # fmt: skip

    def must(self, *argv: str, timeout: float = 120, stdin: str | None = None) -> str:
        """`cli`, where a failure is the set-up's: its stdout, or RuntimeError."""
        done = self.cli(*argv, timeout=timeout, stdin=stdin)
        if done.returncode != 0:
            raise RuntimeError(f"docker {argv[0]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}")
        return done.stdout

    def run(
        self,
        image: str,
        command: Sequence[str],
        *,
        options: Sequence[str] = (),
        entrypoint: str | None = None,
        stdin: str | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """A container from start to end. It is created first, so that stderr holds the container's words only."""
        name = f"parhelia-tests-{uuid.uuid4().hex[:12]}"
        entry = ("--entrypoint", entrypoint) if entrypoint else ()
        self.must("create", "--interactive", "--name", name, "--label", LABEL, *entry, *options, image, *command)
        try:
            return self.cli("start", "--attach", "--interactive", name, stdin=stdin, timeout=timeout)
        finally:
            self.cli("rm", "--force", "--volumes", name)

    def build(self, checkout: Path) -> str:
        """Build the checkout's Dockerfile as `make image` does, with the host's CA bundle for pip; the image's id."""
        self._provide_base()
        iid = cache_directory() / f"iid.{os.getpid()}"
        ca = ("--secret", f"id=ca,src={HOST_CA_BUNDLE}") if HOST_CA_BUNDLE.exists() else ()
        try:
            self.must(
                "build", "--network=host", *ca, "--label", LABEL, "--iidfile", str(iid), str(checkout), timeout=1200
            )
            return iid.read_text().strip()
        finally:
            iid.unlink(missing_ok=True)

    def _provide_base(self) -> None:
        with locked("base-image"):
            if self.cli("image", "inspect", BASE_IMAGE).returncode == 0:
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                if self.cli("pull", BASE_IMAGE, timeout=120).returncode == 0:
                    return
            self.must("import", str(base_archive()), BASE_IMAGE, timeout=300)


@contextlib.contextmanager
def running_engine() -> Iterator[Engine]:
    """The shared engine for as long as it is used. Raises RuntimeError with its log where it does not start."""
    docker = client()
    if docker is None:
        raise RuntimeError("no docker client")
    engine = Engine(docker)
    with locked("engine-users", fcntl.LOCK_SH) as users:
        with locked("engine-start"):
            if not _alive(engine):
                _start(engine)
        try:
            yield engine
        finally:
            with locked("engine-start"):
                if _last(users):
                    _tidy(engine)
                    _stop()


def _last(users: int) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _alive(engine: Engine) -> bool:
    try:
        return engine.cli("version", timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _start(engine: Engine) -> None:
    _stop()
    RUN.mkdir(mode=0o700, exist_ok=True)
    if subprocess.run(["ip", "link", "show", BRIDGE], capture_output=True, check=False).returncode != 0:
        command("ip", "link", "add", BRIDGE, "type", "bridge")
        command("ip", "address", "add", f"{GATEWAY}/24", "dev", BRIDGE)
    command("ip", "link", "set", BRIDGE, "up")
    runsc = {"runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--network=host"]}}
    (RUN / "daemon.json").write_text(json.dumps({"runtimes": runsc if Path("/usr/bin/runsc").exists() else {}}))
    log = RUN / "dockerd.log"
    argv = [
        "dockerd", f"--config-file={RUN}/daemon.json", f"--data-root={cache_directory()}/docker",
        f"--exec-root={RUN}/exec", f"--host=unix://{RUN}/docker.sock", f"--pidfile={RUN}/dockerd.pid",
        f"--bridge={BRIDGE}", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false",
    ]  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    for _ in range(120):
        if _alive(engine):
            return
        if process.poll() is not None:
            break
        time.sleep(0.5)
    words = log.read_text(errors="replace")[-4000:]
    _stop()
    raise RuntimeError(f"dockerd did not start:\n{words}")


def _tidy(engine: Engine) -> None:
    """Containers of interrupted runs, images of last week, and a build cache that must not grow for ever."""
    left = engine.cli("ps", "--all", "--quiet", "--filter", f"label={LABEL}").stdout.split()
    if left:
        engine.cli("rm", "--force", "--volumes", *left)
    engine.cli("image", "prune", "--all", "--force", "--filter", f"label={LABEL}", "--filter", "until=72h")
    engine.cli("builder", "prune", "--force", "--keep-storage", "2GB")


def _stop() -> None:
    """End the engine that the pid file names, if that process is this engine; then its mounts, files and bridge."""
    pid = _pid()
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        for _ in range(150):
            if _gone(pid):
                break
            time.sleep(0.2)
        else:
            os.kill(pid, signal.SIGKILL)
    for line in Path("/proc/self/mounts").read_text().splitlines():
        target = line.split(" ")[1]
        if target.startswith(f"{RUN}/"):
            subprocess.run(["umount", target], capture_output=True, check=False)
    subprocess.run(["rm", "-rf", "--one-file-system", str(RUN)], check=False)
    subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True, check=False)


def _pid() -> int | None:
    try:
        pid = int((RUN / "dockerd.pid").read_text())
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if f"--exec-root={RUN}/exec".encode() in argv else None


def _gone(pid: int) -> bool:
    """Whether the process has ended; reaps it where this process started it (another run may have)."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG) != (0, 0)
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == b""
    except OSError:
        return True
