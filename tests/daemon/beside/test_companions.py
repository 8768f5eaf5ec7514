"""What runs beside a session: started in order, stopped in the opposite one, and a missing one is on record."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from agent.daemon.base.journal import Journal
from agent.daemon.beside.companions import Companions


class Said:
    """Takes what the journal is told."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def degraded(self, point: Any, level: Any, reason: str) -> None:
        self.words.append(f"{point} {level}: {reason}")


class Member:
    def __init__(self, name: str, told: list[str], *, broken: bool = False) -> None:
        self._name, self._told, self._broken = name, told, broken

    async def start(self) -> None:
        if self._broken:
            raise OSError("no inotify here")
        self._told.append(f"+{self._name}")

    async def stop(self) -> None:
        self._told.append(f"-{self._name}")
        raise RuntimeError("cannot end")


def test_the_others_run_where_one_cannot_be_started_and_the_log_says_so() -> None:
    told: list[str] = []
    said = Said()
    members = Companions([Member("a", told), Member("b", told, broken=True), Member("c", told)], cast("Journal", said))

    async def life() -> None:
        await members.start()
        await members.stop()

    asyncio.run(life())
    assert told == ["+a", "+c", "-c", "-a"]
    assert said.words == ["agent partial: Member could not be started: OSError: no inotify here"]
