"""A session on this machine that lives as long as a test wants, and says what it sees when it is asked."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.escape.killer import part
from tests.escape.runtime import RUN_SECONDS, Case, Host, policy, read_log
from tests.escape.without_notify import HostUnsupervised

GUARD = "agent.daemon.guard"
EGRESS = "agent.enforce.egress.main"
SESSION = r"""
import json, subprocess, sys, time, urllib.request, urllib.error
http, refused = sys.argv[1:]

def run(*argv):
    try: return subprocess.run(argv, capture_output=True, text=True).stdout
    except PermissionError: return "denied"

def ask(host):
    for _ in range(300):  # an egress process that is about to end may still accept
        try:
            with urllib.request.urlopen(f"http://{host}:{http}/", None, 30) as answer: return answer.status
        except urllib.error.HTTPError as error: return error.code
        except OSError: time.sleep(0.1)

for line in sys.stdin:
    seen = [run("/bin/echo", "ran"), run(f"/usr/sbin/{refused}"), ask("allowed.test"), ask("evil.test")]
    print(json.dumps(seen), flush=True)
"""


PLAIN = """while read line; do curl -s -o /dev/null -w '["ran", %{http_code}]\\n' "$1"; done"""


class Living:
    """One session. `end` says how it ended; a test that fails before leaves it to `kill_all`."""

    def __init__(self, host: Host, around: tuple[str, ...] = ()) -> None:
        self.host = host
        self.id = f"living-{uuid.uuid4().hex[:8]}"
        port = str(host.upstream.ports["http"])
        command = ("/usr/bin/python3", "-c", SESSION, port, "mkfs")
        self.well: list[object] = ["ran\n", "denied", 200, 403]
        """What it says where all is as it should be."""
        if isinstance(host, HostUnsupervised):  # nothing that could not be known before it runs
            command = ("/bin/sh", "-c", PLAIN, "sh", f"http://allowed.test:{port}/")
            self.well = ["ran", 200]
        case = Case(command, policy(), env={"PARHELIA_SESSION_ID": self.id})
        pipe = subprocess.PIPE
        argv, env = [*around, *host.command(case)], host.environment(case)
        self.process = subprocess.Popen(argv, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        try:
            self.say()
            assert self.hear() == self.well
        except BaseException:
            self.kill_all()
            raise

    def say(self) -> None:
        """Have it look."""
        assert self.process.stdin is not None
        self.process.stdin.write("look\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """What it saw; None where it has ended. Raises AssertionError where it says nothing."""
        out = self.process.stdout
        assert out is not None
        assert select.select([out], [], [], RUN_SECONDS)[0], "the session says nothing"
        return json.loads(out.readline() or "null")

    def part(self, module: str) -> int:
        """The process that runs this module of the agent's; 0 where none does."""
        return part(self.process.pid, module)

    def agent(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A verb, asked of this session."""
        return self.host.agent(words[0], "--session", self.id, *words[1:])

    def details(self, kind: str, audit: Path | None = None) -> list[dict[str, Any]]:
        """Of the events of this kind so far."""
        found = [event["details"] for event in read_log(audit or self.host.audit)]
        return [each for each in found if each["event_type"] == kind]

    def recovered(self, process: str) -> int:
        """How often such a part has been replaced, by the log."""
        return [each["process"] for each in self.details("agent.recovered")].count(process)

    def end(self) -> int:
        """Its status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(RUN_SECONDS)

    def kill_all(self) -> None:
        """Where it has not ended: the keeper's end is the end of all."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            os.kill(self.process.pid, signal.SIGKILL)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        self.process.wait(RUN_SECONDS)


def until(holds: Callable[[], Any], what: str) -> None:
    """Wait for it. Raises AssertionError where it never comes."""
    end = time.monotonic() + RUN_SECONDS
    while not holds():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.05)
