"""The section `control` (a part of `agent.policy.schema`)."""

from __future__ import annotations

from typing import Final

from agent.policy.shape import Key, ListShape, RecordShape, TextShape

_NAME: Final = TextShape(
    "An account of the machine, or group:NAME for the members of a group.",
    pattern=r"(group:)?[A-Za-z_][A-Za-z0-9_.-]*[$]?",
    meant="an account's name, or group:NAME",
    longest=100,
)

CONTROL: Final = RecordShape(
    "Who may ask a running agent for what, over its control socket, besides root and the agent's own account.",
    (
        Key("admin", ListShape("Everything.", _NAME)),
        Key("operator", ListShape("Session management: exec, lockdown; and what viewers may.", _NAME)),
        Key("viewer", ListShape("Reading: status.", _NAME)),
    ),
    name="the section control",
    empty=True,
)
