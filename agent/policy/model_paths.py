"""The policy's section on paths, as frozen values.

Rules kept here: as in `agent.policy.model`.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.policy.model_common import NO_EXAMPLES, Examples, Mode, Where


@dataclass(frozen=True, slots=True)
class PathRule:
    """One granted or protected tree. `path` is absolute and normalised for grants, a glob tail for `protect`."""

    id: str
    path: str
    where: Where
    reason: str = ""
    instead: str = ""
    examples: Examples = NO_EXAMPLES


@dataclass(frozen=True, slots=True)
class PathSection:
    """`write_given`, `read_given` False: a further layer without that key, neutral for it."""

    mode: Mode = Mode.ENFORCE
    write: tuple[PathRule, ...] = ()
    read: tuple[PathRule, ...] = ()
    protect: tuple[PathRule, ...] = ()
    write_given: bool = True
    read_given: bool = True
