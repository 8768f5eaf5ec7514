"""A session whose writing calls are audited, for tests: forked, unprivileged, under the real filter and Landlock."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from agent.enforce.commands.supervisor import ExecSupervisor
from agent.enforce.paths.audit import PathAudit
from agent.gate import Gate
from agent.linux import landlock
from agent.policy.model import CommandSection, Layer, PathRule, PathSection, Policy, Where
from agent.session.filter import FilterOptions
from tests.enforce.commands.filtered import GID, UID, Filtered, Finished
from tests.enforce.ring import Recorded, build_request

AUDITED = FilterOptions(notify_exec=True, jail=False, shared_uid=False, notify_writes=True)
PLAIN = FilterOptions(notify_exec=True, jail=False, shared_uid=False)

type Act = Callable[[], object]


class World:
    """`work`: what the session may write. `out`: its own by ownership, but not granted. Both made anew by `reset`."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="parhelia-audit-"))
        self.base.chmod(0o755)
        self.work, self.out = self.base / "work", self.base / "out"
        self.recorded = Recorded()
        self.reset()

    def reset(self) -> None:
        for tree in (self.work, self.out):
            shutil.rmtree(tree, ignore_errors=True)
            (tree / "dir").mkdir(parents=True)
            (tree / "empty").mkdir()
            for name in ("file", "other", "dir/file"):
                (tree / name).write_text("x")
            (tree / "link").symlink_to("file")
        (self.work / "leads-out").symlink_to(self.out / "file")
        (self.work / "makes-out").symlink_to(self.out / "new")
        (self.work / "dir-out").symlink_to(self.out)
        for found in (self.base, *self.base.rglob("*")):
            if found != self.base:
                os.chown(found, UID, GID, follow_symlinks=False)

    def policy(self) -> Policy:
        def rule(path: str) -> PathRule:
            return PathRule(id="rule", path=path, where=Where("test.yaml", 1, 1))

        protect = (PathRule(id="no-hooks", path=".git/hooks", where=Where("test.yaml", 2, 1)),)
        paths = PathSection(write=(rule(str(self.work)),), read=(rule("/"),), protect=protect)
        return Policy(layers=(Layer(source="test", commands=CommandSection(), paths=paths),), digest="d" * 64)

    def run(self, *acts: Act, options: FilterOptions = AUDITED, opened: bool = True) -> list[str | None]:
        """The errno of each act by its name (None: it worked), done one after the other by one session."""

        def before_exec() -> None:
            self.restrict()
            outcomes = [_outcome(act) for act in acts]
            os.write(1, json.dumps(outcomes).encode())
            os._exit(0)

        finished = self.start(["/bin/true"], before_exec, options, opened=opened)
        assert finished.status == 0, finished.err
        found: list[str | None] = json.loads(finished.out)
        return found

    def start(
        self, argv: list[str], before: Callable[[], None] | None, options: FilterOptions, *, opened: bool = True
    ) -> Finished:
        session = Filtered(argv, cwd=self.work, options=options, before_exec=before or self.restrict)
        policy = self.policy()
        gate = Gate(lambda: policy, self.recorded, "session:test")
        audit = PathAudit(gate, lambda: policy, session_uid=UID, session_gid=GID, home="", tmpdir="")
        supervisor = ExecSupervisor(
            session.listener,
            gate,
            build_request,
            session_uid=UID,
            session_gid=GID,
            actor="session:test",
            post=self.recorded.post,
            others=audit.handlers(),
        )
        supervisor.start()
        if opened:
            audit.open()
        try:
            session.go()
            return session.finish()
        finally:
            session.close()
            supervisor.stop()

    def denials(self) -> list[tuple[str, str, str]]:
        """Rule, call and path of each event so far; they are forgotten."""
        seen = [(str(e.details["rule"]), str(e.details.get("syscall")), e.resource) for e in self.recorded.events]
        self.recorded.events.clear()
        return seen

    def close(self) -> None:
        shutil.rmtree(self.base)

    def restrict(self) -> None:
        """What the launcher puts on a session with this policy."""
        with landlock.Ruleset() as rules:
            rules.allow_path("/", landlock.READ)
            rules.allow_path(str(self.work), landlock.WRITE)
            for device in ("/dev/null", "/dev/tty"):
                rules.allow_path(device, landlock.DEVICE)
            rules.restrict_self()


def _outcome(act: Act) -> str | None:
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return None
