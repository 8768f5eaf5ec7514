"""One session from the image's entrypoint to its end, on each container runtime, read back from its audit log.

What the agent refuses is tested in tests/escape; here it is that the image starts a session at all, as whom, and that
its status, its output and its record come out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.runtimes.fixtures import Run
from tests.runtimes.gvisor import GVisor

pytestmark = [pytest.mark.docker, pytest.mark.root]

AUDIT = "/vol/parhelia/audit"
STORY = ("sh", "-c", 'id -un; pwd; [ -r "$0/." ] || echo closed; exit 42', AUDIT)
# Does what Claude Code does before a tool call: runs the command of the managed settings with the call on its stdin.
HOOK = r"""
import json, subprocess
settings = json.load(open("/etc/claude-code/managed-settings.json"))
((hook,),) = [entry["hooks"] for entry in settings["hooks"]["PreToolUse"]]
for text in ("rm -rf ./build", "rm -r -f /etc"):
    call = {"hook_event_name": "PreToolUse", "tool_name": "Bash", "tool_input": {"command": text}, "cwd": "/tmp"}
    done = subprocess.run(["/bin/sh", "-c", hook["command"]], input=json.dumps(call), capture_output=True, text=True)
    print(done.returncode, done.stderr.split(":")[0:2])
"""
ANSWERED = ["0 ['']", "2 ['parhelia', ' denied by recursive-delete-system']"]
TOLD = ["session", "/vol/parhelia/workspaces", "closed"]

SOCKETS = """
import socket
server = socket.socket(); server.bind(("0.0.0.0", 0)); server.listen()
client = socket.create_connection(server.getsockname())
server.accept()[0].sendall(b"own")
outside = socket.create_connection(("192.0.2.1", 25)); outside.settimeout(20)
try: closed = outside.recv(9)
except ConnectionResetError: closed = b""
print(server.getsockname()[0], client.recv(9).decode(), closed.decode() or "closed")
"""

# One uid for all: what the kernel's own checks would let the session do to the agent.
ON_THE_AGENT = """
import os, resource, signal
def argv(pid):
    try: return open(f"/proc/{pid}/cmdline", "rb").read()
    except OSError: return b""  # it has ended
agents = [int(p) for p in os.listdir("/proc") if p.isdigit()
          and b"\\0agent." in (words := argv(p)) and b"agent.session." not in words]
assert len(agents) >= 3, agents
for pid in agents:
    for what, act in {
        "signal": lambda: os.kill(pid, 0),
        "kill": lambda: os.kill(pid, signal.SIGKILL),
        "memory": lambda: open(f"/proc/{pid}/mem", "rb+"),
        "environment": lambda: open(f"/proc/{pid}/environ", "rb").read(),
        "descriptors": lambda: os.listdir(f"/proc/{pid}/fd"),
        "limits": lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0)),
        "priority": lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
        "log": lambda: open("/audit/log/audit.jsonl", "rb"),
        "run directory": lambda: os.rename("/audit/run", "/audit/gone"),
    }.items():
        try:
            act()
        except OSError:
            continue
        print("OPEN", what, pid)
os.kill(os.getpid(), 0)
print(oct(os.stat("/audit/run").st_mode & 0o777), "tried")
"""


def events(directory: Path) -> list[dict[str, Any]]:
    """The one stream that a run left under its audit volume."""
    (log,) = directory.glob("**/audit.jsonl")
    return [json.loads(line) for line in log.read_text().splitlines()]


def kinds(directory: Path) -> list[str]:
    wanted = ("agent.start", "policy.load", "session.create", "session.terminate", "agent.stop")
    return [kind for event in events(directory) if (kind := event["details"]["event_type"]) in wanted]


def points(directory: Path) -> set[str]:
    """The enforcement points that the log says are not fully enforced."""
    said = [event for event in events(directory) if event["details"]["event_type"] == "agent.degraded"]
    return {event["resource"] for event in said}


def test_in_docker_a_session_runs_ends_with_its_status_and_is_recorded(docker_run: Run, tmp_path: Path) -> None:
    done = docker_run(*STORY, options=("--volume", f"{tmp_path}:{AUDIT}"))
    assert (done.returncode, done.stdout.splitlines()) == (42, TOLD)
    assert sorted(kinds(tmp_path)) == [
        "agent.start",
        "agent.stop",
        "policy.load",
        "session.create",
        "session.terminate",
    ]
    assert "egress is" not in done.stderr


def test_in_docker_an_empty_command_is_a_login_shell(docker_run: Run) -> None:
    done = docker_run(stdin='shopt -q login_shell && echo "login $(id -un)"; exit 6\n')
    assert (done.returncode, done.stdout) == (6, "login session\n")


def test_in_docker_every_program_is_told_to_ask_for_names_by_tcp(docker_run: Run) -> None:
    done = docker_run("sh", "-c", 'grep -c use-vc /etc/resolv.conf; echo "$RES_OPTIONS"')
    assert (done.returncode, done.stdout) == (0, "1\nuse-vc\n")


def test_in_docker_a_session_that_must_be_contained_starts(docker_run: Run) -> None:
    arguments = ("run", "--require", "contained", "--", "echo", "started")
    done = docker_run(*arguments, entrypoint="/usr/local/bin/parhelia-agent")
    assert (done.returncode, done.stdout) == (0, "started\n")


def test_without_root_a_session_runs_in_one_uid_mode_and_the_log_says_so(restricted_run: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    environment = {
        "PARHELIA_AUDIT_DIR": "/audit/log",
        "PARHELIA_RUN_DIR": "/audit/run",
        "PARHELIA_POLICY_DIR": "/policy",
    }
    policy = tmp_path / "policy"
    policy.mkdir()
    paths = "{read: [/usr, /bin, /lib, /lib64, /etc], write: [/tmp]}"
    (policy / "policy.yaml").write_text(f"version: 1\negress: {{allow: [good.test]}}\npaths: {paths}\n")
    options = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
    options += ["--volume", f"{tmp_path}:/audit", "--volume", f"{policy}:/policy:ro", "--workdir", "/tmp"]
    done = restricted_run("true", options=(*options, "--env", "PARHELIA_POLICY_DIR="))
    assert done.returncode == 4, "the image's own policy is root's alone"
    assert "make it readable for the agent's account" in done.stderr
    done = restricted_run("sh", "-c", f"id -u; /usr/bin/python3 -c '{SOCKETS}'; exit 42", options=tuple(options))
    assert (done.returncode, done.stdout) == (42, "1000\n127.0.0.1 own closed\n"), done.stderr
    assert "session.terminate" in kinds(tmp_path)
    (blocked,) = [event for event in events(tmp_path) if event["details"]["event_type"] == "network.egress_blocked"]
    assert (blocked["resource"], blocked["details"]["mechanism"]) == ("192.0.2.1:25", "connect")
    assert points(tmp_path) == {"agent"}
    assert "egress is" not in done.stderr
    done = restricted_run("/usr/bin/python3", "-c", ON_THE_AGENT, options=tuple(options))
    assert (done.returncode, done.stdout.split()[-1]) == (0, "tried"), done.stderr
    assert "OPEN" not in done.stdout
    said = [event for event in events(tmp_path) if event["details"]["event_type"] == "agent.degraded"]
    assert {event["details"]["level"] for event in said} == {"partial"}, "the log's stream goes on over both runs"


@pytest.mark.gvisor
def test_in_gvisor_a_session_runs_ends_with_its_status_and_is_recorded(gvisor_run: GVisor, tmp_path: Path) -> None:
    done = gvisor_run(*STORY, mounts=((tmp_path, AUDIT),))
    assert (done.returncode, done.stdout.splitlines()) == (42, TOLD)
    assert sorted(kinds(tmp_path)) == [
        "agent.start",
        "agent.stop",
        "policy.load",
        "session.create",
        "session.terminate",
    ]
    assert "exec is" not in done.stderr
    assert points(tmp_path) <= {"paths"}  # that of 2022 has no mounts


@pytest.mark.gvisor
def test_in_gvisor_a_session_that_must_be_contained_starts_only_where_mounts_hold(gvisor_run: GVisor) -> None:
    agent = "/usr/local/bin/parhelia-agent"
    doctor = gvisor_run(agent, "doctor", "--json", entrypoint=False)
    mounts = json.loads(doctor.stdout)["mechanisms"]["mount_namespace"]
    assert mounts is (gvisor_run.runsc.name == "runsc-trixie"), "that of 2024 has them, that of 2022 has not"
    done = gvisor_run(agent, "run", "--require", "contained", "--", "echo", "started", entrypoint=False)
    assert (done.returncode, done.stdout) == ((0, "started\n") if mounts else (5, "")), done.stderr


@pytest.fixture
def tool_calls(tmp_path: Path) -> Path:
    """A directory with HOOK as a file: as an argument it would itself be judged, and nobody can know what it does."""
    directory = tmp_path / "tool-calls"
    directory.mkdir(mode=0o755)
    (directory / "calls.py").write_text(HOOK)
    return directory


def test_in_docker_claude_codes_hook_is_answered_from_inside_a_session(docker_run: Run, tool_calls: Path) -> None:
    done = docker_run("python3", "/opt/tool-calls/calls.py", options=("--volume", f"{tool_calls}:/opt/tool-calls:ro"))
    assert (done.returncode, done.stdout.splitlines()) == (0, ANSWERED)


@pytest.mark.gvisor
def test_in_gvisor_claude_codes_hook_is_answered_from_inside_a_session(gvisor_run: GVisor, tool_calls: Path) -> None:
    done = gvisor_run("python3", "/opt/tool-calls/calls.py", mounts=((tool_calls, "/opt/tool-calls"),))
    assert (done.returncode, done.stdout.splitlines()) == (0, ANSWERED)


def test_without_root_the_hook_believes_the_agent_because_it_is_an_ancestor(
    restricted_run: Run, tool_calls: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "policy"
    policy.mkdir()
    text = "version: 1\npacks: [core]\negress:\npaths: {read: [/usr, /bin, /lib, /lib64, /etc, /opt], write: [/tmp]}\n"
    (policy / "policy.yaml").write_text(text)
    options = ("--tmpfs", "/run/parhelia:uid=1000,mode=0700", "--volume", f"{tool_calls}:/opt/tool-calls:ro")
    options += ("--volume", f"{policy}:/policy:ro", "--env", "PARHELIA_POLICY_DIR=/policy", "--workdir", "/tmp")
    options += ("--env", "PARHELIA_AUDIT_DIR=/run/parhelia/log")
    done = restricted_run("python3", "/opt/tool-calls/calls.py", options=options)
    assert (done.returncode, done.stdout.splitlines()) == (0, ANSWERED), done.stderr
