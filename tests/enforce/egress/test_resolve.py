"""Names to addresses: one lookup, every answer, errors that are errors."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from agent.enforce.egress.resolve import (
    NAMES_BELOW,
    THREADS,
    UNDERWAY_BELOW,
    Failure,
    Lookup,
    Resolution,
    ResolveError,
    Resolver,
    is_own,
    system_lookup,
    wildcard_of,
)
from agent.policy.decision import Decision, Verdict
from agent.policy.model import HostRule, Where
from tests.conftest import require


def run(lookup: Lookup, test: Callable[[Resolver], Awaitable[None]], **how: float) -> None:
    async def body() -> None:
        resolver = Resolver(lookup, **how)
        try:
            await test(resolver)
        finally:
            resolver.close()

    asyncio.run(body())


class Names:
    """Successive answers, counted."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0)


def test_every_answer_is_kept_in_order_and_in_one_spelling() -> None:
    async def check(resolver: Resolver) -> None:
        found = await resolver.resolve("a.test")
        assert found.addresses == ("8.8.8.8", "2001:db8::1", "10.0.0.1", "fe80::1")

    run(Names(["::ffff:8.8.8.8", "2001:DB8:0::1", "8.8.8.8", "10.0.0.1", "fe80::1%eth0"]), check)


def test_a_second_answer_is_not_asked_for_while_the_first_is_fresh() -> None:
    names = Names(["8.8.8.8"], ["127.0.0.1"])

    async def check(resolver: Resolver) -> None:
        for _ in range(3):
            assert (await resolver.resolve("a.test")).addresses == ("8.8.8.8",)
        assert names.asked == ["a.test"]

    run(names, check)


def test_after_its_time_a_name_is_looked_up_anew() -> None:
    async def check(resolver: Resolver) -> None:
        assert (await resolver.resolve("a.test")).addresses == ("8.8.8.8",)
        assert (await resolver.resolve("a.test")).addresses == ("127.0.0.1",)

    run(Names(["8.8.8.8"], ["127.0.0.1"]), check, ttl=0.0)


def test_those_who_ask_at_once_share_one_lookup() -> None:
    release = threading.Event()
    asked: list[str] = []

    def slow(host: str) -> Sequence[str]:
        asked.append(host)
        release.wait(60)
        return ["8.8.8.8"]

    async def check(resolver: Resolver) -> None:
        tasks = [asyncio.ensure_future(resolver.resolve("a.test")) for _ in range(20)]
        await asyncio.sleep(0.05)
        tasks[0].cancel()
        release.set()
        found = await asyncio.gather(*tasks[1:])
        assert set(found) == {Resolution(("8.8.8.8",), ())}
        assert asked == ["a.test"]

    run(slow, check)


def test_an_address_is_its_own_answer_without_a_lookup() -> None:
    names = Names()

    async def check(resolver: Resolver) -> None:
        assert (await resolver.resolve("192.0.2.1")).addresses == ("192.0.2.1",)
        assert names.asked == []

    run(names, check)


@pytest.mark.parametrize("answer", [[], ["nonsense"], ["8.8.8.8", "nonsense"], [""]])
def test_an_answer_that_is_none_is_an_error(answer: list[str]) -> None:
    async def check(resolver: Resolver) -> None:
        with pytest.raises(ResolveError, match="no usable address"):
            await resolver.resolve("a.test")

    run(Names(answer), check)


def test_a_failed_lookup_is_an_error_and_is_not_remembered() -> None:
    answers: list[Sequence[str] | OSError] = [socket.gaierror(-2, "Name or service not known"), ["8.8.8.8"]]

    def lookup(host: str) -> Sequence[str]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    async def check(resolver: Resolver) -> None:
        with pytest.raises(ResolveError, match="Name or service not known") as caught:
            await resolver.resolve("a.test")
        assert not caught.value.timed_out
        assert (await resolver.resolve("a.test")).addresses == ("8.8.8.8",)

    run(lookup, check, negative=0.0)


def test_a_failure_is_remembered_for_a_moment_so_that_nobody_is_hammered() -> None:
    asked: list[str] = []

    def lookup(host: str) -> Sequence[str]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NODATA, "No address associated with hostname")

    async def check(resolver: Resolver) -> None:
        for _ in range(3):
            with pytest.raises(ResolveError, match="No address associated") as caught:
                await resolver.resolve("a.test")
            assert caught.value.failure is Failure.NO_ADDRESS
        assert asked == ["a.test"]

    run(lookup, check)


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (socket.EAI_NONAME, Failure.NO_NAME),
        (socket.EAI_NODATA, Failure.NO_ADDRESS),
        (socket.EAI_AGAIN, Failure.FAILED),
        (socket.EAI_FAIL, Failure.FAILED),
    ],
)
def test_a_failure_says_in_which_way(code: int, failure: Failure) -> None:
    def lookup(host: str) -> Sequence[str]:
        raise socket.gaierror(code, "so it is")

    async def check(resolver: Resolver) -> None:
        with pytest.raises(ResolveError) as caught:
            await resolver.answer("a.test")
        assert caught.value.failure is failure

    run(lookup, check)


def test_a_lookup_that_hangs_is_given_up() -> None:
    release = threading.Event()

    def hang(host: str) -> Sequence[str]:
        release.wait(60)
        return ["8.8.8.8"]

    async def check(resolver: Resolver) -> None:
        try:
            with pytest.raises(ResolveError, match="too long") as caught:
                await resolver.resolve("a.test")
            assert caught.value.timed_out
        finally:
            release.set()

    run(hang, check, seconds=0.1)


def test_lookups_that_hang_leave_room_for_others_and_are_not_begun_for_nobody() -> None:
    release = threading.Event()
    begun: list[str] = []

    def lookup(host: str) -> Sequence[str]:
        begun.append(host)
        if host.startswith("slow"):
            release.wait(60)
        return ["8.8.8.8"]

    async def check(resolver: Resolver) -> None:
        try:
            slow = [f"slow{number}.test" for number in range(THREADS + 5)]
            given_up = await asyncio.gather(*(resolver.resolve(name) for name in slow), return_exceptions=True)
            assert all(isinstance(error, ResolveError) and error.timed_out for error in given_up)
            again = await asyncio.gather(*(resolver.resolve(name) for name in slow[:3]), return_exceptions=True)
            assert all(isinstance(error, ResolveError) and error.timed_out for error in again)
            assert sorted(begun) == sorted(slow[:THREADS]), (
                "no second thread for a name that one is at, none for what nobody awaits"
            )
        finally:
            release.set()
        assert (await resolver.resolve("quick.test")).addresses == ("8.8.8.8",)
        assert sorted(begun) == sorted([*slow[:THREADS], "quick.test"])

    run(lookup, check, seconds=1.0)


def test_names_below_one_wildcard_take_only_their_share() -> None:
    release = threading.Event()

    def lookup(host: str) -> Sequence[str]:
        if host.endswith(".wide.test"):
            release.wait(60)
        return ["8.8.8.8"]

    async def check(resolver: Resolver) -> None:
        slow = [
            asyncio.ensure_future(resolver.resolve(f"n{n}.wide.test", "*.wide.test")) for n in range(UNDERWAY_BELOW)
        ]
        await asyncio.sleep(0)
        try:
            with pytest.raises(ResolveError, match=r"below \*\.wide\.test are under way") as caught:
                await resolver.resolve("one.more.wide.test", "*.wide.test")
            assert caught.value.failure is Failure.BOUND
            assert (await resolver.resolve("other.test", "*.test")).addresses == ("8.8.8.8",)
        finally:
            release.set()
        await asyncio.gather(*slow)

    run(lookup, check)


def test_only_new_names_count_against_a_wildcard() -> None:
    async def check(resolver: Resolver) -> None:
        for number in range(NAMES_BELOW):
            await resolver.resolve(f"n{number}.wide.test", "*.wide.test")
        with pytest.raises(ResolveError, match="within a minute"):
            await resolver.resolve("one.more.wide.test", "*.wide.test")
        await resolver.resolve("n0.wide.test", "*.wide.test")
        await resolver.resolve("one.more.wide.test", "*.other.test")
        await resolver.resolve("given.in.full.wide.test")

    run(lambda host: ["8.8.8.8"], check, ttl=0.0)


def test_what_was_told_to_the_session_is_good_for_its_connections_a_little_longer() -> None:
    names = Names(["8.8.8.8", "8.8.4.4"], ["9.9.9.9"])

    async def check(resolver: Resolver) -> None:
        found, seconds = await resolver.answer("a.test")
        assert seconds == 0
        assert resolver.names_of("8.8.4.4") == (), "not told yet: its addresses are still to be judged"
        resolver.pin("a.test", found)
        assert resolver.names_of("8.8.4.4") == ("a.test",)
        assert resolver.names_of("9.9.9.9") == ()
        assert (await resolver.resolve("a.test")).addresses == found.addresses
        assert (await resolver.answer("a.test"))[0].addresses == ("9.9.9.9",), "an answer is always fresh"
        assert resolver.names_of("8.8.4.4") == ()

    run(names, check, ttl=0.0)


def test_an_answer_is_told_to_be_good_for_what_is_left_of_it() -> None:
    async def check(resolver: Resolver) -> None:
        first, second = [(await resolver.answer("a.test"))[1] for _ in range(2)]
        assert 200 < second <= first <= 299

    run(Names(["8.8.8.8"]), check, ttl=299.9)


def test_more_addresses_than_can_be_kept_are_an_error() -> None:
    async def check(resolver: Resolver) -> None:
        with pytest.raises(ResolveError, match="more than 128"):
            await resolver.resolve("a.test")

    run(Names([f"8.8.{number // 250}.{number % 250}" for number in range(129)]), check)


@pytest.mark.parametrize(
    ("patterns", "wildcard"),
    [
        ([], None),
        (["a.test"], None),
        (["*.test"], "*.test"),
        (["*.test", "a.test"], None),
        (["*.test", "*.a.test"], "*.test"),
    ],
)
def test_a_name_is_made_up_only_where_no_layer_gives_it_in_full(patterns: list[str], wildcard: str | None) -> None:
    grants = tuple(HostRule(id=pattern, pattern=pattern, where=Where("t", 1, 1)) for pattern in patterns)
    assert wildcard_of(Decision(Verdict.ALLOW, "r", "why", "d", grants=grants)) == wildcard


def test_this_machine_knows_its_own_addresses() -> None:
    assert is_own("127.0.0.1")
    assert not is_own("192.0.2.1")


_IN_A_NAMESPACE = """
import socket, subprocess, sys, threading
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["mount", "--bind", sys.argv[1], "/etc/resolv.conf"], check=True)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
def serve():
    for _ in range(20):
        data, who = server.recvfrom(2048)
        at, labels = 12, []
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += data[at] + 1
        print(".".join(labels), flush=True)
        server.sendto(data[:2] + b"\\x81\\x83" + data[4:6] + bytes(6) + data[12 : at + 5], who)
threading.Thread(target=serve, daemon=True).start()
import os
os.environ["LOCALDOMAIN"] = ""
from agent.enforce.egress.resolve import system_lookup
for name in ("api.good.test", "single"):
    try:
        system_lookup(name)
    except OSError:
        pass
"""


def test_the_system_s_search_list_is_never_appended_to_a_decided_name(tmp_path: Path) -> None:
    probe = subprocess.run(["unshare", "-n", "-m", "ip", "link"], capture_output=True, check=False)
    require(probe.returncode == 0, "needs to make a network and a mount namespace")
    conf = tmp_path / "resolv.conf"
    conf.write_text("search corp.test\nnameserver 127.0.0.1\noptions ndots:5 timeout:1 attempts:1\n")
    done = subprocess.run(
        ["unshare", "-n", "-m", sys.executable, "-c", _IN_A_NAMESPACE, str(conf)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert set(done.stdout.split()) == {"api.good.test", "single"}


def test_the_system_s_own_files_are_read() -> None:
    assert "127.0.0.1" in system_lookup("localhost") or "::1" in system_lookup("localhost")
