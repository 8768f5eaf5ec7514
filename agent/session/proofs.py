"""Proving the confinement by failing: what the launcher tries, once confined, before the session starts.

An attempt that failed as it must says nothing; one that succeeded says what it breaks. Each leaves nothing behind. The
canaries outside are tried here and judged by the guard (agent.daemon.launch.canary): a connection that is captured
succeeds here and arrives at the egress process.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from agent.session.levels import Point
from agent.session.plan import Proofs, Target

DIAL_SECONDS = 1.0
PRIVATE = "private"


def attempt(proofs: Proofs) -> list[tuple[str, str]]:
    """Everything that should have failed and did not, as (what it breaks, sentence). What it breaks is the value of an
    `agent.session.levels.Point`, or ``private`` for the agent's own files."""
    for target in proofs.dial:
        _dial(target, proofs.token.encode())
    broken: list[tuple[str, str]] = []
    broken += [(Point.PATHS, f"{path} could be opened without a grant") for path in proofs.ungranted if _opens(path)]
    broken += [
        (Point.PATHS, f"{path} is protected and could be opened for writing")
        for path in proofs.protected
        if _opens_to_write(path)
    ]
    broken += [(PRIVATE, f"{path} could be opened by the session") for path in proofs.private if _opens(path)]
    broken += [(Point.AGENT, f"process {pid} of the agent can be signalled") for pid in proofs.signal if _signals(pid)]
    return broken


def _dial(target: Target, token: bytes) -> None:
    """Try to get the token there. No create_connection: its codec can no longer be imported here."""
    kind, address, port = target
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as sock:
        sock.settimeout(DIAL_SECONDS)
        sock.connect((address, port))
        sock.send(token)


def _opens(path: str) -> bool:
    return _opens_with(path, os.O_RDONLY, os.O_WRONLY | os.O_NONBLOCK)


def _opens_to_write(path: str) -> bool:
    """A directory is no file to be opened for writing: there, a file without a name is made (O_TMPFILE, open(2))."""
    return _opens_with(path, os.O_WRONLY | os.O_NONBLOCK, os.O_TMPFILE | os.O_WRONLY)


def _opens_with(path: str, *ways: int) -> bool:
    for flags in ways:
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
