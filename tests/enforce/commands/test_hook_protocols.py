"""What each call asks. Payloads have the shapes of the agents' references; Codex's and Gemini CLI's were compared with
their sources (openai/codex codex-rs/hooks, google-gemini/gemini-cli packages/core), Claude Code's and Cursor's with
their docs only.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.enforce.commands.hook_protocols import (
    Ask,
    AskArgv,
    AskPath,
    AskText,
    AskTool,
    AskUrl,
    ProtocolError,
    permission,
    read_call,
    read_payload,
    refusal,
)
from agent.policy.request import Access

HOME = "/home/session"
CWD = "/w/project"
READ, WRITE, DELETE = Access.READ, Access.WRITE, Access.DELETE
CLAUDE = {"session_id": "s-1", "transcript_path": "/t.jsonl", "cwd": CWD, "permission_mode": "default"}
CODEX = {**CLAUDE, "model": "m", "turn_id": "t", "hook_event_name": "PreToolUse", "tool_use_id": "call_1"}
GEMINI = {"session_id": "s", "transcript_path": "/t", "cwd": CWD, "hook_event_name": "BeforeTool", "timestamp": "now"}
CURSOR = {"conversation_id": "c", "generation_id": "g", "workspace_roots": [CWD], "cursor_version": "1.7.2"}


def asked(protocol: str, payload: dict[str, Any]) -> tuple[Ask, ...]:
    """What is asked behind the tool's name."""
    first, *rest = read_call(protocol, payload, home=HOME).asks
    assert isinstance(first, AskTool)
    return tuple(rest)


def tool(name: str, given: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tool_name": name, "tool_input": given, **more}


CLAUDE_CALLS = [
    ("Bash", {"command": "ls", "description": "d", "timeout": 1000}, [AskText("ls", CWD)]),
    ("Monitor", {"command": "tail -f x", "description": "d"}, [AskText("tail -f x", CWD)]),
    ("KillShell", {"shell_id": "1"}, []),
    ("Read", {"file_path": "/etc/hosts", "offset": 1}, [AskPath(READ, "/etc/hosts")]),
    ("Read", {"file_path": "src/x.py"}, [AskPath(READ, f"{CWD}/src/x.py")]),
    ("Read", {"file_path": "~/.ssh/id"}, [AskPath(READ, f"{HOME}/.ssh/id"), AskPath(READ, f"{CWD}/~/.ssh/id")]),
    ("Write", {"file_path": f"{CWD}/a", "content": None}, [AskPath(WRITE, f"{CWD}/a")]),
    ("Edit", {"file_path": f"{CWD}/a", "old_string": "a", "new_string": "b"}, [AskPath(WRITE, f"{CWD}/a")]),
    ("MultiEdit", {"file_path": f"{CWD}/a", "edits": []}, [AskPath(WRITE, f"{CWD}/a")]),
    ("NotebookEdit", {"notebook_path": "/n.ipynb", "new_source": ""}, [AskPath(WRITE, "/n.ipynb")]),
    ("LS", {"path": "/srv"}, [AskPath(READ, "/srv")]),
    ("Glob", {"pattern": "**/*.py"}, [AskPath(READ, CWD), AskPath(READ, f"{CWD}/.")]),
    ("Glob", {"pattern": "*.py"}, [AskPath(READ, CWD)]),
    ("Glob", {"pattern": "*.py", "path": "/srv"}, [AskPath(READ, "/srv")]),
    ("Glob", {"pattern": "/root/**/*.pem"}, [AskPath(READ, "/root")]),
    ("Glob", {"pattern": "../../root/*"}, [AskPath(READ, CWD), AskPath(READ, f"{CWD}/../../root")]),
    ("Glob", {"pattern": "*/../../../root/*"}, [AskPath(READ, CWD), AskPath(READ, f"{CWD}/../../root")]),
    ("Glob", {"pattern": "**/../../root/x"}, [AskPath(READ, CWD), AskPath(READ, f"{CWD}/../../root/x")]),
    ("Glob", {"pattern": "/w/*/../../root/{a,b}"}, [AskPath(READ, "/root")]),
    ("Grep", {"pattern": "/root/x", "output_mode": "content"}, [AskPath(READ, CWD)]),
    ("Grep", {"pattern": "x", "path": "/root", "glob": "*.py"}, [AskPath(READ, "/root")]),
    ("WebFetch", {"url": "https://x.test/", "prompt": "p"}, [AskUrl("https://x.test/")]),
    ("WebSearch", {"query": "q"}, []),
    ("Agent", {"prompt": "p", "subagent_type": "x"}, []),
    ("TodoWrite", {"todos": []}, []),
    ("mcp__github__create_issue", {"title": "t"}, []),
    ("mcp__shell__run", {"command": "rm -rf /"}, [AskText("rm -rf /", CWD)]),
]


@pytest.mark.parametrize(("name", "given", "expected"), CLAUDE_CALLS)
def test_claude_code_asks_by_tool(name: str, given: dict[str, Any], expected: list[Ask]) -> None:
    payload = {**CLAUDE, **tool(name, given, hook_event_name="PreToolUse", tool_use_id="toolu_1")}
    assert asked("claude-code", payload) == tuple(expected)


CODEX_CALLS = [
    ("Bash", {"command": "cargo test"}, [AskText("cargo test", CWD)]),
    ("shell", {"command": ["bash", "-lc", "ls"], "workdir": "sub"}, [AskArgv(("bash", "-lc", "ls"), f"{CWD}/sub")]),
    (
        "apply_patch",
        {"command": "*** Begin Patch\n*** Update File: a\n*** Move to: /etc/b\n*** Delete File: c\n*** End Patch"},
        [AskPath(WRITE, f"{CWD}/a"), AskPath(WRITE, "/etc/b"), AskPath(DELETE, f"{CWD}/c")],
    ),
    ("view_image", {"path": "/root/x.png"}, [AskPath(READ, "/root/x.png")]),
    ("update_plan", {"plan": []}, []),
    ("mcp__fs__read", {"path": "/x"}, []),
]


@pytest.mark.parametrize(("name", "given", "expected"), CODEX_CALLS)
def test_codex_asks_by_tool(name: str, given: dict[str, Any], expected: list[Ask]) -> None:
    assert asked("codex", {**CODEX, **tool(name, given)}) == tuple(expected)


GEMINI_CALLS = [
    ("run_shell_command", {"command": "ls", "dir_path": "sub"}, [AskText("ls", f"{CWD}/sub")]),
    ("read_file", {"file_path": "/x", "start_line": 1}, [AskPath(READ, "/x")]),
    ("read_many_files", {"include": ["/a/*.py", "b"]}, [AskPath(READ, "/a"), AskPath(READ, f"{CWD}/b")]),
    ("write_file", {"file_path": "a", "content": "x"}, [AskPath(WRITE, f"{CWD}/a")]),
    ("replace", {"file_path": "a", "old_string": "", "new_string": ""}, [AskPath(WRITE, f"{CWD}/a")]),
    ("list_directory", {"dir_path": "/srv"}, [AskPath(READ, "/srv")]),
    ("glob", {"pattern": "*.c", "dir_path": "/srv"}, [AskPath(READ, "/srv")]),
    (
        "web_fetch",
        {"prompt": "compare https://a.test/x, http://b.test"},
        [AskUrl("https://a.test/x,"), AskUrl("http://b.test")],
    ),
    ("google_web_search", {"query": "q"}, []),
    ("mcp_github_search", {"q": "x"}, []),
]


@pytest.mark.parametrize(("name", "given", "expected"), GEMINI_CALLS)
def test_gemini_asks_by_tool(name: str, given: dict[str, Any], expected: list[Ask]) -> None:
    assert asked("gemini", {**GEMINI, **tool(name, given)}) == tuple(expected)


CURSOR_CALLS = [
    ({"hook_event_name": "beforeShellExecution", "command": "ls", "cwd": "/tmp"}, "Shell", [AskText("ls", "/tmp")]),
    ({"hook_event_name": "beforeShellExecution", "command": "ls", "cwd": ""}, "Shell", [AskText("ls", CWD)]),
    ({"hook_event_name": "beforeReadFile", "file_path": "/x", "content": "c"}, "Read", [AskPath(READ, "/x")]),
    (
        {"hook_event_name": "beforeMCPExecution", "tool_name": "search", "tool_input": '{"q": 1}', "command": "npx s"},
        "MCP:search",
        [],
    ),
    ({"hook_event_name": "preToolUse", **tool("MCP:search", {})}, "MCP:search", []),
    (
        {"hook_event_name": "preToolUse", **tool("Shell", {"command": "ls", "working_directory": "/s"})},
        "Shell",
        [AskText("ls", "/s")],
    ),
    ({"hook_event_name": "preToolUse", **tool("Delete", {"file_path": "/x"})}, "Delete", [AskPath(DELETE, "/x")]),
]


@pytest.mark.parametrize(("payload", "name", "expected"), CURSOR_CALLS)
def test_cursor_asks_by_event(payload: dict[str, Any], name: str, expected: list[Ask]) -> None:
    call = read_call("cursor", {**CURSOR, **payload}, home=HOME)
    assert (call.tool, list(call.asks[1:])) == (name, expected)


def test_an_event_of_cursor_that_is_no_call_asks_nothing() -> None:
    assert read_call("cursor", {**CURSOR, "hook_event_name": "afterFileEdit", "file_path": "/x"}, home=HOME).asks == ()


@pytest.mark.parametrize(
    ("name", "known"), [("Bash", True), ("bash", True), ("TaskList", True), ("mcp__a__bash", False), ("New", False)]
)
def test_a_tool_is_known_by_its_whole_name(name: str, known: bool) -> None:
    first = read_call("claude-code", tool(name, {"command": "ls"}), home=HOME).asks[0]
    assert first == AskTool(name, known)


def test_who_called_goes_into_the_record() -> None:
    payload = {
        **CLAUDE,
        **tool("Bash", {"command": "ls"}),
        "agent_id": "a-1",
        "agent_type": 7,
        "tool_use_id": "toolu_1",
    }
    call = read_call("claude-code", payload, home=HOME)
    assert (call.call_id, call.about) == ("toolu_1", (("agent_session", "s-1"), ("agent_id", "a-1")))


@pytest.mark.parametrize(
    ("protocol", "payload", "words"),
    [
        ("emacs", tool("Bash", {"command": "ls"}), "unknown hook protocol"),
        ("codex", {"tool_input": {}}, "tool_name is missing"),
        ("codex", tool("Bash", {"command": ""}) | {"tool_input": "ls"}, "tool_input is not an object"),
        ("codex", tool("Bash", {"command": ["ls", 1]}), "the command is missing"),
        ("codex", tool("apply_patch", {"command": "*** Begin Patch"}), "names no file"),
        ("codex", tool("apply_patch", {}), "names no file"),
        ("claude-code", tool("Write", {"file_path": ""}), "names no path"),
        ("claude-code", tool("WebFetch", {"url": None}), "the URL is missing"),
        ("cursor", {"hook_event_name": "beforeMCPExecution"}, "tool_name is missing"),
        ("cursor", {"hook_event_name": "beforeReadFile"}, "names no path"),
        ("gemini", {}, "tool_name is missing"),
    ],
)
def test_a_call_that_lacks_what_is_decided_is_malformed(protocol: str, payload: dict[str, Any], words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        read_call(protocol, payload, home=HOME)


@pytest.mark.parametrize("protocol", ["claude-code", "codex", "gemini", "cursor"])
def test_a_refusal_and_a_permission_are_json_that_the_agent_knows(protocol: str) -> None:
    denied, allowed = json.loads(refusal(protocol, 'no "way"\n')), json.loads(permission(protocol))
    spelled = {"gemini": denied.get("decision"), "cursor": denied.get("permission")}
    assert spelled.get(protocol, denied.get("hookSpecificOutput", {}).get("permissionDecision")) == "deny"
    assert allowed in ({}, {"permission": "allow"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["Bash", "Read", "Glob", "WebFetch", "apply_patch", "read_many_files", "mcp__a__b", "TodoWrite"]
)
fields = st.sampled_from(["command", "file_path", "path", "pattern", "url", "include", "cwd", "glob"])


@given(
    st.sampled_from(["claude-code", "codex", "gemini", "cursor"]),
    st.fixed_dictionaries(
        {"tool_name": names | json_values, "tool_input": st.dictionaries(fields, json_values) | json_values},
        optional={"cwd": json_values, "hook_event_name": json_values, "workspace_roots": json_values},
    ),
)
def test_any_json_is_a_call_or_malformed(protocol: str, payload: dict[str, Any]) -> None:
    try:
        call = read_call(protocol, read_payload(json.dumps(payload).encode()), home=HOME)
    except ProtocolError:
        return
    assert all(ask.path.startswith("/") for ask in call.asks if isinstance(ask, AskPath))
    assert all(ask.cwd.startswith("/") for ask in call.asks if isinstance(ask, AskText | AskArgv))
