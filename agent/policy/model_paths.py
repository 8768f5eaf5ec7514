"""The policy's section on paths, as frozen values.

Rules kept here: as in `agent.policy.model`.
"""

from __future__ import annotations

from enum import StrEnum

from agent.policy.model_common import NO_EXAMPLES, Examples, Mode, Where
from agent.values import dataclass, field


@dataclass(frozen=True, slots=True)
class PathRule:
    """One granted, protected, watched or sensitive tree. `path` is absolute and normalised for grants and what is
    sensitive; for `protect` and `watch` a
    glob tail, an absolute glob, or one below the session's home (``~/.bashrc``)."""

    id: str
    path: str
    where: Where
    reason: str = ""
    instead: str = ""
    examples: Examples = NO_EXAMPLES


class Audited(StrEnum):
    """Which file accesses are put on record where they are denied, whoever makes them. WRITES: every call that would
    change a file by its path stops for it. READS: those of files that are named sensitive (agent.policy.sensitive),
    which alone stop; of all others there are too many."""

    WRITES = "writes"
    READS = "reads"


@dataclass(frozen=True, slots=True)
class PathSection:
    """`protect`: never written; `watch`: written, and changes recorded. `write_given`, `read_given` False: a further
    layer without that key, neutral for it. `audit`: which denials are recorded; `sensitive`: of reads, those of these
    files and trees besides the known ones. `protected`: the patterns of `protect`."""

    mode: Mode = Mode.ENFORCE
    write: tuple[PathRule, ...] = ()
    read: tuple[PathRule, ...] = ()
    protect: tuple[PathRule, ...] = ()
    watch: tuple[PathRule, ...] = ()
    write_given: bool = True
    read_given: bool = True
    audit: frozenset[Audited] = frozenset()
    sensitive: tuple[PathRule, ...] = ()
    protected: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "protected", tuple(rule.path for rule in self.protect))
