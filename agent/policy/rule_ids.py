"""The rule ids that are the agent's own: what a decision is named after where no rule of a policy decided.

A policy cannot use these names. Ids of shorthands are their place (``egress.allow[0]``): the position in the list of
the whole layer, its files taken in the order of their names, entries with ids of their own counted too. They hold a
bracket, which no id of a policy may.
"""

from __future__ import annotations

from typing import Final

EGRESS_DEFAULT: Final = "egress-default"
EGRESS_ADDRESS: Final = "egress-address"
COMMANDS_DEFAULT: Final = "commands-default"
COMMANDS_UNVERIFIABLE: Final = "commands-unverifiable"
PATHS_DEFAULT: Final = "paths-default"
PATHS_ALWAYS: Final = "paths-always"
TOOLS_DEFAULT: Final = "tools-default"
TOOLS_UNLISTED: Final = "tools-unlisted"
AGENT_FILES: Final = "agent-files"
HOOK_SETTINGS: Final = "hook-settings"
SELF_PROTECTION: Final = "self-protection"
LOCKDOWN: Final = "lockdown"
AGENT_FAULT: Final = "agent-fault"
AUDIT_UNAVAILABLE: Final = "audit-unavailable"

RESERVED: Final = frozenset(
    {
        EGRESS_DEFAULT,
        EGRESS_ADDRESS,
        COMMANDS_DEFAULT,
        COMMANDS_UNVERIFIABLE,
        PATHS_DEFAULT,
        PATHS_ALWAYS,
        TOOLS_DEFAULT,
        TOOLS_UNLISTED,
        AGENT_FILES,
        HOOK_SETTINGS,
        LOCKDOWN,
        AGENT_FAULT,
        AUDIT_UNAVAILABLE,
    }
)


def is_reserved(rule: str) -> bool:
    """May a policy not use this id?"""
    return rule in RESERVED or rule.startswith(SELF_PROTECTION)


def by_place(section: str, key: str, index: int) -> str:
    """The id of a rule that has none of its own."""
    return f"{section}.{key}[{index}]"


def is_by_place(rule: str) -> bool:
    """Is the id a place, which moves when entries are added before it?"""
    return "[" in rule


def is_of_bundle(rule: str) -> bool:
    """Is the rule of a bundle (``github/web``) or of a tool's configuration (``pip[0]``)? No id of a policy's own file
    holds a slash, and their places start with the section."""
    return "/" in rule or (is_by_place(rule) and not rule.startswith(("egress.", "commands.", "paths.", "tools.")))
