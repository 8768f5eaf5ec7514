"""What the values of every section share: the mode, a place in a file, a rule's own examples.

Rules kept here: as in `agent.policy.model`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from agent.values import dataclass


class Mode(StrEnum):
    """ENFORCE refuses; OBSERVE only records what would have been refused."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a policy file, 1-based."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Examples:
    """What a rule must and must not match; checked when the policy is loaded."""

    match: tuple[str, ...] = ()
    no_match: tuple[str, ...] = ()


NO_EXAMPLES: Final = Examples()
