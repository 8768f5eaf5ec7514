"""What a policy says of the session's processes as such, as frozen values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.values import dataclass

FEWEST_PROCESSES: Final = 16
"""An agent's shell and what it starts need as many; fewer is a mistake."""
LEAST_MEMORY: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What all processes of the session may take together, None where the policy does not say. `pids`: processes and
    threads at once. `memory`: bytes."""

    pids: int | None = None
    memory: int | None = None


UNLIMITED: Final = ProcessLimits()


def strictest(given: Iterable[ProcessLimits]) -> ProcessLimits:
    """Of each limit the smallest."""
    all_given = tuple(given)
    return ProcessLimits(
        min((one.pids for one in all_given if one.pids is not None), default=None),
        min((one.memory for one in all_given if one.memory is not None), default=None),
    )
