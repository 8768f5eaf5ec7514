"""Command rules found by the program they are about: packs bring hundreds, and every exec is decided.

Rules kept here: what is found is exactly the rules whose `match` could fit a command of that program, in the order of
the policy; what was found is remembered, for a bounded number of programs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from agent.policy.program_names import any_fits

if TYPE_CHECKING:  # the model holds an index of its own rules
    from agent.policy.model import CommandRule

_REMEMBERED: Final = 4096


class CommandIndex:
    """Of the rules it was made of, which never change."""

    __slots__ = ("_by_program", "_rules")

    def __init__(self, rules: Iterable[CommandRule]) -> None:
        self._rules = tuple(rules)
        self._by_program: dict[str, tuple[CommandRule, ...]] = {}

    def about(self, program: str) -> tuple[CommandRule, ...]:
        """The rules about `program`, those about any program included."""
        found = self._by_program.get(program)
        if found is None:
            found = tuple(rule for rule in self._rules if _is_about(rule, program))
            if len(self._by_program) >= _REMEMBERED:
                self._by_program.clear()
            self._by_program[program] = found
        return found


def _is_about(rule: CommandRule, program: str) -> bool:
    return not rule.match.program or any_fits(rule.match.program, program)
