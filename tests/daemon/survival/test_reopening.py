"""The doors are opened again once for each restore that shows, and by the guard that has seen it only."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from agent.daemon.launch.launcher import LaunchFailed
from agent.daemon.survival.reopening import Reopening
from agent.enforce.egress.left_behind import FRESH_SECONDS, LeftBehind


class Scene:
    """A guard's, with a mark that can be reached as soon as `restore` is called. `reopen` is init's part."""

    def __init__(self) -> None:
        self.held: list[list[str]] = []
        self.asked: list[int] = []
        self.opened = ["proxy", "mark"]
        self.missing = ""
        self.sockets = [socket.socket()]
        self.sockets[0].bind(("127.0.0.1", 0))

    def guard(self) -> Reopening:
        return Reopening(LeftBehind(lambda request, decision: None, None), self._hold)

    def _hold(self, doors: list[str], listeners: list[int]) -> None:
        assert [os.fstat(listener).st_ino for listener in listeners]
        self.held.append(doors)

    def restore(self) -> None:
        self.sockets[0].listen()

    async def reopen(self, port: int) -> tuple[list[str], list[int], str]:
        self.asked.append(port)
        made = [socket.socket() for _ in self.opened]
        for each in made:
            each.bind(("127.0.0.1", 0))
        return self.opened, [each.detach() for each in made], self.missing


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    for each in made.sockets:
        each.close()


def renewed(guard: Reopening, scene: Any) -> None:
    asyncio.run(asyncio.sleep(2 * FRESH_SECONDS))
    asyncio.run(guard.renew(scene, 3128))


def test_they_are_opened_again_where_a_restore_shows_and_once_for_it(scene: Scene) -> None:
    guard = scene.guard()
    guard.watch(["proxy", "mark"], [scene.sockets[0].fileno()] * 2)
    renewed(guard, scene)
    assert (guard.moved(), scene.asked) == (0, [])
    scene.restore()
    renewed(guard, scene)
    renewed(guard, scene)
    assert (guard.moved(), scene.asked, scene.held) == (1, [3128], [["proxy", "mark"]])


def test_where_they_cannot_be_had_it_is_tried_again(scene: Scene) -> None:
    guard = scene.guard()
    guard.watch(["mark"], [scene.sockets[0].fileno()])
    scene.restore()
    scene.opened = ["proxy"]
    with pytest.raises(LaunchFailed):
        renewed(guard, scene)
    scene.opened = ["proxy", "mark"]
    renewed(guard, scene)
    assert (len(scene.asked), scene.held) == (2, [["proxy", "mark"]])


def test_a_next_guard_knows_that_it_was_restored_and_does_not_open_them_again(scene: Scene) -> None:
    scene.restore()
    guard = scene.guard()
    guard.inherit(["mark"], [scene.sockets[0].fileno()])
    renewed(guard, scene)
    assert (guard.moved(), scene.asked) == (1, [])
