"""Proving the confinement by failing: what the launcher tries, once confined, before the session starts.

An attempt that failed as it must says nothing; one that succeeded says what it breaks. Each leaves nothing behind.
"""

from __future__ import annotations

import os
import socket

from agent.session.levels import Point
from agent.session.plan import Proofs

DIAL_SECONDS = 1.0
PRIVATE = "private"


def attempt(proofs: Proofs) -> list[tuple[str, str]]:
    """Everything that should have failed and did not, as (what it breaks, sentence). What it breaks is the value of an
    `agent.session.levels.Point`, or ``private`` for the agent's own files."""
    broken: list[tuple[str, str]] = []
    if proofs.dial is not None and _dials(proofs.dial):
        broken.append((Point.EGRESS, "a direct connection to outside the jail succeeded"))
    broken += [(Point.PATHS, f"{path} could be opened without a grant") for path in proofs.ungranted if _opens(path)]
    broken += [(PRIVATE, f"{path} could be opened by the session") for path in proofs.private if _opens(path)]
    broken += [(Point.AGENT, f"process {pid} of the agent can be signalled") for pid in proofs.signal if _signals(pid)]
    return broken


def _dials(port: int) -> bool:
    try:
        with socket.socket() as attempted:  # not create_connection: its codec can no longer be imported here
            attempted.settimeout(DIAL_SECONDS)
            attempted.connect(("127.0.0.1", port))
            return True
    except OSError:
        return False


def _opens(path: str) -> bool:
    for flags in (os.O_RDONLY, os.O_WRONLY | os.O_NONBLOCK):
        try:
            os.close(os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW))
        except OSError:
            continue
        return True
    return False


def _signals(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
