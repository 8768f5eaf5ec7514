"""Where a group of attacks takes place: victims beside what is granted, the program, a process outside, and its doors.

The stage is a directory that no grant covers but for `granted` (to write) and `programs` (to read). The victims are
open to everybody by their permissions, so that only the path guard keeps them; `private` is root's alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PYTHON = "/usr/bin/python3"
MADE = "by-"
"""How the names begin of what an attack makes among the victims: nothing of the kind may be there afterwards."""
START = """\
set -e
programs=$1 python=$2 uid=$3; shift 3
sleep 600 | "$python" "$programs/outsider.py" "$programs/world.json" "$uid" "$uid" > "$programs/ready" &
n=0
until [ -s "$programs/ready" ]; do n=$((n + 1)); [ $n -lt 900 ]; sleep 0.1; done
status=0
"$@" || status=$?
exit $status
"""
"""The process outside, then the agent beside it."""


@dataclass(frozen=True)
class Stage:
    """`directory` is the stage as the test sees it, `seen` as the session does; `uid` is the session's."""

    directory: Path
    seen: str
    uid: int
    gid: int

    def build(self, world: Mapping[str, Any]) -> None:
        """Everything in its place, and the world as the session finds it."""
        victims, granted = self.directory / "victims", self.directory / "granted"
        for path in (self.directory, victims, victims / "open", granted, self.directory / "doors"):
            path.mkdir(mode=0o755)
            path.chmod(0o755)
        secret = f"secret of {uuid.uuid4().hex}"
        for name in ("file.txt", "owned", "removable", "truncatable", "movable", "exchangeable"):
            (victims / "open" / name).write_text(secret + "\n")
            (victims / "open" / name).chmod(0o666)
        for name in ("program", "mapped"):
            shutil.copy("/bin/true", victims / "open" / name)
        (victims / "private").write_text(secret + "\n")
        (victims / "private").chmod(0o600)
        (victims / "open").chmod(0o777)
        self._lay_out_protected(granted)
        os.link(victims / "open" / "file.txt", granted / "earlier-name-of-the-open-file")
        os.link(victims / "private", granted / "earlier-name-of-the-private-file")
        for path in (granted, self.directory / "doors", victims / "open" / "owned"):
            os.chown(path, self.uid, self.gid)
        self._write_programs({"secret": secret, **self.places, **world})

    def _lay_out_protected(self, granted: Path) -> None:
        """A repository of the session's account's, and one far below."""
        for place in (granted / "repository" / ".git", granted.joinpath(*"12345678") / ".git"):
            (place / "hooks").mkdir(parents=True)
            (place / "config").write_text("[core]\n")
            (place / "hooks" / "pre-commit").write_text("#!/bin/sh\n")
        (granted / "repository" / "below").mkdir()
        for path in granted.rglob("*"):
            os.chown(path, self.uid, self.gid)

    def _write_programs(self, world: dict[str, Any]) -> None:
        programs = self.directory / "programs"
        programs.mkdir(mode=0o755)
        for source in (*(HERE / "inside").glob("*.py"), HERE / "outsider.py"):
            shutil.copy(source, programs)
        (programs / "world.json").write_text(json.dumps(world))
        for path in programs.iterdir():
            path.chmod(0o644)

    @property
    def places(self) -> dict[str, str]:
        """The names by which the session knows them."""
        return {
            "granted": f"{self.seen}/granted",
            "victims": f"{self.seen}/victims",
            "programs": f"{self.seen}/programs",
            "ready": f"{self.seen}/programs/ready",
            "journal": f"{self.seen}/doors/journal",
            "unix": f"{self.seen}/doors/unix.sock",
            "late": f"{self.seen}/doors/late.sock",
            "abstract": f"parhelia-attack-{os.getpid()}",
            "queue": f"/parhelia-attack-{os.getpid()}",
        }

    def attack(self, program: str) -> tuple[str, ...]:
        """The program's argument list."""
        return (PYTHON, f"{self.seen}/programs/{program}", f"{self.seen}/programs/world.json")

    @property
    def made(self) -> set[str]:
        """What was made among the victims."""
        return {path.name for path in (self.directory / "victims").rglob(f"{MADE}*")}

    @property
    def journal(self) -> list[dict[str, Any]]:
        """What reached the process outside."""
        file = self.directory / "doors" / "journal"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @contextlib.contextmanager
    def outsider(self) -> Iterator[None]:
        """The process outside, on this machine."""
        programs = self.directory / "programs"
        argv = [PYTHON, str(programs / "outsider.py"), str(programs / "world.json"), str(self.uid), str(self.gid)]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            (programs / "ready").write_text(process.stdout.readline())
            yield
        finally:
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()


def ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def world_of(doors: Sequence[str], only: list[str] | None, absent: Mapping[str, str]) -> dict[str, Any]:
    """What differs from run to run. `doors`: the acts that have a TCP port of the process outside; `only`: the acts to
    try; `absent`: those that this machine cannot show, and why."""
    udp, inbound, on_loopback, *tcp = ports(3 + len(doors))
    return {
        "tcp": dict(zip(doors, tcp, strict=True)), "udp": udp,
        "inbound": [["127.0.0.9", inbound], ["127.0.0.1", on_loopback]],
        "key": 0x50410000 | os.getpid() & 0xFFFF, "only": only, "absent": dict(absent),
    }  # fmt: skip


def found(text: str) -> dict[str, dict[str, Any]]:
    """The program's lines by act."""
    lines = [json.loads(line) for line in text.splitlines() if line.startswith('{"act"')]
    return {line["act"]: line for line in lines}


def unconfined(stage: Stage, program: str) -> dict[str, dict[str, Any]]:
    """The program run by the session's account outside of any confinement, on this machine."""
    drop = "import os, sys; os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1]))\n"
    run = [
        PYTHON,
        "-c",
        drop + "os.execv(sys.argv[3], sys.argv[3:])",
        str(stage.uid),
        str(stage.gid),
        *stage.attack(program),
    ]
    with stage.outsider():
        done = subprocess.run(
            run, capture_output=True, text=True, errors="replace", timeout=120, stdin=subprocess.DEVNULL,
            cwd=stage.seen, env={"PATH": "/usr/bin:/bin", "HOME": stage.seen}, check=False,
        )  # fmt: skip
    if done.returncode:
        sys.stderr.write(done.stderr)
    return found(done.stdout)
