"""The image's shells in a session: what `bash -c` and a typed line would run is asked first."""

from __future__ import annotations

import base64
import json
import re

import pytest

from tests.escape.containers import Container, Docker, Gvisor
from tests.escape.runtime import Case, Outcome, policy

pytestmark = [pytest.mark.root, pytest.mark.docker]

# Types lines into an interactive bash on a terminal of its own, and shows all that comes back.
TYPES = r"""
import base64, json, os, pty, select, sys
lines = json.loads(base64.b64decode(sys.argv[2]))
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], [sys.argv[1], "-i"])
def read(end):
    seen = b""
    while end not in seen and select.select([fd], [], [], 60)[0]:
        try:
            piece = os.read(fd, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    return seen
os.write(fd, b"stty -echo; bind 'set enable-bracketed-paste off'; PS1=; echo rea''dy\n")
read(b"ready")
for number, line in enumerate(lines):
    os.write(fd, line.encode() + b"\n" + b"echo [$?] do''ne%d\n" % number)
    print(read(b"done%d" % number).decode(errors="replace").replace("\r", ""))
os.write(fd, b"exit\n")
read(b"never said")
"""
LINES = [
    "rm -rf /etc/",
    "echo x > /etc/cron.d/parhelia-x",
    "true; mkfs /dev/null; touch /tmp/behind",
    "echo fine",
    "f() { echo in f; }; f",
    "for i in 1 2\ndo mkfs /dev/null; touch /tmp/behind\ndone",
    "alias format=mkfs",
    "format /dev/null; touch /tmp/behind",
    "ls /tmp/behind",
]
PLACES = "import os, shutil; print(shutil.which('sh'), shutil.which('bash'), os.environ['SHELL'])"


def typed(sessions: Container, shell: str) -> Outcome:
    coded = base64.b64encode(json.dumps(LINES).encode()).decode()
    examples = "{match: ['echo > /etc/cron.d/x'], no_match: [ls]}"
    rule = f"    - {{id: cron, match: {{redirects: ['> /etc/cron.d/**']}}, reason: it stays, examples: {examples}}}\n"
    return sessions.run(Case(("/usr/bin/python3", "-c", TYPES, shell, coded), policy(commands=rule)))


def check(outcome: Outcome) -> None:
    assert outcome.status == 0, outcome.stderr
    told = outcome.stdout
    for rule in ("recursive-delete-system", "cron", "commands.deny[0]"):
        assert f"parhelia: denied by {rule}" in told
    statuses = re.findall(r"^\[(\d+)\] done\d", told, re.M)
    assert statuses == ["126", "126", "126", "0", "0", "130", "0", "130", "2"], told
    assert "fine\n" in told and "in f\n" in told
    denied = [event for event in outcome.of("bash.dangerous") if event["result"] == "denied"]
    by_shim = [event["details"]["rule"] for event in denied if event["details"]["mechanism"] == "shim"]
    assert by_shim == ["recursive-delete-system", "cron", *["commands.deny[0]"] * 3], denied
    assert [event for event in denied if event["details"]["mechanism"] != "shim"] == []
    assert outcome.verified == 0


@pytest.mark.parametrize("shell", ["/bin/bash", "bash", "sh"])
def test_in_docker_a_typed_line_is_asked_before_it_runs(docker_sessions: Docker, shell: str) -> None:
    check(typed(docker_sessions, shell))


@pytest.mark.gvisor
def test_in_gvisor_a_typed_line_is_asked_before_it_runs(gvisor_sessions: Gvisor) -> None:
    check(typed(gvisor_sessions, "bash"))


def run(sessions: Container) -> None:
    name = "/usr/local/lib/parhelia/shim"
    outcome = sessions.run(Case(("/usr/bin/python3", "-c", PLACES), policy()))
    assert outcome.stdout.split() == [f"{name}/sh", f"{name}/bash", f"{name}/bash"], outcome.stderr


def test_in_docker_the_shells_that_ask_are_first(docker_sessions: Docker) -> None:
    run(docker_sessions)


@pytest.mark.gvisor
def test_in_gvisor_the_shells_that_ask_are_first(gvisor_sessions: Gvisor) -> None:
    run(gvisor_sessions)
