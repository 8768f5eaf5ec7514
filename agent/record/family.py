"""A log directory with those of its restored copies inside it: each verified, and each tied to the event it names.

Rules kept here: a stream that says it branched off another one is believed only where that very event is in the log of
its family; one that was restored before anything was on disk names none, and stands alone. A directory
without a line (its agent ended before it wrote one) is no stream.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Set
from contextlib import ExitStack
from pathlib import Path

import orjson

from agent.record.branch import DIRECTORY, parent_of
from agent.record.chain import MAX_LINE, Kind, LineError, read
from agent.record.event import Json
from agent.record.log import open_files
from agent.record.verify import Break, Report, verify


def verify_family(path: Path) -> tuple[Report, list[Report]]:
    """The report of `path`, and those of the restored streams in it, by name. Raises OSError where there is nothing to
    read."""
    report = verify(path)
    verified = {child: verify(child) for child in _children(path)}
    found = {child: each for child, each in verified.items() if each.broken is None or each.broken.kind != Kind.EMPTY}
    parents = {child: parent_of(_first(child)) for child, each in found.items() if each.ok}
    known = _hashes([path, *found], {parent.hash for parent in parents.values() if parent is not None and parent.seq})
    for child, parent in parents.items():
        if parent is None:
            found[child].broken = _wrong("its first event names no parent")
        elif parent.seq and (parent.stream, parent.seq, parent.hash) not in known:
            found[child].broken = _wrong(f"seq {parent.seq} of stream {parent.stream}, which it names, is not here")
    return report, [found[child] for child in sorted(found)]


def _wrong(message: str) -> Break:
    return Break("audit.jsonl", 1, Kind.WRONG_PARENT, message, 1)


def _children(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return [child for child in path.iterdir() if child.name.startswith(DIRECTORY) and child.is_dir()]


def _first(directory: Path) -> Mapping[str, Json]:
    line = next(_lines(directory), b"")
    try:
        return read(line).details
    except LineError:
        return {}


def _hashes(directories: list[Path], wanted: Set[str]) -> set[tuple[str, int, str]]:
    """Stream, seq and hash of the lines with these hashes."""
    found: set[tuple[str, int, str]] = set()
    for directory in directories if wanted else ():
        for line in _lines(directory):
            try:
                body = orjson.loads(line)
                place = (body["details"]["stream"], body["details"]["seq"], body["event_hash"])
            except (orjson.JSONDecodeError, KeyError, TypeError):
                continue
            if place[2] in wanted:
                found.add(place)
    return found


def _lines(directory: Path) -> Iterator[bytes]:
    with ExitStack() as stack:
        for stream in [stack.enter_context(os.fdopen(fd, "rb")) for _, fd in open_files(directory)]:
            while line := stream.readline(MAX_LINE + 1):
                yield line
