"""The guard trusts the egress process with little: what it may not send is a fault, and a fault ends the session."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from agent.channel import Channel, pair
from agent.daemon.egress.attribution import Attribution
from agent.daemon.egress.link import EgressLink
from agent.record.ledger import Ledger
from agent.record.metrics import Metrics
from tests.escape.runtime import read_log

ACTOR = "session:s"
EVENT = {
    "type": "network.egress", "actor": ACTOR, "action": "CREATE", "resource": "a.test:443", "resource_type": "network",
    "result": "success", "source_ip": None, "details": {"host": "a.test"},
}  # fmt: skip
STATS = {"type": "stats", "up": 1, "down": 2, "connections": 3, "decisions": [1] + [0] * 13, "seconds": 0.5}
STATS["accounts"] = {}


def exchange(directory: Path, *messages: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]], EgressLink]:
    """Send the messages as the egress process; the faults, the answers, the link."""

    async def talk() -> tuple[list[str], list[dict[str, Any]], EgressLink]:
        ours, theirs = pair()
        faults: list[str] = []
        metrics = Metrics(version="test")
        ledger = Ledger(directory, session_id="s", boot="b", metrics=metrics)
        ledger.start()
        attribution = Attribution(os.getpid, None, None, {os.getuid(): "tester"})
        link = EgressLink(Channel(ours), ledger, metrics, ACTOR, on_fault=faults.append, attribution=attribution)
        peer = Channel(theirs)
        for message in messages:
            peer.send(message)
        answers = []
        for _ in range(3000):
            await asyncio.sleep(0.01)
            theirs.setblocking(False)
            answers += [answer for answer, _ in peer.feed()]
            theirs.setblocking(True)
            if faults or sum("n" in answer for answer in answers) == sum(
                message.get("accept", False) for message in messages
            ):
                break
        attribution.stop()
        ledger.close()
        ours.close()
        theirs.close()
        return faults, answers, link

    return asyncio.run(talk())


def test_an_event_to_be_accepted_is_answered_and_recorded_and_numbers_are_added(tmp_path: Path) -> None:
    wanted = {"type": "event", "n": 7, "accept": True, "event": EVENT}
    faults, answers, link = exchange(tmp_path / "log", STATS, STATS, wanted)
    assert (faults, answers) == ([], [{"type": "accepted", "n": 7}])
    assert (link.bytes_up, link.bytes_down) == (2, 4)
    (event,) = read_log(tmp_path / "log")
    assert (event["details"]["event_type"], event["resource"]) == ("network.egress", "a.test:443")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"type": "event", "n": 1, "accept": False, "event": {**EVENT, "type": "session.create"}}, "not the egress"),
        ({"type": "event", "n": 1, "accept": False, "event": {**EVENT, "actor": "agent"}}, "not the egress"),
        ({"type": "event", "n": 1, "accept": False, "event": {**EVENT, "type": "no.such"}}, "no.such"),
        ({"type": "event", "n": 1, "accept": True, "event": {**EVENT, "type": "secret.inject"}}, "was not given"),
        ({"type": "event", "n": 1, "accept": True, "event": {**EVENT, "type": "secret.access"}}, "not the egress"),
        ({"type": "event", "n": 1, "accept": False, "event": {**EVENT, "result": "fine"}}, "fine"),
        ({"type": "event", "n": 1, "accept": False}, "event"),
        ({"type": "start"}, "not allowed"),
        ({"type": "policy"}, "cut"),
        ({"type": "policy", "digest": "d", "cut": 1}, "was not told of"),
        ({**STATS, "up": -1}, "goes down"),
        ({**STATS, "decisions": [1]}, "shorter"),
        ({"no": "type"}, "type"),
    ],
)
def test_what_it_may_not_send_is_a_fault_and_leaves_no_line(
    tmp_path: Path, message: dict[str, Any], reason: str
) -> None:
    faults, answers, _ = exchange(tmp_path / "log", message)
    assert len(faults) == 1
    assert reason in faults[0]
    assert answers == []
    assert read_log(tmp_path / "log") == ()


def test_an_event_names_the_process_behind_its_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the client; what the egress process said by itself is not overwritten."""
    monkeypatch.setattr("agent.daemon.egress.attribution.PATIENCE", 20.0)  # however busy this machine is
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        source, destination = list(client.getsockname()), list(client.getpeername())
        details = {**EVENT["details"], "source_port": source[1], "uid": 7}
        event = {**EVENT, "source_ip": source[0], "details": details}
        opened = {"type": "opened", "n": 3, "source": source, "destination": destination, "udp": False}
        asked = [{"type": "event", "n": n, "accept": True, "event": event} for n in range(50)]
        faults, answers, _ = exchange(tmp_path / "log", opened, *asked)
        assert faults == []
        assert [answer["n"] for answer in answers if answer["type"] == "accepted"] == [*range(50)]
    last = read_log(tmp_path / "log")[-1]["details"]
    assert (last["pid"], last["ppid"], last["user"], last["uid"]) == (os.getpid(), os.getppid(), "tester", 7)


@pytest.mark.parametrize("source", [None, [], ["127.0.0.1"], ["nowhere", 1], ["127.0.0.1", "x"], ["127.0.0.1", 1, 2]])
def test_a_connection_that_makes_no_sense_is_a_fault(tmp_path: Path, source: Any) -> None:
    opened = {"type": "opened", "n": 1, "source": source, "destination": ["127.0.0.1", 1]}
    faults, _, _ = exchange(tmp_path / "log", opened)
    assert len(faults) == 1
