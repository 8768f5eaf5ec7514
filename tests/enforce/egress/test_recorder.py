"""Events on their way to the guard: accepted or refused, never lost, never unbounded."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent.channel import Channel, pair
from agent.enforce.egress.recorder import MAX_FOLDED, ChannelRecorder
from agent.record.event import Action, Event, EventType, RecordError, ResourceType, Result


def denial(host: str = "evil.test", rule: str = "egress-default") -> Event:
    return Event(
        type=EventType.NETWORK_EGRESS_BLOCKED,
        actor="session:t",
        action=Action.CREATE,
        resource=f"{host}:443",
        resource_type=ResourceType.NETWORK,
        result=Result.DENIED,
        source_ip="127.0.0.1",
        details={"rule": rule},
    )


def run(test: Callable[[ChannelRecorder, Channel, list[str]], Awaitable[None]], **bounds: int) -> None:
    async def body() -> None:
        ours, theirs = pair()
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        theirs.settimeout(60)
        ended: list[str] = []
        try:
            await test(ChannelRecorder(Channel(ours), ended.append, **bounds), Channel(theirs), ended)
        finally:
            ours.close()
            theirs.close()

    asyncio.run(body())


async def receive(guard: Channel) -> dict[str, Any]:
    message, _ = await asyncio.to_thread(guard.receive)
    return message


def test_a_posted_event_arrives_with_everything_it_says() -> None:
    async def check(recorder: ChannelRecorder, guard: Channel, ended: list[str]) -> None:
        recorder.post(denial())
        message = await receive(guard)
        assert (message["type"], message["accept"]) == ("event", False)
        assert message["event"] == {
            "type": "network.egress_blocked",
            "actor": "session:t",
            "action": "CREATE",
            "resource": "evil.test:443",
            "resource_type": "network",
            "result": "denied",
            "source_ip": "127.0.0.1",
            "details": {"rule": "egress-default"},
        }

    run(check)


def test_an_allow_waits_for_its_own_answer() -> None:
    async def check(recorder: ChannelRecorder, guard: Channel, ended: list[str]) -> None:
        one, two = recorder.accept(denial("a.test")), recorder.accept(denial("b.test"))
        numbers = [(await receive(guard))["n"] for _ in range(2)]
        recorder.settle(numbers[1], None)
        await two
        assert not one.done()
        recorder.settle(numbers[0], "disk full")
        with pytest.raises(RecordError, match="disk full"):
            await one

    run(check)


def test_an_answer_to_nothing_is_a_fault_and_a_late_one_is_not() -> None:
    async def check(recorder: ChannelRecorder, guard: Channel, ended: list[str]) -> None:
        waiting = recorder.accept(denial())
        waiting.cancel()
        recorder.settle((await receive(guard))["n"], None)
        with pytest.raises(KeyError):
            recorder.settle(99, None)

    run(check)


def test_when_the_channel_ends_whoever_waits_is_refused() -> None:
    async def check(recorder: ChannelRecorder, guard: Channel, ended: list[str]) -> None:
        waiting = recorder.accept(denial())
        await receive(guard)
        recorder.close()
        with pytest.raises(RecordError):
            await waiting
        for take in (recorder.post, recorder.accept):
            with pytest.raises(RecordError):
                take(denial())

    run(check)


def test_a_broken_channel_is_told_once_and_refuses() -> None:
    async def check(recorder: ChannelRecorder, guard: Channel, ended: list[str]) -> None:
        guard.close()
        waiting = recorder.accept(denial())
        with pytest.raises(RecordError):
            await waiting
        assert len(ended) == 1

    run(check)


def test_a_flood_of_denials_is_counted_exactly_in_bounded_memory() -> None:
    total = 20_000

    async def check(recorder: ChannelRecorder, guard: Channel, ended: list[str]) -> None:
        for number in range(total):
            recorder.post(denial(f"h{number % 1000}.test"))
        with pytest.raises(RecordError, match="too many"):
            recorder.accept(denial())
        counted: dict[str, int] = {}
        messages = 0
        while sum(counted.values()) < total:
            event = (await receive(guard))["event"]
            messages += 1
            counted[event["resource"]] = counted.get(event["resource"], 0) + event["details"].get("count", 1)
        assert sum(counted.values()) == total
        assert messages < total / 4
        assert len(counted) <= 1001
        recorder.post(denial("after.test"))
        assert (await receive(guard))["event"]["resource"] == "after.test:443"

    run(check, max_backlog=100_000)


def test_what_cannot_be_told_apart_is_folded_by_rule() -> None:
    async def check(recorder: ChannelRecorder, guard: Channel, ended: list[str]) -> None:
        recorder.post(denial("first.test"))
        for number in range(MAX_FOLDED + 10):
            recorder.post(denial(f"h{number}.test", rule=f"r{number % 2}"))
        events = [(await receive(guard))["event"] for _ in range(1 + MAX_FOLDED + 2)]
        many = {
            event["details"]["rule"]: event["details"]["count"] for event in events if event["resource"] == "(many)"
        }
        assert many == {"r0": 5, "r1": 5}

    run(check, max_backlog=10)


def test_what_is_mentioned_arrives_by_itself_and_before_a_later_event() -> None:
    async def check(recorder: ChannelRecorder, guard: Channel, ended: list[str]) -> None:
        assert recorder.mention({"type": "opened", "n": 1})
        assert (await receive(guard))["n"] == 1
        assert recorder.mention({"type": "opened", "n": 2})
        recorder.post(denial())
        assert [(await receive(guard))["type"] for _ in range(2)] == ["opened", "event"]
        assert recorder.mention({"type": "opened", "n": 3})
        await recorder.drain(10)
        assert (await receive(guard))["n"] == 3
        recorder.close()
        assert not recorder.mention({"type": "opened", "n": 4})

    run(check)
