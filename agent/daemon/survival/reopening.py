"""The doors of a session's network, opened again where a restore has taken the session out of it.

Rules kept here: the session's init opens them, which is in that network and has no right that matters; what it hands
over is only listened on. What it opened before is let go, but for the marks: by them a guard to come knows what this
one knows. Before anything is opened, whoever could still send by a socket of before without being asked is ended.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence

from agent.daemon.launch.launcher import LaunchFailed, LaunchLink
from agent.enforce.egress.left_behind import LeftBehind
from agent.session.doors import Door


class Reopening:
    """One session's. `hold` has the keeper hold these doors in the place of those before."""

    def __init__(self, left: LeftBehind, hold: Callable[[list[str], list[int]], None]) -> None:
        self._left = left
        self._hold = hold
        self._seen = 0

    def watch(self, doors: Sequence[str], listeners: Sequence[int]) -> None:
        """Those among them that are marks are watched from here on."""
        for door, listener in zip(doors, listeners, strict=True):
            if door == Door.MARK:
                with socket.socket(fileno=os.dup(listener)) as mark:
                    self._left.watch(mark.getsockname()[1])

    def inherit(self, doors: Sequence[str], listeners: Sequence[int]) -> None:
        """The same for a guard in the place of another, which has dealt with what shows already."""
        self.watch(doors, listeners)
        self._seen = self.moved()

    def handlers(self) -> dict[int, LeftBehind]:
        """Who answers for calls on sockets that may have been taken out, by number."""
        return self._left.handlers()

    def moved(self) -> int:
        """How often the session's sockets of before have left its network. The last answer where that stays open."""
        try:
            return self._left.times()
        except OSError:
            return self._seen

    async def renew(self, launch: LaunchLink, port: int) -> str:
        """Where they have: open the doors again; returns why not all of them could be, where only the proxy's was.
        Raises LaunchFailed where that cannot be; OSError where a way out is left."""
        times = await asyncio.to_thread(self.moved)
        if times == self._seen:
            return ""
        await asyncio.to_thread(self._left.end_connected)
        doors, listeners, missing = await launch.reopen(port)
        try:
            if Door.PROXY not in doors or Door.MARK not in doors:
                raise LaunchFailed("the session's init opened no door")
            self.watch(doors, listeners)
            self._hold(doors, listeners)
        finally:
            for listener in listeners:
                os.close(listener)
        self._seen = times
        return missing
