"""Checkpoint and restore of a gVisor sandbox: `runsc checkpoint`, then `runsc restore`, as often as one likes.

trixie's runsc only: that of 2022 cannot save a TCP connection inside the session's network namespace ("encoding error
at object tcp.endpoint"), and the agent's proxy has one soon.
"""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.runtimes.gvisor import DOCKER_CAPABILITIES, GVisor

STOPPED = "runSyscallAfterPtraceEventSeccomp"
"""What runsc cannot save: a call of a traced task that waits for its tracer. It goes on, and can be saved later."""
ATTEMPTS = 20


@dataclass
class Ended:
    """How one life of the sandbox ended."""

    status: int = -1
    words: str = ""


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """One container that is started, checkpointed and restored. `argv`: the agent's, without the entrypoint."""

    gvisor: GVisor
    argv: Sequence[str]
    mounts: Sequence[tuple[Path, str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"checkpoint-{uuid.uuid4().hex[:12]}")

    @property
    def bundle(self) -> Path:
        return self.gvisor.directory / self.name

    @property
    def image(self) -> Path:
        return self.bundle / "image"

    def prepare(self) -> None:
        """The OCI bundle."""
        self.image.mkdir(parents=True)
        config = self.gvisor.config(list(self.argv), 0, DOCKER_CAPABILITIES, self.environment, self.mounts)
        (self.bundle / "config.json").write_text(json.dumps(config))

    @contextmanager
    def started(self) -> Iterator[Ended]:
        """From the beginning."""
        with self._life("run") as ended:
            yield ended

    @contextmanager
    def restored(self) -> Iterator[Ended]:
        """From the checkpoint."""
        with self._life("restore", f"--image-path={self.image}") as ended:
            yield ended

    def checkpoint(self) -> None:
        """Save it to `image`, which ends it. Raises RuntimeError with runsc's words."""
        for _ in range(ATTEMPTS):
            done = self._runsc("checkpoint", f"--image-path={self.image}", self.name)
            if done.returncode == 0:
                return
            for left in self.image.iterdir():
                left.unlink()
            if STOPPED not in done.stderr:
                break
        raise RuntimeError(f"runsc checkpoint: {done.stderr[:2000]}")

    @contextmanager
    def _life(self, verb: str, *options: str) -> Iterator[Ended]:
        ended = Ended()
        words = self.bundle / f"words-{uuid.uuid4().hex[:6]}"
        command = [str(self.gvisor.runsc), *self.gvisor.flags, verb, *options, "-bundle", str(self.bundle), self.name]
        with words.open("w") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield ended
            ended.status = process.wait(60)
        finally:
            self._runsc("delete", "-force", self.name)
            process.kill()
            process.wait()
            ended.words = words.read_text(errors="replace")

    def _runsc(self, *argv: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.gvisor.runsc), *self.gvisor.flags, *argv]
        return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
