"""The launcher, started before the guard knows what to tell it: its interpreter comes up while the guard's own does.

It waits for its plan and has done nothing yet; where none comes it ends with the guard's end of the channel.
Rules kept here: imports nothing that takes time.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from agent.channel import Channel, pair


class Waiting(NamedTuple):
    """A launcher that waits for its plan. `keeper`: the other end of a channel of the keeper's, which it will be handed
    as the session's init."""

    pid: int
    channel: Channel
    keeper: int


def start_launcher() -> tuple[int, Channel]:
    """Start one, as a child of this process and of the calling thread: its process id, and the channel to it. Raises
    OSError."""
    ours, theirs = pair()
    os.set_inheritable(theirs.fileno(), True)
    argv = [sys.executable, "-I", "-m", "agent.session.launch", "--channel", str(theirs.fileno())]
    try:
        return os.posix_spawn(sys.executable, argv, dict(os.environ)), Channel(ours)
    finally:
        theirs.close()
