"""What was permitted before, so that the same exec is not thought about twice.

Rules kept here:
- An exec is remembered by everything that its decision was made of: `Asked`. Whoever lets a decision depend on more
  makes that more a part of `Asked`, or does not remember.
- Only what was permitted without leaving a line in the log is remembered: denials, and what is only observed, are
  decided and recorded each time.
- It holds for the policy in force (that very object) and for the day, which exceptions end with.
- What is kept is bounded in number and in bytes.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from agent.enforce.commands.program import Run
from agent.policy.decision import Decision, Verdict
from agent.shell.scripts import Environment

MOST: Final = 1024
MOST_WORDS: Final = 64
MOST_BYTES: Final = 2048
"""Of one argv: longer ones are rarely repeated."""

_DAY_S: Final = 86400


class Asked(NamedTuple):
    """An exec, less the process that asks: the programs it runs with their words, where, with which variables, and
    which program calls (`CommandRequest.caller`)."""

    cwd: str
    runs: tuple[Run, ...]
    environment: Environment
    caller: str


type Moment = tuple[object, int]
"""The policy in force, and the day (UTC, since the epoch)."""


class Permitted:
    """`in_force` returns the policy in force, the same object as long as it is; None: nothing is remembered. For one
    thread only."""

    def __init__(self, in_force: Callable[[], object] | None) -> None:
        self._in_force = in_force
        self._policy: object = None
        self._day = 0
        self._asked: OrderedDict[Asked, None] = OrderedDict()

    def now(self) -> Moment | None:
        """To be taken before the decision begins."""
        return None if self._in_force is None else (self._in_force(), int(time.time() // _DAY_S))

    def holds(self, asked: Asked, moment: Moment | None) -> bool:
        """Was this permitted, by the policy and on the day of `moment`?"""
        if moment is None:
            return False
        policy, day = moment
        if policy is not self._policy or day != self._day:
            self._asked.clear()
            self._policy, self._day = policy, day
        if asked not in self._asked:
            return False
        self._asked.move_to_end(asked)
        return True

    def add(self, asked: Asked, moment: Moment | None) -> None:
        """It was permitted; forgotten where policy or day changed since `moment`."""
        if moment is None or not _is_short(asked):
            return
        policy, day = moment
        present = self.now()
        if present is None or present[0] is not policy or present[1] != day or policy is not self._policy:
            return
        self._asked[asked] = None
        if len(self._asked) > MOST:
            self._asked.popitem(last=False)


def leaves_no_line(decision: Decision) -> bool:
    """True for what runs without a word in the log."""
    return decision.verdict is Verdict.ALLOW or (decision.verdict is Verdict.UNVERIFIABLE and decision.supervised)


def _is_short(asked: Asked) -> bool:
    words = [word for run in asked.runs for word in run.argv]
    named = sum(len(name) + len(value) for name, value in asked.environment)
    return len(words) <= MOST_WORDS and named + sum(map(len, words)) <= MOST_BYTES
