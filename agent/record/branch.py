"""A chain that goes on in a new one: the stream of an agent that was restored from a checkpoint.

Rules kept here: a stream that began so names its parent in its first event, by stream, seq and hash of the last event
that was on disk; what had been taken and was not on disk yet is written again behind it, under a place of its own, and
says which place it had; nothing of it is ever added to the parent. So however often one checkpoint is restored, each
time is a stream of its own, and all of them lead back to the same event.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from agent.record.chain import Head
from agent.record.event import Action, Event, EventType, Json, ResourceType, Result
from agent.record.stamps import STAMPS
from agent.values import dataclass

DIRECTORY = "restored-"
"""How the directory of such a stream begins, inside that of its ancestor; the boot follows."""


@dataclass(frozen=True, slots=True)
class Parent:
    """Where a stream branched off. `seq` 0: nothing of the parent was on disk."""

    stream: str
    seq: int
    hash: str
    boot: str


def began(head: Head, boot: str, details: Mapping[str, Json]) -> Event:
    """The first event of the new stream. `head`: the last event on disk; `details`: why, and what else is known."""
    parent: dict[str, Json] = {
        "parent_stream": head.stream,
        "parent_seq": head.seq,
        "parent_hash": head.hash,
        "parent_boot": boot,
    }
    return Event(
        type=EventType.AGENT_START,
        actor="agent",
        action=Action.CREATE,
        resource="parhelia-agent",
        resource_type=ResourceType.AGENT,
        result=Result.SUCCESS,
        details={**details, **parent},
    )


def again(line: bytes) -> Event:
    """The event of a line that did not reach the disk, to be written in the new stream."""
    body = orjson.loads(line)
    details = {name: value for name, value in body["details"].items() if name not in STAMPS}
    was: dict[str, Json] = {name: body["details"][name] for name in ("stream", "seq", "event_id")}
    return Event(
        type=EventType(body["details"]["event_type"]),
        actor=body["actor"],
        action=Action(body["action"]),
        resource=body["resource"],
        resource_type=ResourceType(body["resource_type"]),
        result=Result(body["result"]),
        source_ip=body["source_ip"],
        details={**details, "written_again": {**was, "timestamp": body["timestamp"]}},
    )


def parent_of(details: Mapping[str, Json]) -> Parent | None:
    """The parent that the first event of a stream names, None where it names none."""
    stream, seq, digest, boot = (details.get(f"parent_{name}") for name in ("stream", "seq", "hash", "boot"))
    if isinstance(stream, str) and type(seq) is int and isinstance(digest, str) and isinstance(boot, str):
        return Parent(stream, seq, digest, boot)
    return None
