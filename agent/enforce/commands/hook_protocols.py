"""The pre-tool hook protocols of coding agents: what a call asks, and how the answer is spelled.

Rules: a call of a known tool that lacks what the decision needs is malformed (and so denied); a tool that neither runs
a command, touches a file nor fetches a URL here (MCP tools, task lists, web search) asks nothing and is allowed in this
version; an allow never says "allow" where that would skip the agent's own permission prompts; a denial is exit status 2
with the reason on stderr, which every version of each protocol below takes for a block, and the protocol's own JSON.

Sources: the hooks references of Claude Code (PreToolUse), Gemini CLI (BeforeTool), Codex CLI (PreToolUse) and Cursor
(beforeShellExecution, beforeReadFile, preToolUse).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from agent.policy.request import Access

PROTOCOLS = ("claude-code", "codex", "gemini", "cursor")

type Payload = Mapping[str, object]


class ProtocolError(Exception):
    """The call cannot be read; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class AskText:
    """May this shell text run in `cwd`?"""

    text: str
    cwd: str


@dataclass(frozen=True, slots=True)
class AskArgv:
    """May this argument list run in `cwd`?"""

    argv: tuple[str, ...]
    cwd: str


@dataclass(frozen=True, slots=True)
class AskPath:
    """May this path (absolute, symlinks not yet resolved) be accessed?"""

    access: Access
    path: str


@dataclass(frozen=True, slots=True)
class AskUrl:
    """May this URL be fetched?"""

    url: str


type Ask = AskText | AskArgv | AskPath | AskUrl


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call. No asks: nothing to decide. `about`: who made it, as the coding agent says."""

    tool: str
    asks: tuple[Ask, ...]
    call_id: str | None = None
    about: tuple[tuple[str, str], ...] = ()


class _Kind(StrEnum):
    RUN = "run"
    READ = "read"
    SEARCH = "search"
    WRITE = "write"
    PATCH = "patch"
    FETCH = "fetch"


def _kinds(**names: str) -> Mapping[str, _Kind]:
    return MappingProxyType({name: _Kind(kind) for kind, text in names.items() for name in text.split()})


_TOOLS = _kinds(
    run="bash shell local_shell run_shell_command exec_command execute_command launch-process unified_exec",
    read="read notebookread read_file read_many_files view",
    search="glob grep ls list_directory list_dir search_file_content grep_search",
    write="write edit multiedit notebookedit write_file replace edit_file strreplace search_replace tabwrite delete",
    patch="apply_patch",
    fetch="webfetch web_fetch",
)
ABOUT: Mapping[str, str] = MappingProxyType(
    {"session_id": "agent_session", "agent_id": "agent_id", "agent_type": "agent_type"}
)
"""What of a payload goes into the record, and under which name there (`session_id` of the log is the agent's own)."""
_PATH_FIELDS = ("file_path", "notebook_path", "absolute_path", "path", "target_file")
_PATCH_LINE = re.compile(r"^\*\*\* (?:(Add|Update|Delete) File|Move to): (.+)$", re.MULTILINE)
_URL = re.compile(r"https?://[^\s\"'<>)\]}]+")


def read_payload(data: bytes) -> Payload:
    """The JSON object that a coding agent gave its hook. Raises ProtocolError."""
    try:
        payload = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ProtocolError("it is not JSON") from error
    if not isinstance(payload, dict):
        raise ProtocolError("it is not a JSON object")
    return payload


def read_call(protocol: str, payload: Payload, *, default_cwd: str) -> Call:
    """The tool call in `payload`. Raises ProtocolError where it is malformed."""
    if protocol not in PROTOCOLS:
        raise ProtocolError(f"unknown hook protocol {protocol!r}")
    cwd = _directory(payload, default_cwd)
    event = payload.get("hook_event_name")
    if protocol == "cursor" and event in ("beforeShellExecution", "beforeReadFile"):
        return _call("Shell" if event == "beforeShellExecution" else "Read", payload, payload, cwd)
    if protocol == "cursor" and isinstance(event, str) and event != "preToolUse":
        return Call(event, ())
    tool: object = payload.get("tool_name")
    given: object = payload.get("tool_input", {})
    if not isinstance(tool, str) or not tool:
        raise ProtocolError("tool_name is missing")
    if not isinstance(given, dict):
        raise ProtocolError("tool_input is not an object")
    return _call(tool, given, payload, cwd)


def refusal(protocol: str, message: str) -> str:
    """The protocol's JSON for a denial."""
    match protocol:
        case "cursor":
            answer: dict[str, object] = {
                "permission": "deny",
                "continue": True,
                "user_message": message,
                "agent_message": message,
                "userMessage": message,
                "agentMessage": message,
            }
        case "gemini":
            answer = {"decision": "deny", "reason": message}
        case _:
            answer = {
                "hookSpecificOutput": {
                    "hookEventName": "PreToolUse",
                    "permissionDecision": "deny",
                    "permissionDecisionReason": message,
                }
            }
    return json.dumps(answer)


def permission(protocol: str) -> str:
    """The protocol's JSON for "no objection": it leaves the agent's own permission prompts in force."""
    return json.dumps({"permission": "allow"} if protocol == "cursor" else {})


def _call(tool: str, given: Payload, payload: Payload, cwd: str) -> Call:
    kind = _TOOLS.get(tool.lower())
    found: tuple[Ask, ...]
    match kind:
        case _Kind.RUN:
            found = (_command(given, cwd),)
        case _Kind.READ | _Kind.WRITE:
            access = Access.READ if kind is _Kind.READ else Access.WRITE
            access = Access.DELETE if tool.lower() == "delete" else access
            found = tuple(AskPath(access, _joined(cwd, path)) for path in _paths(tool, given))
        case _Kind.SEARCH:
            found = (AskPath(Access.READ, _searched(given, cwd)),)
        case _Kind.PATCH:
            found = _patched(given, cwd)
        case _Kind.FETCH:
            found = _fetched(given)
        case None:
            found = ()
    call_id = payload.get("tool_use_id")
    about = tuple((key, value) for name, key in ABOUT.items() if isinstance(value := payload.get(name), str) and value)
    return Call(tool, found, call_id if isinstance(call_id, str) else None, about)


def _directory(payload: Payload, default: str) -> str:
    roots = payload.get("workspace_roots")
    candidates = [payload.get("cwd"), roots[0] if isinstance(roots, list) and roots else None]
    return next((value for value in candidates if isinstance(value, str) and value.startswith("/")), default)


def _command(given: Payload, cwd: str) -> Ask:
    command = given.get("command", given.get("cmd"))
    for field in ("workdir", "directory", "dir_path", "cwd"):
        place = given.get(field)
        if isinstance(place, str) and place:
            cwd = _joined(cwd, place)
            break
    if isinstance(command, str):
        return AskText(command, cwd)
    if isinstance(command, list) and command and all(isinstance(word, str) for word in command):
        return AskArgv(tuple(command), cwd)
    raise ProtocolError("the command is missing")


def _paths(tool: str, given: Payload) -> list[str]:
    for field in _PATH_FIELDS:
        value = given.get(field)
        if isinstance(value, str) and value:
            return [value]
    many = given.get("paths", given.get("include"))
    if isinstance(many, list) and many and all(isinstance(path, str) and path for path in many):
        return [_fixed(path) for path in many]
    raise ProtocolError(f"{tool} names no path")


def _searched(given: Payload, cwd: str) -> str:
    base = next((v for f in ("path", "dir_path", "directory") if isinstance(v := given.get(f), str) and v), cwd)
    pattern = given.get("pattern") if "output_mode" not in given and "glob" not in given else None
    base = _joined(cwd, base)
    return _joined(base, _fixed(pattern)) if isinstance(pattern, str) and "/" in pattern else base


def _fixed(pattern: str) -> str:
    """The directories of a glob before its first wildcard."""
    head = re.split(r"[*?\[{]", pattern, maxsplit=1)[0]
    return head if head == pattern else head.rpartition("/")[0] or ("/" if pattern.startswith("/") else ".")


def _patched(given: Payload, cwd: str) -> tuple[Ask, ...]:
    patch = next((v for f in ("command", "input", "patch") if (v := given.get(f)) is not None), None)
    text = patch if isinstance(patch, str) else "\n".join(map(str, patch)) if isinstance(patch, list) else ""
    found = tuple(
        AskPath(Access.DELETE if match[1] == "Delete" else Access.WRITE, _joined(cwd, match[2].strip()))
        for match in _PATCH_LINE.finditer(text)
    )
    if not found:
        raise ProtocolError("the patch names no file")
    return found


def _fetched(given: Payload) -> tuple[Ask, ...]:
    url = given.get("url")
    if isinstance(url, str) and url:
        return (AskUrl(url),)
    prompt = given.get("prompt")
    if not isinstance(prompt, str):
        raise ProtocolError("the URL is missing")
    return tuple(AskUrl(found) for found in _URL.findall(prompt))


def _joined(cwd: str, path: str) -> str:
    return path if path.startswith("/") else f"{cwd.rstrip('/')}/{path}"
