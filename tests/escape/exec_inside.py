"""Beside a session: an operator who runs further commands in it, and tells what each came to.

`exec_inside.py SESSION_ID AGENT_ARGV…` prints one JSON object. Standard library only. Runs on this machine or, where
the agent is a container's, in that.
"""

from __future__ import annotations

import array
import glob
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STANDING = (
    "import json, os, socket; status = dict(line.split(':', 1) for line in open('/proc/self/status'));"
    "print(json.dumps({**{key: status.get(key, '').split() for key in"
    " ('Uid', 'Gid', 'Groups', 'CapEff', 'CapBnd', 'NoNewPrivs', 'Seccomp', 'Seccomp_filters')},"
    " **{kind: os.readlink(f'/proc/self/ns/{kind}') for kind in os.listdir('/proc/self/ns')},"
    " 'interfaces': [name for _, name in socket.if_nameindex()],"
    " 'fds': sorted(os.listdir('/proc/self/fd'))[:3], 'more': len(os.listdir('/proc/self/fd')) - 4,"
    " 'cwd': os.getcwd(), 'env': sorted(os.environ)}))"
)
SESSION = '/usr/bin/python3 -c "$0"; sleep 300'
SECONDS = 60.0


class Operator:
    """Runs commands by the agent's command line."""

    def __init__(self, agent: str, session: str) -> None:
        self.argv = [agent, "exec", "--session", session]

    def run(self, *command: str, text: str = "", flags: tuple[str, ...] = ()) -> dict[str, Any]:
        argv = [*self.argv, *flags, "--", *command]
        environ = {**os.environ, "PASSED": "passed", "LD_PRELOAD": "", "HTTPS_PROXY": "http://192.0.2.1:1"}
        done = subprocess.run(
            argv, input=text, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        return {"status": done.returncode, "out": done.stdout, "err": done.stderr}


def signalled(operator: Operator) -> int:
    """The status of a command that gets a signal by its caller."""
    # dash forgets a signal that comes between its vfork(2) and the exec: it has none in hand here
    script = "trap 'exit 42' TERM; sleep 300 & echo up; wait"
    running = subprocess.Popen([*operator.argv, "--", "/bin/sh", "-c", script], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline() == "up\n"
    running.send_signal(signal.SIGTERM)
    return running.wait(SECONDS)


def vanish(session: str, mark: str) -> None:
    """Callers who close the connection at once: with half a request, a whole one, one for a terminal that they do not
    take."""
    (path,) = glob.glob(f"/run/parhelia/{session}-*/control/control.sock")
    for number in range(9):
        terminals = [0, 1, 2] if number % 3 == 2 else []
        words = ["/bin/sh", "-c", f"sleep {mark}"]
        body = json.dumps({"verb": "exec", "argv": words, "terminals": terminals}).encode()
        frame = len(body).to_bytes(4, "big") + body
        with socket.socket(socket.AF_UNIX) as link, open(os.devnull, "r+b", buffering=0) as null:
            link.connect(path)
            rights = array.array("i", [null.fileno()] * 3)
            link.sendmsg(
                [frame[: len(frame) // (1 + (number % 3 == 0))]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            )


def gone(mark: str) -> list[str]:
    """What is alive of them in the end."""
    deadline = time.monotonic() + SECONDS
    while left := [entry for entry in os.listdir("/proc") if mark in words_of(entry)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return left


def words_of(entry: str) -> list[str]:
    """The arguments of a process, none where the entry is no process that is alive."""
    try:
        return Path(f"/proc/{entry}/cmdline").read_text().split("\0") if entry.isdigit() else []
    except OSError:
        return []


def main() -> None:
    ident, *argv = sys.argv[1:]
    words = [] if argv[-1] == "--" else ["--"]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
    run = subprocess.Popen([*argv, *words, "/bin/sh", "-c", SESSION, STANDING], **pipes, text=True)
    assert run.stdout is not None
    operator = Operator(argv[argv.index("run") - 1], ident)
    deadline = time.monotonic() + SECONDS
    while not glob.glob(f"/run/parhelia/{ident}-*/held") and time.monotonic() < deadline:
        time.sleep(0.01)
    seen: dict[str, Any] = {"early": operator.run("/bin/true")}  # while the session is made: the agent is waited for
    seen["first"] = json.loads(run.stdout.readline() or "{}")
    seen["standing"] = operator.run("/usr/bin/python3", "-c", STANDING)
    vanish(ident, f"301.{os.getpid()}")
    seen["streams"] = operator.run("/bin/sh", "-c", "cat; echo err >&2; exit 9", text="in\n")
    seen["denied"] = operator.run("rm", "-rf", "/")
    seen["denied_inside"] = operator.run("/bin/sh", "-c", "x=/; rm -r $x; echo after")
    seen["missing"] = operator.run("/nonesuch")
    seen["killed"] = operator.run("/bin/sh", "-c", "kill -9 $$")
    seen["passed"] = operator.run(
        "/usr/bin/env", flags=("--env", "PASSED", "--env", "HTTPS_PROXY", "--workdir", "/usr")
    )
    seen["nowhere"] = operator.run("/bin/true", flags=("--workdir", "/nonesuch"))
    seen["path"] = operator.run("/bin/sh", "-c", "cat /etc/shadow; echo x > /etc/new")
    seen["signalled"] = signalled(operator)
    seen["vanished"] = gone(f"301.{os.getpid()}")
    with open("/etc/shadow", "rb") as secret:  # a stream is handed over; what else it could lead to is not
        argv = [*operator.argv, "--", "/bin/sh", "-c", "cat /proc/self/fd/0/../passwd /etc/shadow; head -c0"]
        done = subprocess.run(argv, stdin=secret, capture_output=True, timeout=SECONDS, check=False)
        seen["reopened"] = {"status": done.returncode, "out": done.stdout.decode()}
    mark = f"300.{os.getpid()}"
    left = subprocess.Popen([*operator.argv, "--", "/bin/sh", "-c", f"setsid sleep {mark} & sleep {mark}"])
    time.sleep(1.0)
    run.terminate()
    seen["ended"] = run.wait(SECONDS)
    seen["left"] = left.wait(SECONDS)
    time.sleep(0.2)
    seen["alive"] = [entry for entry in os.listdir("/proc") if mark in words_of(entry)]
    print(json.dumps(seen))


main()
