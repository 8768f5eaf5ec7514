"""What an attack is: its name, what the corpus calls it, and the verdict that each runtime must give.

Rules kept here:
- The verdict is compared with what happened in both directions: a hole that has closed fails the test as an attack
  that got through does, until the declaration says so.
- Every attack can fail: the same act must succeed right before where it is granted (`Control.INSIDE`), or outside of
  the confinement by the same account (`Control.UNCONFINED`); where neither is to be had the declaration says why.
- A hole is a sentence. What a kernel cannot show is untested, and never passed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum

RUNTIMES = ("host", "docker", "restricted", "gvisor-2022", "gvisor-2024")


class Verdict(StrEnum):
    """REFUSED: fails, and is in the log and in the counters. CONTAINED: fails in the kernel, whose refusals are not
    recorded. SEEN: happens, and is recorded. OPEN: happens, unrecorded. UNTESTED: can't be shown on this kernel."""

    REFUSED = "refused"
    CONTAINED = "contained"
    SEEN = "seen"
    OPEN = "open"
    UNTESTED = "untested"


class Control(Enum):
    """How an attack is known to be one."""

    INSIDE = "the same act succeeds where it is granted"
    UNCONFINED = "the same act succeeds outside of the confinement"


@dataclass(frozen=True, slots=True)
class Record:
    """The event of an attack: its type, its rule where it was a decision, and words that it must hold somewhere
    (``{port}``: the act's)."""

    event_type: str
    rule: str | None
    words: str


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack. `act` is its function in the group's program, `rows` are ids of the path corpus. `hole` says what is
    open and why where a verdict is OPEN, `untested` why where it is that, `control` a sentence where there is none."""

    act: str
    name: str
    verdicts: dict[str, Verdict]
    control: Control | str
    rows: tuple[int, ...] = ()
    record: Record | None = None
    hole: str = ""
    untested: str = ""

    def __post_init__(self) -> None:
        given = set(self.verdicts.values())
        assert set(self.verdicts) == set(RUNTIMES), self.act
        assert (Verdict.OPEN in given) == bool(self.hole), self.act
        assert (Verdict.UNTESTED in given) == bool(self.untested), self.act
        assert self.record is not None or not {Verdict.REFUSED, Verdict.SEEN} & given, self.act


@dataclass(frozen=True, slots=True)
class Shown:
    """Rows that another test of the suite shows: `test` is its file and name."""

    rows: tuple[int, ...]
    name: str
    test: str


@dataclass(frozen=True, slots=True)
class Group:
    """Attacks that share one session on each runtime: `program` is their file in `inside/`, with `parts` that it
    imports, `policy` what the session may, with the places of the stage in braces, `doors` the acts that dial the
    process outside, each on a port of its own."""

    name: str
    title: str
    program: str
    policy: str
    attacks: tuple[Attack, ...]
    doors: tuple[str, ...] = ()
    shown: tuple[Shown, ...] = field(default=())
    parts: tuple[str, ...] = ()


def everywhere(verdict: Verdict, **but: Verdict) -> dict[str, Verdict]:
    """The verdict on every runtime `but` (an underscore stands for a hyphen) on some; `gvisor` is both of them."""
    found = dict.fromkeys(RUNTIMES, verdict)
    for name, other in but.items():
        names = [one for one in RUNTIMES if one.startswith("gvisor")] if name == "gvisor" else [name.replace("_", "-")]
        found |= dict.fromkeys(names, other)
    return found
