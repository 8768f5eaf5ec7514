"""`exec`: a further command stands where the session's own stands, on every runtime, and gets no more than it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.escape.runtime import AGENT, Case, Host, Runtime, policy
from tests.escape.test_lockdown import beside, of
from tests.escape.test_terminal import Person

OPERATOR = Path(__file__).with_name("exec_inside.py")
STUFF = """
import fcntl, os, termios
for fd in (0, 1, 2):
    for byte in b"echo stuffed-$((40+2))\\n":
        try: fcntl.ioctl(fd, termios.TIOCSTI, bytes([byte]))
        except OSError as error: print("refused", error.errno)
print(os.ttyname(0), "end")
"""


class Operator(Person):
    """Types into a shell of the machine's own."""

    def __init__(self) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve("/bin/bash", ["bash", "--norc", "--noprofile", "-i"], {**os.environ, "TERM": "xterm"})
        self.screen = ""
        self.resize(33, 101)


def test_a_further_command_is_as_confined_as_the_first_and_decided_like_it(runtime: Runtime) -> None:
    session = f"exec-{os.getpid()}"
    case = Case((), policy(), env={"PARHELIA_SESSION_ID": session})
    seen, events, _ = beside(runtime, case, OPERATOR, session)
    assert seen["early"] == {"status": 0, "out": "", "err": ""}
    first, standing = seen["first"], json.loads(seen["standing"]["out"])
    namespaces = {key for key in first if str(first[key]).startswith(f"{key}:[")}
    assert namespaces >= {"net", "mnt"} or runtime.name == "gvisor"
    for key in first.keys() - {"env"} - (namespaces if runtime.name == "gvisor" else set()):  # numbered by the process
        assert standing[key] == first[key], key
    assert set(standing["env"]) - set(first["env"]) <= {"TERM", "LANG"}
    assert seen["streams"] == {"status": 9, "out": "in\n", "err": "err\n"}
    assert seen["denied"]["status"] == 126
    assert seen["denied"]["err"].startswith("parhelia: denied by recursive-delete-system: ")
    assert "denied by recursive-delete-system" in seen["denied_inside"]["err"]
    assert seen["missing"]["status"] == 127
    assert seen["killed"]["status"] == 137
    passed = seen["passed"]["out"].splitlines()
    assert "PASSED=passed" in passed
    assert "HTTPS_PROXY=http://192.0.2.1:1" not in passed
    assert (seen["nowhere"]["status"], "/nonesuch" in seen["nowhere"]["err"]) == (2, True)
    assert seen["path"]["out"] == ""
    assert seen["reopened"]["out"] == ""
    assert seen["signalled"] == 42
    assert seen["alive"] == []
    assert seen["vanished"] == []
    attached, detached = of(events, "session.attach"), of(events, "session.detach")
    assert {event["actor"] for event in (*attached, *detached)} == {"user:root"}
    assert [event["details"]["exec"] for event in attached] == [*range(1, len(attached) + 1)]
    assert sorted(event["details"]["exec"] for event in detached) == [*range(1, len(attached) + 1)]
    assert 42 in {event["details"]["exit_status"] for event in detached}
    denied = [event for event in of(events, "bash.dangerous") if event["actor"] == "user:root"]
    assert [(event["details"]["mechanism"], event["details"]["rule"]) for event in denied][:1] == [
        ("control", "recursive-delete-system")
    ]


@pytest.fixture
def session(host: Host) -> str:
    """The id of a session that sleeps."""
    return f"execs-{os.getpid()}"


@pytest.mark.root
def test_what_it_pushes_into_its_terminal_never_reaches_the_operators(host: Host, session: str) -> None:
    case = Case(("/bin/sh", "-c", "echo up; sleep 300"), policy(), env={"PARHELIA_SESSION_ID": session})
    run = subprocess.Popen(
        host.command(case), env=host.environment(case), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    person = None
    try:
        assert run.stdout is not None and run.stdout.readline() == b"up\n"
        (host.directory / "stuff.py").write_text(STUFF)
        person = Operator()
        person.sees("# ")
        person.types("PS1='ready> '\n")
        person.sees("ready> ")
        person.sees("ready> ")
        exec_ = f"{AGENT} exec --session {session} --"
        person.types("tty\n")
        own = next(word for word in person.sees("ready> ").split() if word.startswith("/dev/pts/"))
        person.types(f'{exec_} python3 -c "$(cat {host.directory}/stuff.py)"\n')
        shown = person.sees(" end")
        assert f"{own} end" not in shown
        person.sees("ready> ")
        person.types("echo alive-$((1+1))\n")
        after = person.sees("alive-2")
        assert "stuffed-42" not in shown + after
        person.sees("ready> ")  # readline has set the size that it had read
        person.resize(44, 122)
        person.types(f"{exec_} /bin/sh -c 'stty size; exit 6'; echo status-$?\n")
        assert "44 122" in person.sees("status-6")
        # dash forgets an interrupt that comes between its vfork(2) and the exec, on any terminal: bash does not
        person.types(f"{exec_} /bin/bash -c 'echo begun-$((1+1)); exec sleep 100'; echo status-$?\n")
        person.sees("begun-2")
        person.types("\x03")
        person.sees("status-130")
    finally:
        if person is not None:
            person.leave()
        run.terminate()
        run.wait(30)
