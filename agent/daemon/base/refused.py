"""Why a session was not started, as whatever finds it raises it while one is brought up."""

from __future__ import annotations

from agent.exits import Exit


class Refused(Exception):
    """The session was not started."""

    def __init__(self, exit_code: Exit, reason: str) -> None:
        super().__init__(reason)
        self.exit = exit_code
        self.reason = reason
