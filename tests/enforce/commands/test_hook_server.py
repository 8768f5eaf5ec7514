"""The hook, end to end: the real clients as processes of their own, the real server, a real policy."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from threading import Event, Thread

import pytest

from agent.daemon.policies.store import read_policy
from agent.enforce.commands import hook_connection, hook_wire
from agent.enforce.commands.hook_server import HookServer
from agent.policy.decide import decide
from agent.policy.decision import Decision
from agent.policy.request import CommandRequest, PathRequest, Request, ToolRequest
from tests.enforce.commands.hook_clients import command_of

TODAY = date(2026, 11, 22)


@dataclass
class RecordingGate:
    """Decides with the default policy; `broken` makes it raise. Keeps what it was asked."""

    asked: list[Request] = field(default_factory=list)
    broken: bool = False

    def __post_init__(self) -> None:
        self._policy = read_policy([])

    def check(self, request: Request) -> Decision:
        self.asked.append(request)
        if self.broken:
            raise RuntimeError("the gate is broken")
        return decide(self._policy, request)


@dataclass
class Running:
    path: Path
    gate: RecordingGate
    client: Client

    def ask(self, payload: object, protocol: str = "claude-code", **more: object) -> subprocess.CompletedProcess[str]:
        text = payload if isinstance(payload, str) else json.dumps(payload)
        return self.client(text, protocol, "--socket", str(self.path), **more)


@dataclass(frozen=True)
class Client:
    command: tuple[str, ...]

    def __call__(self, text: str, *arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *arguments],
            input=text,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=60,
            check=False,
            **more,
        )


@pytest.fixture(params=["python", "native"])
def client(request: pytest.FixtureRequest) -> Client:
    return Client(command_of(request.param))


def bash(command: str, **more: object) -> dict[str, object]:
    return tool("Bash", {"command": command}, **more)


def tool(name: str, given: dict[str, object], **more: object) -> dict[str, object]:
    return {
        "hook_event_name": "PreToolUse",
        "session_id": "s",
        "cwd": "/vol/parhelia/workspaces",
        "tool_name": name,
        "tool_input": given,
        "tool_use_id": "toolu_1",
        **more,
    }


def serve(server: HookServer) -> Iterator[None]:
    """Run the server on a loop of its own thread until the caller is done."""
    ready, done = Event(), Event()

    async def main() -> None:
        await server.start()
        ready.set()
        await asyncio.to_thread(done.wait)
        await server.stop()

    thread = Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert ready.wait(60)
    yield
    done.set()
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture
def running(tmp_path: Path, client: Client) -> Iterator[Running]:
    gate = RecordingGate()
    path = tmp_path / "hook.sock"
    server = HookServer(
        str(path), gate, home="/home/session", supervised=True, today=lambda: TODAY, message_timeout=60.0
    )
    for _ in serve(server):
        yield Running(path, gate, client)
    assert not path.exists()


def test_the_words_end_like_those_of_a_refused_exec_where_a_rule_names_no_way_out(running: Running) -> None:
    done = running.ask(tool("Delete", {"file_path": "/run/parhelia/x"}))
    assert done.stderr == (
        "parhelia: denied by agent-files: the agent's own files are never granted, whatever the policy says.\n"
    )


def test_a_dangerous_command_is_blocked_with_rule_reason_and_what_to_do_instead(running: Running) -> None:
    done = running.ask(bash("bash -c 'sudo rm -r -f /*'"))
    assert done.returncode == 2
    assert "denied by recursive-delete-system: deletes the system" in done.stderr
    assert "inside the workspace" in done.stderr
    answer = json.loads(done.stdout)["hookSpecificOutput"]
    assert answer["hookEventName"] == "PreToolUse"
    assert answer["permissionDecision"] == "deny"
    assert "recursive-delete-system" in answer["permissionDecisionReason"]


def test_a_redirection_to_what_is_not_granted_is_blocked_as_a_path(running: Running) -> None:
    done = running.ask(bash("echo done 2>/dev/null > notes && echo x >> /srv/shared/x"))
    assert done.returncode == 2
    assert "denied by paths-default: no rule of the policy grants writing /srv/shared/x" in done.stderr
    paths = [request for request in running.gate.asked if isinstance(request, PathRequest)]
    assert {request.asked for request in paths} == {"/dev/null", "/vol/parhelia/workspaces/notes", "/srv/shared/x"}
    assert paths[-1].asked == "/srv/shared/x"


def test_no_objection_leaves_the_agents_own_prompts_in_force(running: Running) -> None:
    done = running.ask(bash("git status && rm -rf ./build"))
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, {}, "")


def test_the_caller_is_taken_from_the_kernel_and_not_from_what_it_says(running: Running) -> None:
    running.ask(bash("id", pid=1, uid=12345))
    tool_asked, request = running.gate.asked
    assert isinstance(tool_asked, ToolRequest)
    assert (tool_asked.tool, tool_asked.known) == ("Bash", True)
    assert isinstance(request, CommandRequest)
    assert (request.origin.mechanism, request.origin.uid) == ("hook", os.getuid())
    assert request.origin.pid not in (None, 1, os.getpid())
    assert request.origin.request_id == "toolu_1"
    assert ("tool", "Bash") in request.origin.extra


@pytest.mark.parametrize(
    ("name", "given", "status", "words"),
    [
        ("Write", {"file_path": "/etc/passwd", "content": "x"}, 2, "paths-default"),
        ("Edit", {"file_path": "/vol/parhelia/workspaces/a", "old_string": "", "new_string": ""}, 0, ""),
        ("Edit", {"file_path": "../../../etc/passwd"}, 2, "paths-default"),
        ("Read", {"file_path": "/usr/bin/env"}, 0, ""),
        ("Read", {"file_path": "/root/.ssh/id_rsa"}, 2, "paths-default"),
        ("NotebookEdit", {"notebook_path": "/srv/x.ipynb", "new_source": ""}, 2, "paths-default"),
        ("Glob", {"pattern": "**/*.py"}, 0, ""),
        ("Glob", {"pattern": "/root/**"}, 2, "paths-default"),
        ("Grep", {"pattern": "/root/x", "path": "/root", "output_mode": "content"}, 2, "paths-default"),
        ("WebFetch", {"url": "https://evil.test/x", "prompt": "p"}, 2, "egress-default"),
        ("WebFetch", {"url": "https://github.com/a", "prompt": "p"}, 0, ""),
        ("TodoWrite", {"todos": []}, 0, ""),
        ("mcp__server__tool", {"path": "/etc"}, 0, ""),
        ("Bash", {}, 2, "malformed"),
        ("Bash", {"command": 7}, 2, "malformed"),
        ("Write", {}, 2, "malformed"),
        ("WebFetch", {"url": "https://user@@/"}, 2, "malformed"),
    ],
)
def test_each_tool_is_asked_about_in_its_own_kind(
    running: Running, name: str, given: dict[str, object], status: int, words: str
) -> None:
    done = running.ask(tool(name, given))
    assert (done.returncode, words in done.stderr) == (status, True), done.stderr


def test_a_symlink_is_followed_before_the_path_is_judged(running: Running, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/root")
    done = running.ask(tool("Read", {"file_path": str(link / "secret")}))
    assert done.returncode == 2
    assert "paths-default" in done.stderr


@pytest.mark.parametrize(
    ("protocol", "payload", "status"),
    [
        ("codex", bash("rm -rf /", turn_id="t"), 2),
        ("codex", tool("shell", {"command": ["bash", "-lc", "rm -rf /"]}), 2),
        ("codex", tool("apply_patch", {"command": "*** Begin Patch\n*** Update File: /etc/x\n*** End Patch"}), 2),
        ("codex", tool("apply_patch", {"command": "*** Begin Patch\n*** Add File: a.py\n*** End Patch"}), 0),
        ("gemini", tool("run_shell_command", {"command": "mkfs.ext4 /dev/sda"}), 2),
        ("gemini", tool("write_file", {"file_path": "/etc/x", "content": ""}), 2),
        ("gemini", tool("web_fetch", {"prompt": "read https://evil.test/a and tell"}), 2),
        ("gemini", tool("run_shell_command", {"command": "ls"}), 0),
        ("cursor", {"hook_event_name": "beforeShellExecution", "command": "rm -rf /", "cwd": "/tmp"}, 2),
        ("cursor", {"hook_event_name": "beforeReadFile", "file_path": "/root/x", "workspace_roots": ["/tmp"]}, 2),
        ("cursor", {"hook_event_name": "beforeShellExecution", "command": "ls", "cwd": "/tmp"}, 0),
        ("cursor", tool("Shell", {"command": "rm -rf /"}, hook_event_name="preToolUse"), 2),
    ],
)
def test_other_agents_are_answered_in_their_protocol(
    running: Running, protocol: str, payload: dict[str, object], status: int
) -> None:
    done = running.ask(payload, protocol)
    assert done.returncode == status, done.stderr
    answer = json.loads(done.stdout)
    spelled = {
        "codex": answer.get("hookSpecificOutput", {}).get("permissionDecision"),
        "gemini": answer.get("decision"),
        "cursor": answer.get("permission"),
    }[protocol]
    allowed = "allow" if protocol == "cursor" else None
    assert spelled == ("deny" if status else allowed)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"x"', "{}", '{"tool_name": 3}', "\udc80", '{"tool_name":"Bash"}']
)
def test_a_call_that_cannot_be_read_is_blocked(running: Running, text: str) -> None:
    done = running.ask(text)
    assert done.returncode == 2
    assert "denied by hook-malformed" in done.stderr


def test_a_gate_that_raises_blocks(running: Running) -> None:
    running.gate.broken = True
    done = running.ask(bash("ls"))
    assert done.returncode == 2
    assert "agent-fault" in done.stderr


def test_a_caller_that_never_finishes_its_call_is_answered_with_a_denial(tmp_path: Path) -> None:
    path = str(tmp_path / "hook.sock")
    for _ in serve(HookServer(path, RecordingGate(), home="/home/session", message_timeout=0.5)):
        with socket.socket(socket.AF_UNIX) as slow:
            slow.settimeout(60)
            slow.connect(path)
            slow.sendall(hook_wire.HEAD)
            assert slow.recv(65536)[:4] == b"PH\1\2"


def test_a_refusal_that_cannot_be_recorded_is_no_answer_and_so_a_refusal(tmp_path: Path, client: Client) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no record")

    path = tmp_path / "hook.sock"
    server = HookServer(str(path), RecordingGate(), home="/", record=fail)
    for _ in serve(server):
        for text in ("{", " " * 20_000):
            done = client(text, "claude-code", "--socket", str(path))
            assert (done.returncode, "gave no answer" in done.stderr) == (2, True)


def test_who_connects_and_asks_nothing_gets_no_answer(running: Running) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.settimeout(20)
        silent.connect(str(running.path))
        silent.shutdown(socket.SHUT_WR)
        assert silent.recv(100) == b""


def test_a_call_too_large_to_read_is_denied(running: Running) -> None:
    done = running.ask(bash("echo " + "x" * hook_wire.MAX_STRING))
    assert (done.returncode, "the command is missing" in done.stderr) == (2, True)
    many = {f"key {number}": "x" * 1000 for number in range(hook_wire.MAX_KEPT // 1000)}
    done = running.ask(tool("Write", {"file_path": "/tmp/x", **many}))
    assert (done.returncode, "would have to be read" in done.stderr) == (2, True)


def test_what_a_file_is_to_contain_is_not_kept(running: Running) -> None:
    given = {"file_path": "/vol/parhelia/workspaces/a", "content": '    return found("x", 1)\n' * (2 << 20)}
    assert running.ask(tool("Write", given)).returncode == 0


def test_callers_beyond_the_limit_are_denied(running: Running) -> None:
    held = []
    try:
        for _ in range(hook_connection.MAX_CLIENTS):
            one = socket.socket(socket.AF_UNIX)
            one.connect(str(running.path))
            held.append(one)
        assert running.ask(bash("ls")).returncode == 2
    finally:
        for one in held:
            one.close()


def test_any_user_may_ask(running: Running) -> None:
    assert running.path.stat().st_mode & 0o777 == 0o666
