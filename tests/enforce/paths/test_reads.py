"""Denied reads of sensitive files against real opens, on a tmpfs in a mount namespace of a child's."""

from __future__ import annotations

import errno
import os
import resource
import select
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.enforce.paths.audit import PathGate
from agent.enforce.paths.reads import FILE_PERMISSIONS, MECHANISM, ReadAudit
from agent.gate import Gate
from agent.linux import fanotify, namespaces
from agent.policy.decision import Decision
from agent.policy.model import Layer, PathRule, PathSection, Policy, Where
from agent.policy.request import PathRequest
from agent.policy.rule_ids import AGENT_FAULT, PATHS_DEFAULT
from tests.enforce.ring import Recorded
from tests.linux.forked import outcome

pytestmark = pytest.mark.root
GRANTED = "granted"


class World:
    """A group that is asked before opens below `base`, and what is recorded of them."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.group = fanotify.group()
        fanotify.ask_before_opens(self.group, base)
        self.recorded = Recorded()
        grant = PathRule(id="grant", path=f"{base}/{GRANTED}", where=Where("test.yaml", 1, 1))
        policy = Policy(layers=(Layer(source="test", paths=PathSection(read=(grant,))),), digest="d" * 64)
        self.gate: PathGate = Gate(lambda: policy, self.recorded, "session:test")
        self.faults: list[str] = []

    def audit(self, *, successor: bool = False) -> ReadAudit:
        told = self.faults.append
        made = ReadAudit(self.group, self.gate, home="", tmpdir="", ended=told, successor=successor)
        made.start()
        return made

    def opens(self, *names: str) -> list[int]:
        """What each open ends with in a process of its own: an errno, 0 where it opened."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, bytes(opened(f"{self.base}/{name}") for name in names))
            os._exit(0)
        os.close(writing)
        with open(reading, "rb") as pipe:
            found = [*pipe.read()]
        assert os.waitpid(child, 0)[1] == 0
        return found


def opened(path: str) -> int:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        return error.errno or 255
    return 0


def isolated(tmp_path: Path, piece: Callable[[World], None]) -> None:
    def child() -> None:
        namespaces.unshare(namespaces.NEWNS)
        namespaces.make_mounts_private()
        namespaces.tmpfs(str(tmp_path), size="64k")
        for name in ("secret", GRANTED):
            (tmp_path / name).touch()
        piece(World(str(tmp_path)))

    assert outcome(child) == 0


def test_each_open_is_refused_and_recorded_by_what_the_policy_says_of_the_path(tmp_path: Path) -> None:
    def piece(world: World) -> None:
        audit = world.audit()
        audit.open()
        assert world.opens("secret", GRANTED, ".") == [errno.EPERM] * 3
        assert world.recorded.seen() == [
            (f"{world.base}/secret", PATHS_DEFAULT),
            (f"{world.base}/{GRANTED}", FILE_PERMISSIONS),
            (world.base, PATHS_DEFAULT),
        ]
        details = world.recorded.events[0].details
        assert (details["mechanism"], details["access"], details["uid"]) == (MECHANISM, "read", os.getuid())
        assert details["exe"] == os.readlink("/proc/self/exe")
        assert details["argv"]
        audit.stop()

    isolated(tmp_path, piece)


def test_many_opens_at_once_are_refused_and_recorded_each(tmp_path: Path) -> None:
    def piece(world: World) -> None:
        world.audit().open()
        children = []
        for _ in range(8):
            child = os.fork()
            if child == 0:
                os._exit(0 if all(opened(f"{world.base}/secret") == errno.EPERM for _ in range(100)) else 1)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
        assert len(world.recorded.events) == 800

    isolated(tmp_path, piece)


def test_the_launchers_proofs_and_the_agents_own_opens_are_refused_and_not_recorded(tmp_path: Path) -> None:
    def piece(world: World) -> None:
        audit = world.audit()
        assert world.opens("secret") == [errno.EPERM]
        audit.open()
        assert opened(f"{world.base}/secret") == errno.EPERM
        assert world.recorded.events == []

    isolated(tmp_path, piece)


class Broken:
    """A gate whose every decision is an error, and what it is told of it."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def check(self, request: PathRequest, /) -> Decision:
        raise RuntimeError(request.path)

    def deny(self, request: PathRequest, decision: Decision, /) -> Decision:
        self.told.append(decision.rule)
        return decision


def test_where_nothing_can_be_decided_every_open_is_refused_and_the_fault_recorded(tmp_path: Path) -> None:
    def piece(world: World) -> None:
        world.gate = broken = Broken()
        world.audit().open()
        assert world.opens("secret", "secret") == [errno.EPERM] * 2
        assert broken.told == [AGENT_FAULT] * 2
        assert world.faults == []

    isolated(tmp_path, piece)


def test_what_a_guard_that_died_had_in_hand_is_refused_by_the_next_one(tmp_path: Path) -> None:
    def piece(world: World) -> None:
        opener = os.fork()
        if opener == 0:
            os._exit(opened(f"{world.base}/secret"))
        dying = os.fork()
        if dying == 0:
            select.select([world.group], [], [])
            os._exit(0 if fanotify.receive(world.group) else 1)
        assert os.waitpid(dying, 0)[1] == 0
        world.audit(successor=True)
        assert os.waitstatus_to_exitcode(os.waitpid(opener, 0)[1]) == errno.EPERM
        assert world.opens("secret") == [errno.EPERM]
        assert world.recorded.seen() == [("?", AGENT_FAULT), (f"{world.base}/secret", PATHS_DEFAULT)]

    isolated(tmp_path, piece)


def test_a_reader_without_descriptors_lets_nothing_through(tmp_path: Path) -> None:
    def piece(world: World) -> None:
        world.audit().open()
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        opener, told = waiting_opener(world.base)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        os.write(told, b"go")
        status = os.waitstatus_to_exitcode(os.waitpid(opener, 0)[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        assert status == errno.EPERM
        assert world.opens("secret") == [errno.EPERM]
        assert world.recorded.rules() == [AGENT_FAULT, PATHS_DEFAULT]

    isolated(tmp_path, piece)


def waiting_opener(base: str) -> tuple[int, int]:
    """A process that opens once it is told so, by the descriptor."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reading, 2)
        os._exit(opened(f"{base}/secret"))
    return child, writing
