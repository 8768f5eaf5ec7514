"""The image: what is in it, who owns it, and how it starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runtimes.engine import Engine
from tests.runtimes.fixtures import CHECKOUT, Run

pytestmark = [pytest.mark.docker, pytest.mark.root]


def test_both_accounts_have_the_numbers_that_volumes_rely_on(docker_run: Run) -> None:
    done = docker_run("-c", "id -u parhelia; id -u session; getent passwd session", entrypoint="/bin/sh")
    assert done.stdout.splitlines() == ["971", "1000", "session:x:1000:1000::/home/session:/usr/bin/bash"]


@pytest.mark.parametrize(
    ("path", "mode", "owner"),
    [
        ("/entrypoint.sh", "755", "root:root"),
        ("/etc/claude-code/managed-settings.json", "644", "root:root"),
        ("/etc/codex/requirements.toml", "644", "root:root"),
        ("/etc/cursor/hooks.json", "644", "root:root"),
        ("/etc/gemini-cli/settings.json", "644", "root:root"),
        ("/etc/parhelia/policies", "700", "root:root"),
        ("/home/session", "700", "session:session"),
        ("/opt/parhelia/bin/parhelia-agent", "755", "root:root"),
        ("/etc/ssh/ssh_config.d/50-parhelia.conf", "644", "root:root"),
        ("/usr/local/lib/parhelia/hook_client.py", "755", "root:root"),
        ("/usr/local/lib/parhelia/parhelia-hook", "755", "root:root"),
        ("/usr/local/lib/parhelia/ssh_proxy.py", "755", "root:root"),
        ("/var/lib/parhelia", "700", "parhelia:parhelia"),
        ("/vol/parhelia/audit", "700", "root:root"),
        ("/vol/parhelia/checkpoints", "755", "session:session"),
        ("/vol/parhelia/workspaces", "755", "session:session"),
    ],
)
def test_what_the_image_holds_belongs_to_whom_it_should(docker_run: Run, path: str, mode: str, owner: str) -> None:
    done = docker_run("-c", f"stat -c '%a %U:%G' {path}", entrypoint="/bin/sh")
    assert (done.stdout.strip(), done.stderr) == (f"{mode} {owner}", "")


def test_nothing_of_the_agent_can_be_changed_by_another_user(docker_run: Run) -> None:
    places = (
        "/opt/parhelia /etc/parhelia /etc/claude-code /etc/codex /etc/gemini-cli /etc/cursor /usr/local /entrypoint.sh"
    )
    done = docker_run("-c", f"find {places} ! -type l '(' ! -user root -o -perm /022 ')'", entrypoint="/bin/sh")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_package_is_installed_whole_and_its_policy_is_the_checkouts(docker_run: Run) -> None:
    script = "from agent.daemon.policies.embedded import embedded_policy_dir as d; import agent, pathlib; \
print(agent.__file__); print(*sorted(str(p.relative_to(d())) for p in d().rglob('*') if p.is_file()))"
    done = docker_run("-c", script, entrypoint="/opt/parhelia/bin/python", options=("--user", "1000"))
    module, policy = done.stdout.splitlines()
    wanted = sorted(str(path.relative_to(CHECKOUT / "policies")) for path in (CHECKOUT / "policies").rglob("*.yaml"))
    assert module.startswith("/opt/parhelia/lib/")
    assert policy.split() == wanted
    assert wanted


def test_what_the_agent_imports_is_compiled_in_the_image(docker_run: Run) -> None:
    entries = "agent.cli.run_request agent.daemon.keeper agent.daemon.running.bring_up agent.enforce.egress.main"
    script = f"""
import importlib.util, os, sys
for name in '{entries} agent.session.launch argparse'.split():
    importlib.import_module(name)
files = [getattr(module, '__file__', None) or '' for module in [*sys.modules.values()]]
files = [file for file in files if file.endswith('.py')]
assert len(files) > 300
print(*[file for file in files if not os.path.exists(importlib.util.cache_from_source(file))])"""
    done = docker_run("-I", "-B", "-c", script, entrypoint="/opt/parhelia/bin/python")
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def test_what_the_agent_imports_lies_in_one_file_in_the_image(docker_run: Run) -> None:
    entries = (
        "agent.cli.run_request agent.daemon.keeper agent.daemon.running.bring_up agent.enforce.egress.engine_worker"
    )
    script = f"""
import agent, importlib, sys
from importlib.machinery import SourceFileLoader as Loader
before, read, as_ever = len(sys.modules), [], Loader.get_code
Loader.get_code = lambda self, name: read.append(name) or as_ever(self, name)
for name in '{entries} agent.session.launch agent.enforce.egress.main argparse'.split():
    importlib.import_module(name)
print(len(sys.modules) - before > 500, len(read) < 20, *[name for name in read if name.startswith('agent')])"""
    done = docker_run("-I", "-B", "-c", script, entrypoint="/opt/parhelia/bin/python", options=("--user", "1000"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "True True\n", "")


def test_the_sessions_user_cannot_read_the_policy_and_can_read_the_interpreter(docker_run: Run) -> None:
    script = "ls /etc/parhelia/policies; /opt/parhelia/bin/python -c 'print(1)'"
    done = docker_run("-c", script, entrypoint="/bin/sh", options=("--user", "1000"))
    assert done.stdout == "1\n"
    assert "Permission denied" in done.stderr


def test_no_certificate_or_configuration_handed_to_the_build_stays_in_the_image(docker_run: Run) -> None:
    done = docker_run("-c", "ls -A /run/secrets /root/.config /root/.cache /run/users.sh", entrypoint="/bin/sh")
    assert done.stdout == ""


def test_the_command_line_answers(docker_run: Run) -> None:
    done = docker_run("--help", entrypoint="parhelia-agent")
    assert done.returncode == 0
    assert "run" in done.stdout


def test_claude_code_is_told_to_ask_the_hook_before_every_tool(docker: Engine, docker_run: Run) -> None:
    done = docker_run("-c", "cat /etc/claude-code/managed-settings.json", entrypoint="/bin/sh")
    settings = json.loads(done.stdout)
    (entry,) = settings["hooks"]["PreToolUse"]
    (hook,) = entry["hooks"]
    assert (settings["allowManagedHooksOnly"], entry["matcher"], hook["onFailure"]) == (True, "*", "block")
    program = hook["command"].split()
    assert (
        docker_run(
            "-c", f"ls {' '.join(part for part in program if part.startswith('/'))}", entrypoint="/bin/sh"
        ).returncode
        == 0
    )


def test_the_entrypoint_hands_its_arguments_over_unchanged_and_falls_back_to_a_login_shell(
    tmp_path: Path, docker_run: Run
) -> None:
    stand_in = tmp_path / "parhelia-agent"
    stand_in.write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
    stand_in.chmod(0o755)
    options = ("--volume", f"{stand_in}:/opt/parhelia/bin/parhelia-agent:ro")
    given = docker_run("sh", "-c", 'echo "$HOME" *', "", options=options)
    assert given.stdout == '<run><--><sh><-c><echo "$HOME" *><>'
    assert docker_run(options=options).stdout == "<run><--></bin/bash><-l>"
