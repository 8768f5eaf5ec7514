"""The variables of a stopped exec that change what its program does, read from its memory.

Rules: only those of the table in `agent.shell.environment` are copied; every string's start is looked at, so one that
cannot be read makes the exec unreadable, as it makes execve(2) fail. A sibling thread may rewrite the environment after
it was read: what is started by a variable meets the ring at its own exec.
"""

from __future__ import annotations

from agent.enforce.memory import MAX_ARGUMENTS, MAX_STRING, Memory, readable
from agent.shell.environment import HEAD, HEADS, is_named
from agent.shell.scripts import Environment

MAX_VARIABLES = 512
"""Variables of the table that are taken (functions of bash count one each); the rest is left."""


def read_environment(memory: Memory, address: int) -> Environment:
    """The (name, value) pairs of the NULL-terminated array at `address`. Raises Unreadable."""
    if address == 0:
        return ()
    found: list[tuple[str, str]] = []
    for pointer in memory.starting(memory.pointers(address, MAX_ARGUMENTS), HEADS, HEAD):
        name, _, value = memory.string(pointer, MAX_STRING).partition(b"=")
        if is_named(readable(name)) and len(found) < MAX_VARIABLES:
            found.append((readable(name), readable(value)))
    return tuple(found)
