"""One egress process after the other: what the first had said counts, and nothing it asked is answered to the next."""

from __future__ import annotations

import asyncio
import base64
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.channel import Channel, pair
from agent.daemon.egress.attribution import Attribution
from agent.daemon.egress.link import EgressLink
from agent.enforce.egress.secrets import Secrets
from agent.policy.load import LayerSource, load_policy
from agent.policy.model import Policy
from agent.record.ledger import Ledger
from agent.record.metrics import Metrics
from agent.session.doors import Door
from tests.daemon.egress.test_link import ACTOR, EVENT, STATS
from tests.escape.runtime import read_log

CA = {"certificate": "certificate", "key": "key", "chain": ""}


def a_policy(name: str) -> Policy:
    text = f"version: 1\negress:\n  allow: [{name}.test]\npaths:\n  read: [/usr]\n"
    return load_policy([LayerSource("p", (("p.yaml", text),))])


@dataclass
class Process:
    """An egress process, as far as the link sees it."""

    channel: Channel

    async def receive(self) -> dict[str, Any]:
        message, fds = await asyncio.to_thread(self.channel.receive)
        for fd in fds:
            os.close(fd)
        return {**message, "received": len(fds)}

    async def serve(self, ca: dict[str, str] | None = None) -> dict[str, Any]:
        """Answer a start and a listen; the start message."""
        started = await self.receive()
        assert started["type"] == "start"
        self.channel.send({"type": "ca", "ca": ca})
        listen = await self.receive()
        while listen["type"] == "policy":
            listen = await self.receive()
        assert (listen["type"], listen["received"]) == ("listen", 1)
        self.channel.send({"type": "ready"})
        return started


@dataclass
class Told:
    faults: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    back: list[str] = field(default_factory=list)


class Scene:
    """A link with its first process serving."""

    def __init__(self, directory: Path) -> None:
        self.told = Told()
        self.successors: list[Process] = []
        self.metrics = Metrics(version="test")
        self.ledger = Ledger(directory, session_id="s", boot="b", metrics=self.metrics)
        self.ledger.start()
        self.attribution = Attribution(os.getpid, None, None, {})
        ours, theirs = pair()
        self.first = Process(Channel(theirs))
        self.link = EgressLink(
            Channel(ours), self.ledger, self.metrics, ACTOR, attribution=self.attribution,
            on_fault=self.told.faults.append, on_lost=self.told.lost.append,
            on_back=lambda: self.told.back.append("back"),
        )  # fmt: skip

    async def begin(self, ca: dict[str, str] | None = None) -> None:
        serving = asyncio.create_task(self.first.serve(ca))
        await self.link.start(a_policy("one"), None, None, Secrets())
        await self.link.listen([Door.PROXY], [0])
        await serving
        self.link.endure()

    def replace(self) -> Process:
        ours, theirs = pair()
        self.link.replace(Channel(ours), ["proxy"], [os.dup(0)])
        self.successors.append(Process(Channel(theirs)))
        return self.successors[-1]

    def close(self) -> None:
        self.attribution.stop()
        self.ledger.close()


def play(directory: Path, scene_of: Any) -> Scene:
    async def run() -> Scene:
        scene = Scene(directory)
        await scene_of(scene)
        scene.close()
        return scene

    scene = asyncio.run(run())
    for process in (scene.first, *scene.successors):
        process.channel.close()
    return scene


async def until(true: Any) -> None:
    for _ in range(6000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came")


def test_before_the_session_starts_the_end_is_a_fault(tmp_path: Path) -> None:
    async def scene_of(scene: Scene) -> None:
        scene.first.channel.close()
        await until(lambda: scene.told.faults)

    assert play(tmp_path / "log", scene_of).told.lost == []


def test_a_successor_is_given_the_policy_in_force_the_same_ca_and_what_was_counted(tmp_path: Path) -> None:
    started: dict[str, Any] = {}

    async def scene_of(scene: Scene) -> None:
        await scene.begin(CA)
        scene.first.channel.send({**STATS, "accounts": {"a.test": [5, 6, 1], "*.b.test": [7, 8, 0]}})
        scene.first.channel.close()
        await until(lambda: scene.told.lost)
        scene.link.follow(a_policy("two"))  # nobody is there to be told
        started.update(await scene.replace().serve(CA))
        await until(lambda: scene.told.back)

    scene = play(tmp_path / "log", scene_of)
    assert pickle.loads(base64.b64decode(started["policy"])).digest == a_policy("two").digest
    assert started["ca"] == CA
    assert started["token"] == scene.link.token.hex()
    assert started["accounts"] == {"a.test": [5, 6, 1], "*.b.test": [7, 8, 0]}
    assert (scene.told.faults, len(scene.told.lost), scene.link.bytes_up) == ([], 1, 1)


def test_what_the_dead_one_had_sent_is_recorded_and_its_question_is_not_answered_to_the_next(tmp_path: Path) -> None:
    late: list[dict[str, Any]] = []

    async def scene_of(scene: Scene) -> None:
        await scene.begin()
        for number in range(40):
            scene.first.channel.send({"type": "event", "n": number, "accept": True, "event": EVENT})
        scene.first.channel.close()
        second = scene.replace()  # before the loop has read any of it
        await second.serve()
        await until(lambda: scene.told.back)
        scene.link.follow(a_policy("two"))
        late.append(await second.receive())

    scene = play(tmp_path / "log", scene_of)
    assert sum(event["resource"] == "a.test:443" for event in read_log(tmp_path / "log")) == 40
    assert late[0]["type"] == "policy"
    assert (len(scene.told.lost), scene.told.faults) == (1, [])


def test_a_policy_that_comes_while_the_successor_starts_reaches_it(tmp_path: Path) -> None:
    after: list[dict[str, Any]] = []

    async def scene_of(scene: Scene) -> None:
        await scene.begin()
        scene.first.channel.close()
        second = scene.replace()
        assert (await second.receive())["type"] == "start"
        scene.link.follow(a_policy("two"))
        second.channel.send({"type": "ca", "ca": None})
        after.extend([await second.receive(), await second.receive()])

    play(tmp_path / "log", scene_of)
    assert [message["type"] for message in after] == ["policy", "listen"]
    assert pickle.loads(base64.b64decode(after[0]["policy"])).digest == a_policy("two").digest


def test_a_successor_with_another_ca_is_a_fault(tmp_path: Path) -> None:
    async def scene_of(scene: Scene) -> None:
        await scene.begin(CA)
        scene.first.channel.close()
        second = scene.replace()
        await second.receive()
        second.channel.send({"type": "ca", "ca": {**CA, "key": "another"}})
        await until(lambda: scene.told.faults)

    assert play(tmp_path / "log", scene_of).told.back == []


def test_after_a_restore_the_next_one_has_another_token_and_makes_another_ca_that_later_ones_keep(
    tmp_path: Path,
) -> None:
    renewed, started, trusted = {**CA, "key": "another", "certificate": "new"}, [], []

    async def scene_of(scene: Scene) -> None:
        await scene.begin(CA)
        before = scene.link.token
        scene.link.on_renewed = trusted.append
        scene.link.renew()
        assert scene.link.token != before
        for _ in range(2):
            started.append(await scene.replace().serve(renewed))
            await until(lambda: len(scene.told.back) == len(started))
        assert (scene.link.state.ca, scene.link.state.renewing) == (renewed, False)

    scene = play(tmp_path / "log", scene_of)
    assert [(each["ca"], each["renew"]) for each in started] == [(CA, True), (renewed, False)]
    assert {each["token"] for each in started} == {scene.link.token.hex()}
    assert (trusted, scene.told.faults) == (["new"], [])


def test_a_second_restore_while_the_next_one_starts_is_another_ca_once_more(tmp_path: Path) -> None:
    async def scene_of(scene: Scene) -> None:
        await scene.begin(CA)
        scene.link.renew()
        second = scene.replace()
        assert (await second.receive())["renew"]
        scene.link.renew()
        second.channel.send({"type": "ca", "ca": {**CA, "key": "second"}})
        assert (await second.receive())["type"] == "listen"
        third = await scene.replace().serve({**CA, "key": "third"})
        assert (third["ca"]["key"], third["renew"]) == ("second", True)
        await until(lambda: scene.told.back)

    assert play(tmp_path / "log", scene_of).told.faults == []


@pytest.mark.parametrize("ca", [CA, None])
def test_a_next_one_that_makes_no_other_ca_is_a_fault(tmp_path: Path, ca: dict[str, str] | None) -> None:
    async def scene_of(scene: Scene) -> None:
        await scene.begin(CA)
        scene.link.renew()
        second = scene.replace()
        await second.receive()
        second.channel.send({"type": "ca", "ca": ca})
        await until(lambda: scene.told.faults)

    assert play(tmp_path / "log", scene_of).told.back == []


@pytest.mark.parametrize("account", [[4, 6, 0], [5, 5, 0], [5, 6, -1], ["x", 6, 0], [5, 6]])
def test_an_account_never_goes_down(tmp_path: Path, account: list[Any]) -> None:
    async def scene_of(scene: Scene) -> None:
        await scene.begin()
        scene.first.channel.send({**STATS, "accounts": {"a.test": [5, 6, 1]}})
        scene.first.channel.send({**STATS, "accounts": {"a.test": account}})
        await until(lambda: scene.told.faults)

    play(tmp_path / "log", scene_of)


def test_one_that_dies_before_it_serves_makes_room_for_the_next(tmp_path: Path) -> None:
    async def scene_of(scene: Scene) -> None:
        await scene.begin()
        scene.first.channel.close()
        scene.replace().channel.close()
        await until(lambda: len(scene.told.lost) == 2)
        await scene.replace().serve()
        await until(lambda: scene.told.back)

    assert play(tmp_path / "log", scene_of).told.faults == []
