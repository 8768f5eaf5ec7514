"""The files that register the hook: each names the image's client with its agent's protocol, for every tool."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from agent.enforce.commands.hook_protocols import PROTOCOLS

HOOKS = Path(__file__).parents[2] / "container" / "hooks"
CLIENT = "/usr/local/lib/parhelia/parhelia-hook"


def read(name: str) -> dict[str, Any]:
    text = (HOOKS / name).read_text()
    found: dict[str, Any] = tomllib.loads(text) if name.endswith(".toml") else json.loads(text)
    return found


def commands(value: object) -> list[str]:
    """Every `command` in it."""
    match value:
        case dict():
            own = [value["command"]] if isinstance(value.get("command"), str) else []
            return own + [one for inner in value.values() for one in commands(inner)]
        case list():
            return [one for inner in value for one in commands(inner)]
        case _:
            return []


def test_every_agent_has_its_file_and_no_other_program_is_named() -> None:
    named = {name.stem: set(commands(read(name.name))) for name in HOOKS.iterdir()}
    assert named == {agent: {f"{CLIENT} {agent}"} for agent in PROTOCOLS}


def test_claude_code_runs_managed_hooks_only_for_every_tool_and_blocks_where_one_fails() -> None:
    settings = read("claude-code.json")
    (entry,) = settings["hooks"]["PreToolUse"]
    assert (settings["allowManagedHooksOnly"], entry["matcher"]) == (True, "*")
    assert [hook["onFailure"] for hook in entry["hooks"]] == ["block"]


def test_codex_runs_managed_hooks_only_for_every_tool() -> None:
    settings = read("codex.toml")
    assert (settings["allow_managed_hooks_only"], settings["features"]["hooks"]) == (True, True)
    assert [entry["matcher"] for entry in settings["hooks"]["PreToolUse"]] == ["*"]
    assert settings["hooks"]["managed_dir"] == str(Path(CLIENT).parent)


def test_gemini_asks_for_every_tool() -> None:
    settings = read("gemini.json")
    assert settings["hooksConfig"]["enabled"] is True
    assert [entry["matcher"] for entry in settings["hooks"]["BeforeTool"]] == ["*"]


def test_cursor_fails_closed_at_every_event_that_can_block() -> None:
    hooks = read("cursor.json")["hooks"]
    assert set(hooks) == {"preToolUse", "beforeShellExecution", "beforeReadFile", "beforeMCPExecution"}
    assert all(entry["failClosed"] is True for entries in hooks.values() for entry in entries)
