"""Beside a session: an operator who contains it step by step and tells what became of it.

`lockdown_inside.py TLS_PORT SESSION_ID AGENT_ARGV…` prints one JSON object. Standard library only. Runs on this machine
or, where the agent is a container's, in that.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SESSION = r"""
import json, os, socket, ssl, sys, threading, time
from urllib.parse import urlsplit
port, directory, proxy = sys.argv[1], sys.argv[2], urlsplit(os.environ["HTTPS_PROXY"])
ask = f"CONNECT allowed.test:{port} HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n".encode()
def connect():
    link = socket.create_connection((proxy.hostname, proxy.port), timeout=90)
    link.sendall(ask)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += link.recv(1) or b"\r\n\r\n"
    return link, head.decode()
def tell(name, text):
    with open(f"{directory}/{name}.new", "w") as file: file.write(text)
    os.rename(f"{directory}/{name}.new", f"{directory}/{name}")
def count():
    n = 0
    while True:
        n += 1
        tell("count", str(n))
        time.sleep(0.01)
if os.fork() == 0:
    os.setsid()
    count()
link, head = connect()
trust, how = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]), "time"
try:
    with trust.wrap_socket(link, server_hostname="allowed.test") as tls:
        for _ in range(900):
            tls.sendall(b"GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n")
            if not tls.recv(65536):
                how = "end"
                break
            tell("tunnel", "open")
            time.sleep(0.1)
except (ConnectionResetError, BrokenPipeError, ssl.SSLError) as error:
    how = type(error).__name__
tell("next", json.dumps([how, connect()[1]]))
time.sleep(300)
"""
SECONDS = 60.0


def until(path: Path, run: subprocess.Popen[bytes]) -> str:
    """The file's text, once it is there."""
    deadline = time.monotonic() + SECONDS
    while not path.exists():
        if run.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"in vain waited for {path.name}: {run.poll()}")
        time.sleep(0.02)
    return path.read_text()


def counts(directory: Path, seconds: float = 30.0) -> bool:
    """Whether the session's counter goes on within this time."""
    before, deadline = (directory / "count").read_text(), time.monotonic() + seconds
    while time.monotonic() < deadline and (directory / "count").read_text() == before:
        time.sleep(0.02)
    return (directory / "count").read_text() != before


class Operator:
    """Asks the agent by its command line."""

    def __init__(self, agent: str, session: str) -> None:
        self._agent = agent
        self._session = session

    def ask(self, *words: str) -> dict[str, Any]:
        argv = [self._agent, *words, "--session", self._session, "--json"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
        return {"exit": done.returncode, **json.loads(done.stdout or "{}"), "stderr": done.stderr}


def left(uid: int, tag: str) -> list[int]:
    """Processes of the session that are alive."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            if os.stat(f"/proc/{entry}").st_uid == uid and tag in Path(f"/proc/{entry}/cmdline").read_text():
                found.append(int(entry))
        except (OSError, ValueError):
            continue
    return found


def main() -> None:
    port, ident, *argv = sys.argv[1:]
    operator = Operator(argv[argv.index("run") - 1], ident)
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="lockdown-") as name:
        directory = Path(name)
        directory.chmod(0o777)
        words = [] if argv[-1] == "--" else ["--"]
        session = ["/usr/bin/python3", "-c", SESSION, port, name, "--password", "hunter2"]
        run = subprocess.Popen([*argv, *words, *session], stdin=subprocess.DEVNULL)
        seen: dict[str, Any] = {}
        until(directory / "tunnel", run)
        seen["before"] = operator.ask("status")["status"]
        seen["degraded"] = [level for level in seen["before"]["levels"].values() if level != "enforced"]
        seen["cut"] = operator.ask("lockdown", "--cut", "--reason", "try it")
        seen["tunnel"], seen["next"] = json.loads(until(directory / "next", run))
        seen["counts_while_cut"] = counts(directory)
        seen["freeze"] = operator.ask("lockdown")
        seen["counts_while_frozen"] = counts(directory, 1.0)
        seen["frozen"] = operator.ask("status")["status"]
        seen["lift"] = operator.ask("lockdown", "--lift")
        seen["counts_after"] = counts(directory)
        seen["kill"] = operator.ask("lockdown", "--kill", "--reason", "enough")
        seen["status"] = run.wait(SECONDS)
        seen["left"] = left(pwd.getpwnam("session").pw_uid, name)
        seen["unreachable"] = operator.ask("status")["exit"]
        print(json.dumps(seen))


main()
