"""Exit codes of every verb, as in the contract."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What the process's status says. `run` uses them only where the session was never started."""

    OK = 0
    USAGE = 2
    DENIED = 3
    POLICY_INVALID = 4
    UNPROTECTED = 5
    AUDIT_BROKEN = 6
    UNREACHABLE = 7
    COMMAND_DENIED = 126
    COMMAND_MISSING = 127
