"""The section `tools` (a part of `agent.policy.schema`)."""

from __future__ import annotations

from typing import Final

from agent.policy.schema_common import ID, INSTEAD, MODE, REASON, SEVERITY, examples
from agent.policy.shape import Key, ListShape, RecordShape, TextShape

_TOOL: Final = TextShape(
    "A tool by the name that its coding agent gives it, such as mcp__github__*; * is any run of characters.",
    pattern=r"[^\s?\[\]{}]+",
    meant="a tool's name ('*' is the only wildcard)",
    longest=200,
)
_DENIED: Final = RecordShape(
    "A tool that may not be called.",
    (
        Key("id", ID),
        Key("tool", _TOOL, required=True),
        Key("severity", SEVERITY),
        Key("reason", REASON),
        Key("instead", INSTEAD),
        Key("examples", examples("a tool's name")),
    ),
    name="a tool rule",
    shorthand=_TOOL,
)
_ALLOWED: Final = RecordShape(
    "A tool that may be called.",
    (
        Key("id", ID),
        Key("tool", _TOOL, required=True),
        Key("reason", REASON),
        Key("examples", examples("a tool's name")),
    ),
    name="an allowed tool",
    shorthand=_TOOL,
)

TOOLS: Final = RecordShape(
    "Which tools of a coding agent may be called. What they do is decided by commands, paths and egress besides.",
    (
        Key("mode", MODE),
        Key(
            "allow",
            ListShape(
                "Tools that the agent does not know (MCP servers', plugins') and that may be called. Without this key"
                " all may; with it, no others.",
                _ALLOWED,
            ),
        ),
        Key("deny", ListShape("Tools that may not be called, built-in ones included.", _DENIED)),
    ),
    name="the section tools",
    empty=True,
)
