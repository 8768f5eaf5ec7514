"""Tool calls from inside a real session: refused by the native client, on record, counted."""

from __future__ import annotations

import contextlib
import http.server
import json
import pwd
import threading
from collections.abc import Iterator

import pytest

from agent.daemon.base.places import NATIVE_CLIENT
from tests.conftest import require
from tests.escape.runtime import Case, Host, Outcome, policy
from tests.escape.test_flood import Gateway
from tests.escape.test_path_denials import POLICY

CLIENT = "/run/parhelia/parhelia-hook"


@contextlib.contextmanager
def pushes() -> Iterator[tuple[str, list[str]]]:
    """A push gateway: its address and what was pushed."""
    pushed: list[str] = []
    gateway = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Kept", (Gateway,), {"pushed": pushed}))
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{gateway.server_address[1]}", pushed
    finally:
        gateway.shutdown()
        gateway.server_close()


def counted(pushed: list[str], event_type: str) -> float:
    start = f'parhelia_security_denied_total{{event_type="{event_type}"}} '
    (line,) = [line for line in pushed[-1].splitlines() if line.startswith(start)]
    return float(line.removeprefix(start))


def call(name: str, **given: object) -> str:
    return json.dumps(
        {"tool_name": name, "tool_input": given, "cwd": "/tmp", "tool_use_id": "toolu_1", "agent_id": "sub-1"}
    )


def ask(host: Host, calls: list[str], text: str, **env: str) -> Outcome:
    """Each call through the client, in a file of the session's own: its exit status is a line of stdout."""
    require(NATIVE_CLIENT.exists(), "the native client is not built (make setup builds it where a C compiler is)")
    script = f'for call; do printf %s "$call" | {CLIENT} claude-code > /dev/null; echo $?; done'
    return host.run(Case(("/bin/bash", "-c", script, "bash", *calls), text, env=env))


@pytest.mark.root
def test_a_tool_that_the_policy_does_not_name_is_refused_recorded_and_counted(host: Host) -> None:
    tools = "tools: {allow: ['mcp__docs__*'], deny: [{id: no-search, tool: WebSearch, reason: it leaves}]}\n"
    calls = [call("mcp__docs__find"), call("mcp__evil__send"), call("WebSearch"), call("TodoWrite"), call("New")]
    with pushes() as (url, pushed):
        outcome = ask(host, calls, policy() + tools, PARHELIA_PUSHGATEWAY_URL=url)
    assert outcome.stdout.split() == ["0", "2", "2", "0", "2"], outcome.stderr
    denied = [event for event in outcome.of("permission.denied") if event["result"] == "denied"]
    found = [(event["resource"], event["resource_type"], event["details"]["rule"]) for event in denied]
    assert found == [
        ("mcp__evil__send", "tool", "tools-unlisted"),
        ("WebSearch", "tool", "no-search"),
        ("New", "tool", "tools-unlisted"),
    ]
    assert {event["details"]["mechanism"] for event in denied} == {"hook"}
    assert {event["details"]["agent_id"] for event in denied} == {"sub-1"}
    assert "parhelia: denied by no-search: it leaves." in outcome.stderr
    assert counted(pushed, "permission.denied") == 3
    assert outcome.verified == 0


@pytest.mark.root
def test_a_read_of_the_log_is_refused_by_name_wherever_the_log_lies(host: Host) -> None:
    """In a tree that the policy grants: mounts and file permissions keep it closed anyway."""
    outcome = ask(host, [call("Read", file_path=str(host.audit / "audit.jsonl"))], policy())
    assert outcome.stdout.split() == ["2"], outcome.stderr
    (denied,) = [event for event in outcome.of("permission.denied") if event["result"] == "denied"]
    assert (denied["resource"], denied["details"]["rule"]) == (str(host.audit / "audit.jsonl"), "agent-files")


@pytest.mark.root
def test_files_that_a_command_would_change_are_refused_by_their_rule_recorded_and_counted(host: Host) -> None:
    texts = ["cd /etc && touch parhelia-x", "mkdir -p /etc/parhelia-y", "rm -rf ~/.held-protected", "ln -sf /x passwd"]
    fine = ["mkdir -p /etc /tmp/held-d && cp /etc/passwd /tmp/held-d && rm -r /tmp/held-d", "chmod 600 ~/held"]
    with pushes() as (url, pushed):
        calls = [call("Bash", command=text) for text in (*texts, *fine)]
        outcome = ask(host, [*calls, call("Bash", command="dd of=/usr/x")], POLICY, PARHELIA_PUSHGATEWAY_URL=url)
    assert outcome.stdout.split() == ["2", "2", "2", "0", "0", "0", "2"], outcome.stderr
    home = pwd.getpwnam("session").pw_dir
    denied = [(e["details"]["access"], e["resource"], e["details"]["rule"]) for e in outcome.of("permission.denied")]
    assert denied == [
        ("write", "/etc/parhelia-x", "paths-default"),
        ("write", "/etc/parhelia-y", "paths-default"),
        ("delete", f"{home}/.held-protected", "paths.protect[0]"),
        ("write", "/usr/x", "paths-default"),
    ]
    assert counted(pushed, "permission.denied") == len(denied)
    assert outcome.verified == 0


SHELLS = """
import subprocess, sys
for name in ("bash", "/bin/sh"):
    argv = [sys.argv[1], "shell", "--", name, "-c", sys.argv[2]]
    done = subprocess.run(argv, capture_output=True, text=True)
    print(done.returncode, done.stderr.strip())
"""


@pytest.mark.root
def test_what_a_shell_would_run_is_refused_recorded_and_counted(host: Host) -> None:
    require(NATIVE_CLIENT.exists(), "the native client is not built (make setup builds it where a C compiler is)")
    argv = ("/usr/bin/python3", "-c", SHELLS, CLIENT, "echo x; mkfs /dev/null")
    with pushes() as (url, pushed):
        outcome = host.run(Case(argv, policy(), env={"PARHELIA_PUSHGATEWAY_URL": url}))
    assert outcome.stdout.splitlines() == ["2 parhelia: denied by commands.deny[0]: mkfs is refused."] * 2, (
        outcome.stderr
    )
    denied = [event for event in outcome.of("bash.dangerous") if event["result"] == "denied"]
    assert {event["details"]["mechanism"] for event in denied} == {"shim"}
    assert sum(event["details"].get("count", 1) for event in denied) == 2
    assert counted(pushed, "bash.dangerous") == 2


WRITES = """
import json, subprocess, sys
body = "\\n".join(f'line {number} "quoted"' for number in range(1_000_000))
for path in ("/tmp/x", "/etc/x"):
    call = json.dumps({"tool_name": "Write", "tool_input": {"content": body, "file_path": path}})
    done = subprocess.run([sys.argv[1], "claude-code"], input=call.encode(), stdout=subprocess.DEVNULL)
    print(len(call) >> 20, done.returncode)
"""


@pytest.mark.root
def test_a_write_of_many_megabytes_is_decided_by_its_path(host: Host) -> None:
    require(NATIVE_CLIENT.exists(), "the native client is not built (make setup builds it where a C compiler is)")
    outcome = host.run(Case(("/usr/bin/python3", "-c", WRITES, CLIENT), policy()))
    assert outcome.stdout.splitlines() == ["22 0", "22 2"], outcome.stderr
    (event,) = outcome.of("permission.denied")
    assert (event["resource"], event["details"]["rule"]) == ("/etc/x", "paths-default")
