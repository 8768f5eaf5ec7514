"""gVisor: the project's image as an OCI bundle, run by runsc itself with no network but its own loopback.

`--network=none` because runsc's own network does not start on every kernel and `--network=host` isolates no namespace.
runsc now and then fails to start a sandbox for no reason of ours: the start is tried again, a verdict never is. The
runsc of 2022 answers EINVAL to the statx of trixie's coreutils (`ls`, `stat`): scripts use the shell's globs and tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.runtimes.cache import cached, command
from tests.runtimes.engine import BASE_IMAGE, Engine

DOCKER_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
        "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
    )
)  # fmt: skip
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = ("pid", "mount", "ipc", "uts", "network")
PSEUDO = (
    ("/proc", "proc", ()),
    ("/sys", "sysfs", ("ro",)),
    ("/dev", "tmpfs", ()),
    ("/dev/pts", "devpts", ()),
    ("/dev/shm", "tmpfs", ()),
)


def newer_runsc(engine: Engine) -> Path:
    """trixie's runsc (of 2024-07): a static binary, taken out of its Debian package inside the base image."""

    def fetch(path: Path) -> None:
        script = (
            "cd /tmp && apt-get update -q && apt-get download runsc && dpkg-deb -x *.deb x && mv x/usr/bin/runsc /out"
        )
        options = ("--network=host", "--volume", f"{path.parent}:/out", "--env", "DEBIAN_FRONTEND=noninteractive")
        done = engine.run(BASE_IMAGE, ["sh", "-c", script], options=options, timeout=300)
        if done.returncode != 0:
            raise RuntimeError(f"fetching trixie's runsc: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        (path.parent / "runsc").rename(path)

    return cached("runsc-trixie", fetch)


def unpack(engine: Engine, image: str, directory: Path) -> Path:
    """The image's file system as a directory."""
    rootfs = directory / "rootfs"
    archive = directory / "rootfs.tar"
    rootfs.mkdir()
    container = engine.must("create", "--label", "parhelia.tests=1", image).split()[-1]
    try:
        engine.must("export", "--output", str(archive), container, timeout=300)
    finally:
        engine.cli("rm", "--force", container)
    command("tar", "-C", str(rootfs), "-xf", str(archive))
    archive.unlink()
    return rootfs


@dataclass(frozen=True, slots=True)
class GVisor:
    """One runsc and the unpacked image. Writes of a run go to memory and are gone with it."""

    runsc: Path
    rootfs: Path
    directory: Path

    def __call__(
        self,
        *argv: str,
        entrypoint: bool = True,
        user: int = 0,
        capabilities: Sequence[str] = DOCKER_CAPABILITIES,
        environment: Mapping[str, str] | None = None,
        mounts: Sequence[tuple[Path, str]] = (),
        stdin: str | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run the image's entrypoint with `argv`, or just `argv`. Raises RuntimeError where no sandbox starts."""
        mark = f"started-{uuid.uuid4().hex}"
        started = [
            "/bin/sh",
            "-c",
            'echo "$0" >&2; exec "$@"',
            mark,
            *(["/entrypoint.sh"] if entrypoint else []),
            *argv,
        ]
        bundle = self.directory / mark
        bundle.mkdir()
        config = self.config(started, user, capabilities, environment or {}, mounts)
        (bundle / "config.json").write_text(json.dumps(config))
        for _attempt in range(4):
            done = self._run(bundle, stdin or "", timeout)
            words, found, rest = done.stderr.partition(mark + "\n")
            if found:
                return subprocess.CompletedProcess(argv, done.returncode, done.stdout, words + rest)
        raise RuntimeError(f"no gVisor sandbox started ({done.returncode}): {done.stderr[-2000:]}{done.stdout[-2000:]}")

    def _run(self, bundle: Path, stdin: str, timeout: float) -> subprocess.CompletedProcess[str]:
        identity = f"parhelia-tests-{uuid.uuid4().hex[:12]}"
        flags = self.flags
        try:
            return subprocess.run(
                [str(self.runsc), *flags, "run", "-bundle", str(bundle), identity],
                input=stdin, capture_output=True, text=True, errors="replace", timeout=timeout, check=False,
            )  # fmt: skip
        finally:
            delete = [str(self.runsc), *flags, "delete", "-force", identity]
            subprocess.run(delete, capture_output=True, timeout=60, check=False)

    @property
    def flags(self) -> list[str]:
        """runsc's own flags."""
        flags = [f"--root={self.directory}/state", "--ignore-cgroups", "--network=none", "--overlay2=root:memory"]
        return [*flags, f"--platform={_platform(self.runsc)}"]

    def config(
        self,
        argv: list[str],
        user: int,
        capabilities: Sequence[str],
        environment: Mapping[str, str],
        mounts: Sequence[tuple[Path, str]],
    ) -> dict[str, object]:
        """The bundle's config.json."""
        sets = ("bounding", "effective", "permitted")
        binds = [
            {"type": "bind", "source": str(source), "destination": target, "options": ["rbind", "rw"]}
            for source, target in mounts
        ]
        pseudo = [{"type": kind, "source": kind, "destination": at, "options": list(how)} for at, kind, how in PSEUDO]
        return {
            "ociVersion": "1.0.2",
            "hostname": "gvisor",
            "root": {"path": str(self.rootfs), "readonly": False},
            "process": {
                "terminal": False,
                "cwd": "/vol/parhelia/workspaces",
                "user": {"uid": user, "gid": user},
                "args": argv,
                "env": [PATH, "HOME=/root", *(f"{name}={value}" for name, value in environment.items())],
                "capabilities": {name: list(capabilities) for name in sets},
                "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 65536, "soft": 65536}],
            },
            "mounts": pseudo + binds,
            "linux": {"namespaces": [{"type": kind} for kind in NAMESPACES]},
        }


@cache
def _platform(runsc: Path) -> str:
    listed = subprocess.run([str(runsc), "flags"], capture_output=True, text=True, check=False)
    return "systrap" if "systrap" in listed.stdout + listed.stderr else "ptrace"


def made_for(engine: Engine, version: str) -> Path:
    """The runsc of that name: "system" is the machine's, "trixie" the newer one."""
    return newer_runsc(engine) if version == "trixie" else Path(os.environ.get("PARHELIA_TEST_RUNSC", "/usr/bin/runsc"))
