"""The pre-tool hook protocols of coding agents: what a call asks, and how the answer is spelled.

Rules: every call asks whether its tool may be called at all; a call of a known tool that lacks what the decision needs
is malformed (and so denied); a tool that is not known and has a command's text is asked about like a shell; a relative
path is below the call's directory, and one that begins with ``~`` is asked about in both readings; an allow never says
"allow" where that would skip the agent's own permission prompts; a denial is exit status 2 with the reason on stderr,
which every version of each protocol below takes for a block, and the protocol's own JSON.

Sources: the hooks references of Claude Code (PreToolUse), Gemini CLI (BeforeTool), Codex CLI (PreToolUse) and Cursor
(beforeShellExecution, beforeReadFile, beforeMCPExecution, preToolUse).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType

from agent.enforce.commands.hook_tools import Kind, kind_of
from agent.policy.request import Access
from agent.values import dataclass

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


@dataclass(frozen=True, slots=True)
class AskTool:
    """May this tool be called? `known`: what it does is asked about besides."""

    tool: str
    known: bool


type Ask = AskText | AskArgv | AskPath | AskUrl | AskTool


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call. `about`: who made it, as the coding agent says."""

    tool: str
    asks: tuple[Ask, ...]
    call_id: str | None = None
    about: tuple[tuple[str, str], ...] = ()


ABOUT: Mapping[str, str] = MappingProxyType(
    {"session_id": "agent_session", "agent_id": "agent_id", "agent_type": "agent_type"}
)
"""What of a payload goes into the record, and under which name there (`session_id` of the log is the agent's own)."""
_CURSOR_EVENTS: Mapping[str, str] = MappingProxyType(
    {"beforeShellExecution": "Shell", "beforeReadFile": "Read", "beforeTabFileRead": "Read", "beforeMCPExecution": ""}
)
"""Cursor's events that are a tool's call in themselves, and that tool."""
_PATH_FIELDS = ("file_path", "notebook_path", "absolute_path", "path", "target_file", "target_notebook")
_GLOB_FIELDS = ("pattern", "glob_pattern")
_WILD = re.compile(r"[*?\[{]")
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


def read_call(protocol: str, payload: Payload, *, home: str) -> Call:
    """The tool call in `payload`. `home` is the session's, and the directory of a call that names none. Raises
    ProtocolError where it is malformed."""
    if protocol not in PROTOCOLS:
        raise ProtocolError(f"unknown hook protocol {protocol!r}")
    here = _Here(_directory(payload, home), home)
    event = payload.get("hook_event_name")
    if protocol == "cursor" and isinstance(event, str) and event in _CURSOR_EVENTS:
        return _cursor_call(event, payload, here)
    tool: object = payload.get("tool_name")
    if protocol == "cursor" and tool is None and isinstance(event, str):
        return Call(event, ())  # an event of another time: there is no tool in it
    given: object = payload.get("tool_input", {})
    if not isinstance(tool, str) or not tool:
        raise ProtocolError("tool_name is missing")
    if not isinstance(given, dict):
        raise ProtocolError("tool_input is not an object")
    return _call(tool, given, payload, here)


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


@dataclass(frozen=True, slots=True)
class _Here:
    """Where a call stands."""

    cwd: str
    home: str

    def readings(self, path: str) -> tuple[str, ...]:
        """The absolute paths that the words may mean: some tools take ``~`` for the home, others as a name."""
        plain = path if path.startswith("/") else f"{self.cwd.rstrip('/')}/{path}"
        if path == "~" or path.startswith("~/"):
            return (self.home + path[1:], plain)
        return (plain,)

    def below(self, path: str) -> _Here:
        return _Here(self.readings(path)[0], self.home)


def _cursor_call(event: str, payload: Payload, here: _Here) -> Call:
    """An event of Cursor that is about one kind of tool. An MCP server's tool is named as in `preToolUse`."""
    tool = _CURSOR_EVENTS[event]
    if tool:
        return _call(tool, payload, payload, here)
    name = payload.get("tool_name")
    if not isinstance(name, str) or not name:
        raise ProtocolError("tool_name is missing")
    return _call(name if name.startswith("MCP:") else f"MCP:{name}", {}, payload, here)


def _call(tool: str, given: Payload, payload: Payload, here: _Here) -> Call:
    kind = kind_of(tool)
    found: tuple[Ask, ...]
    match kind:
        case Kind.RUN:
            found = (_command(given, here),)
        case Kind.READ | Kind.WRITE:
            access = Access.READ if kind is Kind.READ else Access.WRITE
            access = Access.DELETE if tool.lower() in ("delete", "delete_file") else access
            found = tuple(AskPath(access, path) for one in _paths(tool, given) for path in here.readings(one))
        case Kind.SEARCH:
            found = tuple(AskPath(Access.READ, path) for path in _searched(given, here))
        case Kind.PATCH:
            found = _patched(given, here)
        case Kind.FETCH:
            found = _fetched(given)
        case Kind.NOTHING:
            found = ()
        case None:
            found = (_command(given, here),) if isinstance(given.get("command"), str) else ()
    call_id = payload.get("tool_use_id")
    about = tuple((key, value) for name, key in ABOUT.items() if isinstance(value := payload.get(name), str) and value)
    asks = (AskTool(tool, kind is not None), *found)
    return Call(tool, asks, call_id if isinstance(call_id, str) else None, about)


def _directory(payload: Payload, default: str) -> str:
    roots = payload.get("workspace_roots")
    candidates = [payload.get("cwd"), roots[0] if isinstance(roots, list) and roots else None]
    return next((value for value in candidates if isinstance(value, str) and value.startswith("/")), default)


def _command(given: Payload, here: _Here) -> Ask:
    command = given.get("command", given.get("cmd"))
    for field in ("workdir", "directory", "dir_path", "cwd", "working_directory"):
        place = given.get(field)
        if isinstance(place, str) and place:
            here = here.below(place)
            break
    if isinstance(command, str):
        return AskText(command, here.cwd)
    if isinstance(command, list) and command and all(isinstance(word, str) for word in command):
        return AskArgv(tuple(command), here.cwd)
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


def _searched(given: Payload, here: _Here) -> tuple[str, ...]:
    """Where a search begins: its directory, and for a glob of files the directories before the first wildcard."""
    fields = ("path", "dir_path", "directory", "target_directory", "glob_pattern_directory")
    base = next((value for field in fields if isinstance(value := given.get(field), str) and value), "")
    places = here.readings(base) if base else (here.cwd,)
    if "output_mode" in given or "glob" in given:  # Grep: the pattern is a regular expression
        return places
    pattern = next((value for field in _GLOB_FIELDS if isinstance(value := given.get(field), str) and value), "")
    if "/" not in pattern and ".." not in pattern:
        return places
    fixed = _fixed(pattern)
    if fixed.startswith("/"):
        return (fixed,)
    return tuple(path for place in places for path in (place, *_Here(place, here.home).readings(fixed)))


def _fixed(pattern: str) -> str:
    """The directories of a glob before its first wildcard, once every ``..`` behind a wildcard is taken back:
    ``*/../..`` is one above. ``**`` may be no directory at all."""
    kept: list[str] = []
    pieces = pattern.split("/")
    for piece in pieces:
        if piece == ".." and kept and kept[-1] != "..":
            kept.pop()
        elif piece not in ("", ".", "**"):
            kept.append(piece)
        elif piece == "**":
            kept += [] if ".." in pieces else ["*"]
    wild = next((index for index, piece in enumerate(kept) if _WILD.search(piece)), len(kept))
    head = "/".join(kept[:wild])
    return f"/{head}" if pattern.startswith("/") else head or "."


def _patched(given: Payload, here: _Here) -> tuple[Ask, ...]:
    patch = next((v for f in ("command", "input", "patch") if (v := given.get(f)) is not None), None)
    text = patch if isinstance(patch, str) else "\n".join(map(str, patch)) if isinstance(patch, list) else ""
    found = tuple(
        AskPath(Access.DELETE if match[1] == "Delete" else Access.WRITE, path)
        for match in _PATCH_LINE.finditer(text)
        for path in here.readings(match[2].strip())
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
