"""One confined session, end to end: what it may do works, what it may not fails, and both are on record."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.escape.client import Ask, requests
from tests.escape.runtime import Case, Host, Outcome, Runtime, policy

CURL = "curl -sS --max-time 20"


def shell(runtime: Runtime, script: str, *flags: str) -> Outcome:
    return runtime.run(Case(("/bin/sh", "-c", script), policy(), flags))


def ports(runtime: Runtime) -> dict[str, int]:
    found: dict[str, int] = runtime.upstream.ports
    return found


def test_the_session_is_another_user_and_ends_with_its_own_status(runtime: Runtime) -> None:
    outcome = shell(runtime, "id -un; exit 7")
    assert outcome.stdout == "session\n", outcome.stderr
    assert outcome.status == 7
    assert outcome.verified == 0
    order = [
        event["details"]["event_type"] for event in outcome.events if "degraded" not in event["details"]["event_type"]
    ]
    assert order == ["agent.start", "policy.load", "session.create", "session.terminate", "agent.stop"]
    assert outcome.of("session.terminate")[0]["details"]["exit_status"] == 7


def test_an_allowed_host_is_reached_over_http_and_tls_and_recorded_once_each(runtime: Runtime) -> None:
    at = ports(runtime)
    answers, outcome = requests(
        runtime, Ask(f"http://allowed.test:{at['http']}/"), Ask(f"https://allowed.test:{at['tls']}/")
    )
    assert [answer.get("body") for answer in answers] == [
        f"reached allowed.test:{at['http']}\n",
        f"reached allowed.test:{at['tls']}\n",
    ], answers
    allowed = outcome.of("network.egress")
    assert [event["resource"] for event in allowed] == [f"allowed.test:{at['http']}", f"allowed.test:{at['tls']}"]
    assert outcome.of("session.terminate")[0]["details"]["bytes_down"] > 100


def test_a_forbidden_host_is_refused_with_the_rule_and_recorded(runtime: Runtime) -> None:
    at = ports(runtime)
    (plain, tunnel), outcome = requests(
        runtime, Ask(f"http://forbidden.test:{at['http']}/"), Ask(f"https://forbidden.test:{at['tls']}/")
    )
    assert (plain["status"], plain["headers"]["X-Parhelia-Rule"]) == (403, "egress-default")
    assert "403" in tunnel["error"]
    blocked = outcome.of("network.egress_blocked")
    assert [event["resource"] for event in blocked] == [f"forbidden.test:{at['http']}", f"forbidden.test:{at['tls']}"]
    assert {event["details"]["rule"] for event in blocked} == {"egress-default"}
    assert {event["result"] for event in blocked} == {"denied"}


def test_past_the_proxy_there_is_no_way_out_but_the_decided_one(runtime: Runtime) -> None:
    """The stand-ins are on loopback: in a jail that is the session's own, else the guard forwards to the proxy."""
    at = ports(runtime)
    answers, outcome = requests(
        runtime,
        Ask(f"http://allowed.test:{at['http']}/", direct=True),
        Ask(f"https://allowed.test:{at['tls']}/", direct=True),
        Ask(f"http://forbidden.test:{at['http']}/", direct=True),
        Ask(f"https://forbidden.test:{at['tls']}/", direct=True),
    )
    assert all("reached" not in answer.get("body", "") for answer in answers[2:]), answers
    if runtime.name == "docker":
        assert [answer.get("status") for answer in answers] == [200, 200, 403, None]
        assert {event["details"]["mechanism"] for event in outcome.of("network.egress")} == {"connect"}
        assert len(outcome.of("network.egress_blocked")) == 2
    else:
        assert all("error" in answer for answer in answers), answers


def test_curl_is_refused_with_and_without_proxy_variables(host: Host) -> None:
    at = host.upstream.ports
    bare = "env -u http_proxy -u https_proxy -u HTTP_PROXY -u HTTPS_PROXY -u ALL_PROXY -u all_proxy"
    script = (
        f"{CURL} -i http://forbidden.test:{at['http']}/; {bare} {CURL} http://forbidden.test:{at['http']}/; echo $?"
    )
    outcome = shell(host, script)
    assert "403" in outcome.stdout and "X-Parhelia-Rule: egress-default" in outcome.stdout, outcome.stdout
    assert "reached" not in outcome.stdout
    assert outcome.stdout.splitlines()[-1] == "7", outcome.stderr  # CURLE_COULDNT_CONNECT


RAW = """
import socket, sys
for family, kind, address in (
    (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", int(sys.argv[1]))),
    (socket.AF_INET, socket.SOCK_STREAM, ("192.0.2.1", 443)),
    (socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.1", 53)),
    (socket.AF_INET6, socket.SOCK_STREAM, ("2001:db8::1", 443)),
):
    try:
        s = socket.socket(family, kind); s.settimeout(3); s.connect(address); s.send(b"x")
        print("ESCAPED" if s.recv(1) else "refused", address)  # captured: a connection that ends without a byte
    except OSError as error:
        print("refused", error.errno)
"""


def test_a_raw_socket_reaches_nothing_outside(runtime: Runtime) -> None:
    before = runtime.upstream.escapes
    outcome = runtime.run(Case(("/usr/bin/python3", "-c", RAW, str(ports(runtime)["raw"])), policy()))
    assert outcome.stdout.count("refused") == 4, outcome.stdout + outcome.stderr
    assert "ESCAPED" not in outcome.stdout
    assert runtime.upstream.escapes == before


@pytest.mark.parametrize(
    ("command", "rule"),
    [
        ("rm -rf /", "recursive-delete-system"),
        ('bash -c "sudo rm -r -f /*"', "recursive-delete-system"),
        ("mkfs.ext4 /dev/sda", "commands.deny[0]"),
        ("dd of=/dev/null bs=1 count=1 if=/dev/zero", "commands.deny[1]"),
    ],
)
def test_a_dangerous_session_command_never_starts(runtime: Runtime, command: str, rule: str) -> None:
    outcome = shell(runtime, command)
    assert outcome.status == 126, outcome.stderr
    assert f"denied by {rule}" in outcome.stderr
    (event,) = outcome.of("bash.dangerous")
    assert event["details"]["rule"] == rule
    assert event["result"] == "denied"
    assert outcome.of("session.create") == []
    assert outcome.verified == 0


def test_what_is_private_or_ungranted_stays_closed(runtime: Runtime) -> None:
    script = (
        "echo x > /etc/parhelia-x; echo etc=$?; cat {audit}/audit.jsonl; echo log=$?; "
        "cat {policy}/policy.yaml; echo policy=$?; ls {audit}; echo list=$?"
    )
    where = {"audit": runtime.audit, "policy": runtime.policies}
    outcome = shell(runtime, script.format(**where))
    for word in ("etc", "log", "policy", "list"):
        assert f"{word}=0" not in outcome.stdout, outcome.stdout
    assert "event_hash" not in outcome.stdout and "version: 1" not in outcome.stdout


def test_a_command_that_does_not_exist_exits_127(runtime: Runtime) -> None:
    outcome = runtime.run(Case(("no-such-program-here",), policy()))
    assert outcome.status == 127
    assert "no-such-program-here" in outcome.stderr


def test_a_forbidden_path_that_a_tool_asks_for_is_refused_and_recorded(host: Host) -> None:
    call = {"hook_event_name": "PreToolUse", "tool_name": "Write", "cwd": "/tmp", "tool_use_id": "toolu_1"}
    asked = json.dumps({**call, "tool_input": {"file_path": "/etc/parhelia-x", "content": "x"}})
    granted = json.dumps({**call, "tool_input": {"file_path": "/tmp/parhelia-x", "content": "x"}})
    hook = "/usr/bin/python3 -IS /run/parhelia/hook_client.py claude-code"
    script = f"echo '{asked}' | {hook} > /dev/null; echo $?; echo '{granted}' | {hook} > /dev/null; echo $?"
    outcome = shell(host, script)
    assert outcome.stdout == "2\n0\n", outcome.stderr
    assert "denied by paths-default" in outcome.stderr
    (event,) = outcome.of("permission.denied")
    assert (event["resource"], event["action"], event["result"]) == ("/etc/parhelia-x", "UPDATE", "denied")
    assert (event["details"]["request_id"], event["details"]["tool"]) == ("toolu_1", "Write")


def test_without_a_workdir_that_is_granted_the_session_starts_at_home(host: Host) -> None:
    case = Case(("/bin/sh", "-c", 'pwd; [ "$PWD" = "$HOME" ] && echo home'), policy())
    command = host.command(case)
    at = command.index("--workdir")
    done = subprocess.run(
        [*command[:at], *command[at + 2 :]], env=host.environment(case), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "home"), done.stderr
