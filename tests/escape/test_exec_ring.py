"""Commands that only show what they are when they are executed: decided by the exec ring (behind ptrace:
`test_exec_traced`)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.escape.containers import Docker
from tests.escape.runtime import Case, Host, policy

RM = "$(id -un | sed s/session/rm/)"
"""Nobody can know from the text that this is rm."""

HIDDEN = [
    (f"{RM} -rf /", "recursive-delete-system"),
    ("A=r; B=m; $A$B -rf /", "recursive-delete-system"),
    ("$(echo rm) -r --force /etc", "recursive-delete-system"),
    ("printf 'rm -rf /usr/lib' | sh", "recursive-delete-system"),
    ('python3 -c \'import os; os.execvp("rm", ["rm", "-rf", "/"])\'', "recursive-delete-system"),
    ("find /etc -maxdepth 0 -exec rm -rf {} +", "recursive-delete-system"),
    ("x=if=/dev/zero; dd $x of=/dev/null count=1", "commands.deny[1]"),
]


@pytest.mark.parametrize(("script", "rule"), HIDDEN)
def test_a_command_hidden_from_the_text_is_refused_at_exec(host: Host, script: str, rule: str) -> None:
    outcome = host.run(Case(("/bin/sh", "-c", f"{script}; echo status=$?"), policy()))
    events = outcome.of("bash.dangerous")
    assert events and events[0]["details"]["rule"] == rule, outcome.stderr + outcome.stdout
    assert "status=0" not in outcome.stdout
    assert outcome.verified == 0


def test_a_refused_exec_says_126_and_the_reason(host: Host) -> None:
    outcome = host.run(Case(("/bin/bash", "-c", f'"{RM}" -rf /; echo status=$?'), policy()))
    assert "status=126" in outcome.stdout, outcome.stdout + outcome.stderr
    assert (
        "parhelia: denied by recursive-delete-system: deletes the system. delete inside the workspace" in outcome.stderr
    )


def test_in_docker_the_ring_reads_the_session_without_the_right_to_trace_it(docker_sessions: Docker) -> None:
    python = 'python3 -c \'import os; rm = bytes([114, 109]).decode(); os.execvp(rm, [rm, "-rf", "/etc"])\''
    scripts = [f'"{RM}" -rf /', python, "true"]
    told = "; ".join(f"{script}; echo status=$?" for script in scripts)
    outcome = docker_sessions.run(Case(("/bin/bash", "-c", f"cd /tmp; {told}"), policy()))
    assert outcome.stdout.split() == ["status=126", "status=1", "status=0"], outcome.stderr
    rules = [event["details"]["rule"] for event in outcome.of("bash.dangerous")]
    assert rules == ["recursive-delete-system"] * 2
    assert outcome.stderr.count("parhelia: denied by recursive-delete-system: ") == 2


def test_the_reason_stands_between_the_sessions_own_words_in_a_file(host: Host, tmp_path: Path) -> None:
    case = Case(("/bin/bash", "-c", f'echo before >&2; "{RM}" -rf /; echo after >&2'), policy())
    with (tmp_path / "words").open("w") as words:
        subprocess.run(host.command(case), env=host.environment(case), stderr=words, timeout=60, check=True)
    lines = (tmp_path / "words").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert lines[1].startswith("parhelia: denied by recursive-delete-system: ")


def test_an_observed_exec_runs_and_leaves_one_line(host: Host) -> None:
    text = policy(write="/tmp").replace("commands:\n", "commands:\n  mode: observe\n")
    text = text.replace(
        "  deny:\n    - mkfs\n",
        "  deny:\n    - mkfs\n    - id: no-dash\n      match: {program: [dash, sh]}\n"
        "      examples: {match: [dash], no_match: [ls]}\n",
        1,
    )
    outcome = host.run(Case(("/bin/bash", "-c", '"$(id -un | sed s/session/sh/)" -c true; echo status=$?'), text))
    assert outcome.stdout == "status=0\n", outcome.stderr
    lines = [event["details"] for event in outcome.of("bash.dangerous") if event["details"]["rule"] == "no-dash"]
    assert [(line["enforced"], line["mechanism"]) for line in lines] == [(False, "exec")]


def test_the_sessions_own_command_leaves_one_line_where_it_is_only_observed(host: Host) -> None:
    text = policy(write="/tmp").replace("commands:\n", "commands:\n  mode: observe\n")
    rule = "    - {id: no-shells, match: {program: [dash, sh]}, examples: {match: [sh], no_match: [ls]}}\n    - mkfs\n"
    outcome = host.run(Case(("/bin/sh", "-c", "echo ran"), text.replace("    - mkfs\n", rule, 1)))
    assert outcome.stdout == "ran\n", outcome.stderr
    lines = [event["details"] for event in outcome.of("bash.dangerous")]
    assert [(line["rule"], line["enforced"], line["mechanism"]) for line in lines] == [("no-shells", False, "exec")]
