"""What was counted against the limits, as it travels to the guard and from there to a successor of this process.

Rules kept here: totals are told whole, so that the last message says all; what a successor is given counts from its
first connection on, and connections of the last minute as if they all began now: a limit may bind it longer than its
predecessor, never less. What went in the second since the last message is not known to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agent.enforce.egress.quota import Quota
from agent.policy.hosts import is_wildcard

SESSION: Final = "*"
"""The name under which the session's own rate travels; no host and no wildcard is called so."""


class Spent:
    """The accounts of `quota`, which begin with what `given` says (as from `take`). Raises TypeError, ValueError."""

    def __init__(self, quota: Quota, given: Mapping[str, list[int]]) -> None:
        self._quota = quota
        self._told: dict[str, list[int]] = {}
        for name, (up, down, recent) in given.items():
            if name == SESSION:
                quota.rate.add(quota.now(), recent)
                continue
            account = quota.wildcard(name) if is_wildcard(name) else quota.account(name)
            account.up.total += up
            account.down.total += down
            account.rate.add(quota.now(), recent)

    def take(self) -> dict[str, list[int]]:
        """What has changed since the last call: bytes up and down in all, connections of the last minute."""
        now = self._quota.now()
        found = {SESSION: [0, 0, self._quota.rate.recent(now)]}
        for name, account in self._quota.accounts():
            found[name] = [account.up.total, account.down.total, account.rate.recent(now)]
        changed = {name: numbers for name, numbers in found.items() if self._told.get(name, [0, 0, 0]) != numbers}
        self._told |= changed
        return changed
