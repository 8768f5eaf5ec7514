"""The probe (`agent.session.probe`) in a process of its own: most of it is waiting, and meanwhile this one imports.

Rules kept here: imports nothing that takes time, but what the probe is made of; where the process dies there is no
offer, and so no session.
"""

from __future__ import annotations

import os
import pickle
from typing import NamedTuple

from agent.session.levels import Offer
from agent.session.probe import probe


class Probing(NamedTuple):
    """One that runs. `answer`: the end of the pipe by which it tells."""

    pid: int
    answer: int

    def offer(self) -> Offer:
        """Wait for what it found. Raises ChildProcessError where it died."""
        with open(self.answer, "rb") as pipe:
            told = pipe.read()
        _, status = os.waitpid(self.pid, 0)
        found = pickle.loads(told) if told and status == 0 else None  # noqa: S301  (from this process's fork)
        if not isinstance(found, Offer):
            raise ChildProcessError(f"the process that looks for what this machine offers has died: {status}")
        return found


def begin_probe() -> Probing:
    """Start one. To be called where there is but one thread. Raises OSError."""
    answer, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.write(tell, pickle.dumps(probe()))  # far less than a pipe holds
            status = 0
        finally:
            os._exit(status)
    os.close(tell)
    return Probing(pid, answer)
