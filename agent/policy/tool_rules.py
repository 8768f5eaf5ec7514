"""Tools of coding agents in a policy: the section `tools` as values.

Rules kept here: a tool is named as its coding agent names it (``mcp__github__create_issue``), case aside; what a tool
does to commands, paths and hosts is decided by the sections for those, whatever is said here.
"""

from __future__ import annotations

from agent.policy.decision import Severity
from agent.policy.globs import match_segment
from agent.policy.model import Examples, Mode, Where
from agent.values import dataclass, field


@dataclass(frozen=True, slots=True)
class ToolRule:
    """One entry of `tools.allow` or `tools.deny`. `tool`: a name, with ``*`` for any run of characters."""

    id: str
    tool: str
    where: Where
    severity: Severity = Severity.MEDIUM
    reason: str = ""
    instead: str = ""
    examples: Examples = field(default_factory=Examples)

    def fits(self, name: str) -> bool:
        """Is this tool meant?"""
        return match_segment(self.tool.casefold(), name.casefold())

    def covers(self, other: ToolRule) -> bool:
        """Does this rule mean every tool that the other one means? A wildcard of its stands for the other's too."""
        return self.fits(other.tool)


@dataclass(frozen=True, slots=True)
class ToolSection:
    """`allow` None: not given, every tool may be called. Given: those that the agent does not know need an entry."""

    mode: Mode = Mode.ENFORCE
    allow: tuple[ToolRule, ...] | None = None
    deny: tuple[ToolRule, ...] = ()
