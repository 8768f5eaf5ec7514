"""Events and logs for the tests of this room."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import orjson

from agent.record.chain import Head, Link, link, read
from agent.record.event import Action, Event, EventType, Json, ResourceType, Result
from agent.record.ledger import Ledger

STAMPS: dict[str, Json] = {"event_id": "e", "session_id": "s", "boot": "b", "mono_ns": "1", "policy_digest": "d"}


def denial(resource: str = "evil.test:443", **details: Json) -> Event:
    return Event(
        type=EventType.NETWORK_EGRESS_BLOCKED,
        actor="session:s",
        action=Action.CREATE,
        resource=resource,
        resource_type=ResourceType.NETWORK,
        result=Result.DENIED,
        details={"rule": "egress-default", **details},
    )


def allowed(resource: str = "api.anthropic.com:443", **details: Json) -> Event:
    return Event(
        type=EventType.NETWORK_EGRESS,
        actor="session:s",
        action=Action.CREATE,
        resource=resource,
        resource_type=ResourceType.NETWORK,
        result=Result.SUCCESS,
        details={"rule": "egress.allow[0]", **details},
    )


def chained(count: int, head: Head | None = None) -> list[bytes]:
    """`count` valid lines of one stream."""
    lines = []
    head = head or Head("stream")
    for number in range(count):
        line, head = link(
            head, allowed(f"host-{number}.test:443", n=number), STAMPS, 1_700_000_000_000_000_000 + number
        )
        lines.append(line)
    return lines


def open_ledger(directory: Path, **options: object) -> Ledger:
    """A started ledger with the usual names."""
    ledger = Ledger(directory, **{"session_id": "s", "boot": "boot-1", "policy_digest": "d", **options})  # type: ignore[arg-type]
    ledger.start()
    return ledger


def events(directory: Path) -> list[Link]:
    """Every line of the log, oldest first, each valid on its own."""
    files = [*sorted(directory.glob("audit-*.jsonl")), directory / "audit.jsonl"]
    return [read(line) for file in files if file.exists() for line in file.read_bytes().splitlines(keepends=True)]


def reforge(line: bytes, change: Callable[[dict[str, Json]], None]) -> bytes:
    """The line changed and given a matching hash again, as somebody who knows the format would."""
    import hashlib

    body = orjson.loads(line)
    change(body)
    body.pop("event_hash", None)
    digest = hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return orjson.dumps({**body, "event_hash": digest}, option=orjson.OPT_SORT_KEYS) + b"\n"


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Poll until it holds; a failure where it never does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"never happened: {what}")
        time.sleep(0.01)
