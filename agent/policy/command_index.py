"""Command rules found by the program they are about: packs bring hundreds, and every exec is decided.

Rules kept here: what is found is exactly the rules whose `match` could fit a command of that program, in the order of
the policy; of a bare command (no redirections, variables, pipes or code from elsewhere: nearly every exec) those that
ask for none of these; what was found is remembered, for a bounded number of programs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from agent.policy.program_names import any_fits

if TYPE_CHECKING:  # the model holds an index of its own rules
    from agent.policy.model import CommandMatch, CommandRule
    from agent.policy.request import SimpleCommand

_REMEMBERED: Final = 4096


class CommandIndex:
    """Of the rules it was made of, which never change."""

    __slots__ = ("_bare_by_program", "_by_program", "_rules")

    def __init__(self, rules: Iterable[CommandRule]) -> None:
        self._rules = tuple(rules)
        self._by_program: dict[str, tuple[CommandRule, ...]] = {}
        self._bare_by_program: dict[str, tuple[CommandRule, ...]] = {}

    def about(self, command: SimpleCommand) -> tuple[CommandRule, ...]:
        """The rules that could fit `command`, those about any program included."""
        bare = not (command.redirects or command.assignments or command.piped_from or command.code_from)
        table = self._bare_by_program if bare else self._by_program
        found = table.get(command.program)
        if found is None:
            found = tuple(
                rule
                for rule in self._rules
                if _is_about(rule.match, command.program) and not (bare and _asks_for_more(rule.match))
            )
            if len(table) >= _REMEMBERED:
                table.clear()
            table[command.program] = found
        return found


def _is_about(match: CommandMatch, program: str) -> bool:
    return not match.program or any_fits(match.program, program)


def _asks_for_more(match: CommandMatch) -> bool:
    return bool(match.redirects or match.environment or match.piped_from or match.code_from)
