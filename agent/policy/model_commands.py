"""The policy's section on commands, as frozen values.

Rules kept here: as in `agent.policy.model`.
"""

from __future__ import annotations

from enum import StrEnum

from agent.policy.command_index import CommandIndex
from agent.policy.decision import Severity
from agent.policy.model_common import NO_EXAMPLES, Examples, Mode, Where
from agent.values import dataclass, field


class Unverifiable(StrEnum):
    """What happens to a command whose meaning cannot be known before it runs."""

    SUPERVISE = "supervise"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class CommandMatch:
    """What a command rule looks at. Every given key must hold; an empty tuple means the key was not given.

    `program`: base names, globs, ``<shell>`` or ``<interpreter>``; at least one fits. `subcommand`: the first operands
    in order (``("push",)``), each a glob with ``|`` between alternatives (``rm|rb``). `options`: each must be present;
    an entry is a long name without dashes (``recursive``), a short letter (``r``) or one of the semantic names of
    `agent.policy.options`, with ``|`` between alternatives, and ``NAME=GLOB`` asks for its value. `without`: options
    of which none may be present. `operands`: at least one operand matches one of these globs, after normalisation
    against cwd and home, or lies in one of these path classes (``<system>``, `agent.policy.path_classes`). `words`: at
    least one word behind the program, options included, fits as text. `redirects`: at least one redirection fits
    (``> PATTERN`` for any that writes, ``< PATTERN`` for any that reads). `environment`: at least one variable is set
    for it (``NAME`` or ``NAME=GLOB``). `piped_from`, `code_from`: at least one of these programs gives it data, or the
    code it executes.
    """

    program: tuple[str, ...] = ()
    subcommand: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    operands: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    redirects: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    piped_from: tuple[str, ...] = ()
    code_from: tuple[str, ...] = ()


class InDoubt(StrEnum):
    """What a rule says of a command that it may describe: it is unverifiable, or the rule lets it pass."""

    UNVERIFIABLE = "unverifiable"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class CommandRule:
    """One entry of `commands.deny`, of the policy's own or of a pack's. `tags` group rules for readers. `in_doubt`:
    what becomes of a command of which it is not known beforehand whether the rule describes it."""

    id: str
    match: CommandMatch
    where: Where
    severity: Severity = Severity.HIGH
    reason: str = ""
    instead: str = ""
    examples: Examples = NO_EXAMPLES
    tags: tuple[str, ...] = ()
    in_doubt: InDoubt = InDoubt.UNVERIFIABLE
    unless_from_itself: bool = False


@dataclass(frozen=True, slots=True)
class CommandSection:
    """`deny`: the layer's own rules and those of the packs that it uses. `denies`: the same, found by program."""

    mode: Mode = Mode.ENFORCE
    unverifiable: Unverifiable = Unverifiable.SUPERVISE
    deny: tuple[CommandRule, ...] = ()
    denies: CommandIndex = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "denies", CommandIndex(self.deny))
