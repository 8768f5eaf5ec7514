"""A refusal waits until the guard has looked whose connection it is, and not for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent.enforce.egress import sightings
from agent.enforce.egress.sightings import Sightings

ENDS = (("127.0.0.1", 1), ("127.0.0.1", 2))


def test_connections_are_told_in_order_with_both_ends() -> None:
    sent: list[dict[str, Any]] = []

    def mention(message: dict[str, Any]) -> bool:
        sent.append(message)
        return len(sent) < 3

    told = Sightings(mention)
    assert [told.opened(*ENDS), told.opened(*ENDS)] == [1, 2]
    assert sent[1] == {"type": "opened", "n": 2, "source": ENDS[0], "destination": ENDS[1], "udp": False}
    assert told.opened(*ENDS, udp=True) == 0, "nobody waits for what the guard was not told"
    assert sent[2]["udp"] is True


def test_who_waits_goes_on_when_it_was_looked_at_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sightings, "PATIENCE", 60.0)

    async def run() -> list[bool]:
        told = Sightings(lambda _: True)
        numbers = [told.opened(*ENDS) for _ in range(3)]
        waiting = [asyncio.ensure_future(told.wait(number)) for number in numbers]
        await asyncio.sleep(0)
        told.seen(2)
        await asyncio.wait(waiting[:2])
        done = [each.done() for each in waiting]
        waiting[2].cancel()
        await told.wait(1)  # what was seen is not waited for
        return done

    assert asyncio.run(run()) == [True, True, False]


def test_a_guard_that_never_looks_holds_nobody() -> None:
    async def run() -> None:
        told = Sightings(lambda _: True)
        await asyncio.gather(told.wait(told.opened(*ENDS)), told.wait(1))

    asyncio.run(asyncio.wait_for(run(), 60))


def test_in_a_flood_only_a_few_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sightings, "PATIENCE", 60.0)

    async def run() -> list[bool]:
        told = Sightings(lambda _: True)
        waiting = [asyncio.ensure_future(told.wait(told.opened(*ENDS))) for _ in range(sightings.MOST_WAITING + 2)]
        await asyncio.wait(waiting[-2:])
        done = [each.done() for each in waiting]
        told.seen(len(waiting))
        await asyncio.gather(*waiting)
        return done

    assert asyncio.run(run()) == [False] * sightings.MOST_WAITING + [True] * 2
