"""The tools of coding agents whose working is known: what a call of each asks, by name (case aside).

Sources: the tools references of Claude Code, Gemini CLI and Cursor; Codex CLI's hooks reference.

Rules kept here: a tool is known only where everything it does to files, commands and hosts is asked about, or it does
nothing of the kind here (task lists, plans, questions to the user, a search that the model's provider makes).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Kind(StrEnum):
    """What a call asks about."""

    RUN = "run"
    READ = "read"
    SEARCH = "search"
    WRITE = "write"
    PATCH = "patch"
    FETCH = "fetch"
    NOTHING = "nothing"


_NAMES: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.RUN: "bash monitor shell local_shell run_shell_command exec_command execute_command launch-process"
        " unified_exec run_terminal_cmd terminal",
        Kind.READ: "read notebookread read_file read_many_files view view_image",
        Kind.SEARCH: "glob grep ls list_directory list_dir search_file_content grep_search file_search",
        Kind.WRITE: "write edit multiedit notebookedit write_file replace edit_file strreplace search_replace tabwrite"
        " editnotebook delete delete_file",
        Kind.PATCH: "apply_patch",
        Kind.FETCH: "webfetch web_fetch fetch",
        Kind.NOTHING: "agent task todowrite todoread taskcreate taskget tasklist taskoutput taskstop taskupdate"
        " agentoutput bashoutput killshell killbash askuserquestion enterplanmode exitplanmode enterworktree"
        " exitworktree skill slashcommand toolsearch websearch croncreate crondelete cronlist"
        " listmcpresourcestool readmcpresourcetool"  # Claude Code
        " update_plan web_search"  # Codex
        " google_web_search write_todos save_memory ask_user enter_plan_mode exit_plan_mode activate_skill"
        " get_internal_docs update_topic complete_task invoke_agent read_mcp_resource list_mcp_resources"  # Gemini
        " semanticsearch readlints todo_write",  # Cursor
    }
)
_KINDS: Mapping[str, Kind] = MappingProxyType({name: kind for kind, names in _NAMES.items() for name in names.split()})


def kind_of(tool: str) -> Kind | None:
    """What a call of this tool asks about, None for one that is not known (an MCP server's, a plugin's, a new one)."""
    return _KINDS.get(tool.lower())
