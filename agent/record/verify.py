"""Checks an audit log from its first line to its last, and names the first break: file, line and kind.

What it shows: an edit, a removal, a swap, a duplicate or a fork anywhere before the last line, a torn tail, a wrong
link between files. What an unsigned chain cannot show, and `UNSHOWN` says: a clean cut of the tail, or a rewrite of
everything after some point; these need a checkpoint or a replica kept elsewhere.

Files are opened before they are listed and read up to the length they had then, so a log that is being written and
rotated meanwhile is judged as it was at one moment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import orjson

from agent.record.chain import GENESIS, MAX_LINE, Kind, LineError, Link, read
from agent.record.event import EventType
from agent.record.log import CURRENT, ROTATED, open_files
from agent.values import dataclass, field

UNSHOWN = (
    "an unsigned chain cannot show a clean cut of its tail or a full rewrite; compare the head with one kept elsewhere"
)
_SETTLE_TRIES, _SETTLE_SECONDS = 5, 0.05


@dataclass(frozen=True, slots=True)
class Break:
    """Where the log stops being one chain. `line` counts from 1, 0 for the file as a whole."""

    file: str
    line: int
    kind: Kind
    message: str
    seq: int | None = None


@dataclass(slots=True)
class Report:
    """What was found. `ok` only where every line holds. `anchored`: the first line is the beginning of the stream."""

    path: str
    events: int = 0
    first_seq: int = 0
    last_seq: int = 0
    head: str = GENESIS
    stream: str = ""
    anchored: bool = True
    boots: int = 0
    gaps: int = 0
    lost: int = 0
    recovered: int = 0
    files: list[str] = field(default_factory=list)
    broken: Break | None = None

    @property
    def ok(self) -> bool:
        return self.broken is None


@dataclass(frozen=True, slots=True)
class _Line:
    file: str
    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Source:
    name: str
    stream: BinaryIO
    size: int

    def lines(self) -> Iterator[_Line]:
        """At most `MAX_LINE` + 1 bytes of each line: what is longer is no line of ours, and stays out of memory."""
        self.stream.seek(0)
        left, number, whole = self.size, 0, True
        while left > 0:
            data = self.stream.readline(min(left, MAX_LINE + 1))
            if not data:
                return
            left -= len(data)
            if whole:
                number += 1
                yield _Line(self.name, number, data)
            whole = data.endswith(b"\n")


def verify(path: Path | str) -> Report:
    """Verify a log directory, or one file of it (whose first link is then taken on trust unless it is the first).

    Raises OSError where there is no such directory or file, or it cannot be read.
    """
    for _ in range(_SETTLE_TRIES):
        report, sizes = _verify(Path(path))
        if report.broken is None or report.broken.kind is not Kind.TORN_TAIL:
            return report
        time.sleep(_SETTLE_SECONDS)
        if sizes == _sizes(Path(path)):
            return report  # nobody is in the middle of writing that line
    return report


def _verify(path: Path) -> tuple[Report, dict[str, int]]:
    with ExitStack() as stack:
        whole = path.is_dir()
        sources = _open_all(path, stack) if whole else [_open(path, stack)]
        report = Report(str(path), files=[source.name for source in sources])
        walk = _Walk(report, sources, whole)
        walk.run()
        return report, {source.name: source.size for source in sources}


def _open(path: Path, stack: ExitStack) -> _Source:
    stream = stack.enter_context(path.open("rb"))
    return _Source(path.name, stream, os.fstat(stream.fileno()).st_size)


def _open_all(directory: Path, stack: ExitStack) -> list[_Source]:
    streams = [(name, stack.enter_context(os.fdopen(fd, "rb"))) for name, fd in open_files(directory)]
    return [_Source(name, stream, os.fstat(stream.fileno()).st_size) for name, stream in streams]


def _sizes(path: Path) -> dict[str, int]:
    with ExitStack() as stack:
        sources = _open_all(path, stack) if path.is_dir() else [_open(path, stack)]
        return {source.name: source.size for source in sources}


class _Walk:
    """One pass over the lines; a second one, over the hashes, only where the first found a break."""

    def __init__(self, report: Report, sources: list[_Source], whole: bool) -> None:
        self._report = report
        self._sources = sources
        self._whole = whole
        self._boot: object = None

    def run(self) -> None:
        for source in self._sources:
            if not self._file(source):
                return
        if not self._report.events:
            self._break(_Line(CURRENT, 0, b""), Kind.EMPTY, "there is no event here", None)

    def _file(self, source: _Source) -> bool:
        named = ROTATED.fullmatch(source.name)
        for line in source.lines():
            found = self._line(line, first=line.number == 1)
            if found is None:
                return False
            if line.number == 1 and named and int(named[1]) != found.seq:
                self._break(
                    line, Kind.WRONG_FILE_LINK, f"the file's name says it begins with seq {int(named[1])}", found
                )
                return False
        return True

    def _line(self, line: _Line, *, first: bool) -> Link | None:
        if not line.data.endswith(b"\n"):
            kind = Kind.MALFORMED if len(line.data) > MAX_LINE else Kind.TORN_TAIL
            self._break(line, kind, "the line does not end in a newline, or is too long", None)
            return None
        try:
            found = read(line.data)
        except LineError as error:
            self._break(line, error.kind, str(error), error.link)
            return None
        problem = self._place(found, first)
        if problem is not None:
            self._break(line, *problem, found)
            return None
        self._accept(found)
        return found

    def _place(self, found: Link, first: bool) -> tuple[Kind, str] | None:
        """Whether the line follows the one before; what is wrong, None where it does."""
        report = self._report
        if not report.events:
            if found.seq == 1 and found.previous == GENESIS:
                return None
            moved = self._explain(found)
            if moved is not None:
                return moved
            if self._whole or found.previous == GENESIS or found.seq == 1:
                return (
                    Kind.WRONG_GENESIS,
                    f"seq {found.seq} is not the beginning of a stream: what came before is missing",
                )
            report.anchored = False
            return None
        if found.previous != report.head:
            moved = self._explain(found)
            if moved is not None:
                return moved
            if first:
                return Kind.WRONG_FILE_LINK, "the file does not go on from the last line of the one before"
            return Kind.REMOVED, f"{_missing(report.last_seq, found.seq)} between this line and the one before"
        if found.seq != report.last_seq + 1:
            return Kind.SEQ_GAP, f"seq {found.seq} follows {report.last_seq}"
        if found.stream != report.stream:
            return Kind.FOREIGN_STREAM, f"stream {found.stream} follows stream {report.stream}"
        return None

    def _explain(self, found: Link) -> tuple[Kind, str] | None:
        """Why a line that is whole in itself does not follow: what it links to stands elsewhere, or nowhere (None)."""
        places: dict[str, int] = {}
        position = -1
        for index, own in enumerate(self._hashes()):
            places.setdefault(own, index)
            if index == self._report.events:
                position = index
        if places.get(found.hash, position) < position:
            return Kind.DUPLICATED, "the same event stands further up"
        before = places.get(found.previous)
        if before is not None and before > position:
            swapped = before == position + 1
            text = "the event it follows stands " + (
                "right after it" if swapped else f"{before - position} lines below"
            )
            return (Kind.SWAPPED if swapped else Kind.REORDERED), text
        if (before is not None and before < position) or (found.previous == GENESIS and self._report.events):
            return Kind.FORKED, "a second event that follows the same earlier one"
        return None

    def _hashes(self) -> Iterator[str]:
        for source in self._sources:
            at = source.stream.tell()  # the first pass may go on from here
            for line in source.lines():
                try:
                    yield str(orjson.loads(line.data)["event_hash"])
                except (orjson.JSONDecodeError, KeyError, TypeError):
                    yield ""
            source.stream.seek(at)

    def _accept(self, found: Link) -> None:
        report = self._report
        if not report.events:
            report.first_seq, report.stream = found.seq, found.stream
        report.events += 1
        report.last_seq, report.head = found.seq, found.hash
        details = found.details
        if details["boot"] != self._boot:
            self._boot = details["boot"]
            report.boots += 1
        if details["event_type"] == EventType.AUDIT_GAP:
            lost = details.get("lost")
            report.gaps += 1
            report.lost += lost if isinstance(lost, int) else 0
        elif details["event_type"] == EventType.AUDIT_RECOVERED:
            report.recovered += 1

    def _break(self, line: _Line, kind: Kind, message: str, found: Link | None) -> None:
        self._report.broken = Break(line.file, line.number, kind, message, None if found is None else found.seq)


def _missing(last: int, seq: int) -> str:
    gone = seq - last - 1
    if gone <= 0:
        return "an event is missing or was replaced"
    return f"event {last + 1} is missing" if gone == 1 else f"events {last + 1} to {seq - 1} are missing"
