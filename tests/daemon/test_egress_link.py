"""The guard trusts the egress process with little: what it may not send is a fault, and a fault ends the session."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent.channel import Channel, pair
from agent.daemon.egress_link import EgressLink
from agent.record.ledger import Ledger
from agent.record.metrics import Metrics
from tests.escape.runtime import read_log

ACTOR = "session:s"
EVENT = {
    "type": "network.egress", "actor": ACTOR, "action": "CREATE", "resource": "a.test:443", "resource_type": "network",
    "result": "success", "source_ip": None, "details": {"host": "a.test"},
}  # fmt: skip
STATS = {"type": "stats", "up": 1, "down": 2, "connections": 3, "decisions": [1] + [0] * 13, "seconds": 0.5}


def exchange(directory: Path, *messages: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]], EgressLink]:
    """Send the messages as the egress process; the faults, the answers, the link."""

    async def talk() -> tuple[list[str], list[dict[str, Any]], EgressLink]:
        ours, theirs = pair()
        faults: list[str] = []
        metrics = Metrics(version="test")
        ledger = Ledger(directory, session_id="s", boot="b", metrics=metrics)
        ledger.start()
        link = EgressLink(Channel(ours), ledger, metrics, ACTOR, faults.append)
        peer = Channel(theirs)
        for message in messages:
            peer.send(message)
        answers = []
        for _ in range(100):
            await asyncio.sleep(0.01)
            theirs.setblocking(False)
            answers += [answer for answer, _ in peer.feed()]
            theirs.setblocking(True)
            if faults or len(answers) == sum(message.get("accept", False) for message in messages):
                break
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
        ({"type": "policy"}, "not allowed"),
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
