"""Being asked before files are opened, on a tmpfs in a mount namespace of a child's."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.linux import fanotify, namespaces
from tests.linux.forked import outcome

pytestmark = pytest.mark.root


def isolated(tmp_path: Path, piece: Callable[[str], None]) -> int:
    """What became of `piece`, which is given a tmpfs of its own."""

    def child() -> None:
        namespaces.unshare(namespaces.NEWNS)
        namespaces.make_mounts_private()
        namespaces.tmpfs(str(tmp_path), size="64k")
        (tmp_path / "file").write_text("text")
        (tmp_path / "directory").mkdir()
        piece(str(tmp_path))

    return outcome(child)


def refusing(group: int, seen: list[tuple[str, int]]) -> None:
    def answer() -> None:
        while True:
            select.select([group], [], [])
            opening = fanotify.receive(group)
            if opening is not None:
                seen.append((os.readlink(f"/proc/self/fd/{opening.file}"), opening.pid))
                assert fanotify.refuse(group, opening.file)
                os.close(opening.file)

    threading.Thread(target=answer, daemon=True).start()


def answer_of(act: Callable[[], int]) -> str:
    try:
        os.close(act())
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "opened"


def test_every_open_is_asked_for_and_can_be_refused(tmp_path: Path) -> None:
    def piece(base: str) -> None:
        group, seen = fanotify.group(), list[tuple[str, int]]()
        fanotify.ask_before_opens(group, base)
        refusing(group, seen)
        place = os.open(f"{base}/file", os.O_PATH)
        ways = {
            "file": lambda: os.open(f"{base}/file", os.O_RDONLY),
            "write": lambda: os.open(f"{base}/file", os.O_WRONLY),
            "directory": lambda: os.open(f"{base}/directory", os.O_RDONLY | os.O_DIRECTORY),
            "reopened": lambda: os.open(f"/proc/self/fd/{place}", os.O_RDONLY),
        }
        assert {name: answer_of(way) for name, way in ways.items()} == dict.fromkeys(ways, "EPERM")
        assert answer_of(lambda: os.open("/dev/null", os.O_RDONLY)) == "opened"
        assert answer_of(lambda: os.open(f"{base}/file", os.O_PATH)) == "opened"
        assert seen == [(f"{base}/{name}", os.getpid()) for name in ("file", "file", "directory", "file")]

    assert isolated(tmp_path, piece) == 0


def test_what_a_reader_took_and_did_not_answer_another_one_refuses_by_its_number(tmp_path: Path) -> None:
    def piece(base: str) -> None:
        group = fanotify.group()
        fanotify.ask_before_opens(group, base)
        ours, theirs = socket.socketpair()
        opener = os.fork()
        if opener == 0:
            os._exit(0 if answer_of(lambda: os.open(f"{base}/file", os.O_RDONLY)) == "EPERM" else 1)
        reader = os.fork()
        if reader == 0:
            select.select([group], [], [])
            opening = fanotify.receive(group)
            theirs.send(str(opening.file if opening else -1).encode())
            os._exit(0)
        taken = int(ours.recv(16))
        assert os.waitpid(reader, 0)[1] == 0
        assert fanotify.receive(group) is None
        assert not fanotify.refuse(group, taken + 1)
        assert fanotify.refuse(group, taken)
        assert not fanotify.refuse(group, taken)
        assert os.waitpid(opener, 0)[1] == 0

    assert isolated(tmp_path, piece) == 0


def test_when_nobody_holds_the_group_any_more_opens_go_on(tmp_path: Path) -> None:
    def piece(base: str) -> None:
        group = fanotify.group()
        fanotify.ask_before_opens(group, base)
        opener = os.fork()
        if opener == 0:
            os.close(group)
            os._exit(0 if answer_of(lambda: os.open(f"{base}/file", os.O_RDONLY)) == "opened" else 1)
        select.select([group], [], [])
        os.close(group)
        assert os.waitpid(opener, 0)[1] == 0

    assert isolated(tmp_path, piece) == 0


def test_one_that_was_killed_while_it_waited_can_be_answered_all_the_same(tmp_path: Path) -> None:
    def piece(base: str) -> None:
        group = fanotify.group()
        fanotify.ask_before_opens(group, base)
        opener = os.fork()
        if opener == 0:
            os.open(f"{base}/file", os.O_RDONLY)
            os._exit(1)
        select.select([group], [], [])
        opening = fanotify.receive(group)
        assert opening is not None
        os.kill(opener, 9)
        assert os.waitpid(opener, 0)[1] == 9
        fanotify.refuse(group, opening.file)
        assert not fanotify.refuse(group, opening.file)

    assert isolated(tmp_path, piece) == 0
