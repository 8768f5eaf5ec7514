"""The events of a log after a known one: for a writer that takes another one's place and must go on counting.

A line that is not whole, or that is none of ours, is passed over: what is wrong with a log is `agent.record.verify`'s
to say, and the writer's own recovery's.
"""

from __future__ import annotations

import json
import os
from collections import deque
from pathlib import Path

from agent.record.event import Event, event_of
from agent.record.log import lines_backwards, open_files


def events_after(directory: Path, seq: int) -> list[Event]:
    """Those of the log in `directory` whose number is higher than `seq`, oldest first. Raises OSError."""
    found: deque[Event] = deque()
    files = [fd for _, fd in open_files(directory)]
    try:
        for fd in reversed(files):
            for start, end in lines_backwards(fd, os.fstat(fd).st_size):
                number, event = _parsed(os.pread(fd, end - start, start))
                if 0 < number <= seq:
                    return list(found)
                if event is not None:
                    found.appendleft(event)
    finally:
        for fd in files:
            os.close(fd)
    return list(found)


def _parsed(line: bytes) -> tuple[int, Event | None]:
    """(its number or 0, the event)."""
    try:
        fields = json.loads(line)
        details = fields["details"]
        return int(details["seq"]), event_of({**fields, "type": details["event_type"]})
    except (ValueError, KeyError, TypeError):
        return 0, None
