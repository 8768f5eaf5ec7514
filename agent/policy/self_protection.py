"""The agent's own command rules: they hold with every policy, in every mode, and no exception cancels them.

They are a tripwire that gets an attempt on record. What keeps the agent out of reach is its uid, the grants of the path
guard and the seccomp filter, not these rules.
"""

from __future__ import annotations

from typing import Final

from agent.policy import rule_ids
from agent.policy.decision import Severity
from agent.policy.model import CommandMatch, CommandRule, Where
from agent.policy.paths import AGENT_FILES, HOOK_SETTINGS

WHERE: Final = Where("(built in)", 1, 1)

_PLACES: Final = tuple(f"{place}/**" for place in (*AGENT_FILES, *HOOK_SETTINGS))
_WRITERS: Final = (
    "rm",
    "rmdir",
    "unlink",
    "shred",
    "truncate",
    "mv",
    "cp",
    "install",
    "ln",
    "tee",
    "chmod",
    "chown",
    "chgrp",
    "chattr",
    "setfacl",
    "mount",
    "umount",
    "touch",
    "mkdir",
    "rsync",
    "sed",
    "dd",
)
_REASON: Final = "the agent that guards this session cannot be stopped or changed from inside it"
_INSTEAD: Final = "ask the people who run the sandbox"

RULES: Final = (
    CommandRule(
        id=f"{rule_ids.SELF_PROTECTION}-process",
        match=CommandMatch(program=("pkill", "killall", "skill"), operands=("*parhelia*", "*agent.daemon*")),
        where=WHERE,
        severity=Severity.CRITICAL,
        reason=_REASON,
        instead=_INSTEAD,
    ),
    CommandRule(
        id=f"{rule_ids.SELF_PROTECTION}-keeper",
        match=CommandMatch(program=("kill",), operands=("1",)),
        where=WHERE,
        severity=Severity.CRITICAL,
        reason=_REASON,
        instead=_INSTEAD,
    ),
    CommandRule(
        id=f"{rule_ids.SELF_PROTECTION}-files",
        match=CommandMatch(program=_WRITERS, operands=(*_PLACES, *(f"of={place}" for place in _PLACES))),
        where=WHERE,
        severity=Severity.CRITICAL,
        reason=_REASON,
        instead=_INSTEAD,
    ),
)
"""Deny rules with the same meaning as `commands.deny`."""
