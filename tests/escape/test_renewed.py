"""An agent that is told of a restore: other keys, cut connections, and a next guard that goes on in the new stream."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.escape.killer import part
from tests.escape.runtime import Case, Host, policy, read_log, verify

RULES = """\
    - {host: forbidden.test, ports: [{tls}], methods: [GET], paths: ["/pub/**"], addresses: [127.0.0.0/8]}
"""
SESSION = r"""
import json, os, socket, ssl, sys, urllib.parse, urllib.request
http, tls = map(int, sys.argv[1:3])
bundle = os.environ["SSL_CERT_FILE"]
read_at_start = ssl.create_default_context()
proxy = urllib.parse.urlsplit(os.environ["https_proxy"]).port
held = socket.create_connection(("127.0.0.1", proxy), 30)
held.sendall(f"CONNECT allowed.test:{tls} HTTP/1.1\r\nHost: allowed.test:{tls}\r\n\r\n".encode())
held.recv(1000)
held = read_at_start.wrap_socket(held, server_hostname="allowed.test")

def ask(context):
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(f"https://forbidden.test:{tls}/pub/a", None, 60) as answer: return answer.status
    except OSError as error: return str(error)

def look():
    return {"old": ask(read_at_start), "new": ask(ssl.create_default_context()), "last": open(bundle).read()[-700:]}

for line in sys.stdin:
    if line == "held\n":
        held.settimeout(60)
        try: print(json.dumps(len(held.recv(10))), flush=True)
        except (ConnectionResetError, ssl.SSLError): print("0", flush=True)
    else: print(json.dumps(look()), flush=True)
"""


class Session:
    """One that answers a line with what it sees."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.id = f"renewed-{uuid.uuid4().hex[:8]}"
        ports = [str(host.upstream.ports[name]) for name in ("http", "tls")]
        command = ("/usr/bin/python3", "-c", SESSION, *ports)
        case = Case(command, policy(extra_egress=RULES), env={"PARHELIA_SESSION_ID": self.id})
        pipe = subprocess.PIPE
        argv, env = host.command(case), host.environment(case)
        self.process = subprocess.Popen(argv, env=env, stdin=pipe, stdout=pipe, text=True)

    def says(self, word: str) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def restored(self) -> Path:
        """Tell its agent; the directory of the new stream."""
        done = self.host.agent("restored", "of-a-test", "--session", self.id, "--json")
        assert done.returncode == 0, done.stderr
        return self.host.audit / f"restored-{json.loads(done.stdout)['boot']}"

    def kill(self, module: str) -> None:
        pid = part(self.process.pid, module)
        assert pid, module
        os.kill(pid, signal.SIGKILL)

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(60)


def until(holds: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def changes(directory: Path) -> list[tuple[str, str]]:
    """The kinds of the events there that have to do with a part of the agent, and which."""
    details = [event["details"] for event in read_log(directory)]
    return [(each["event_type"], each.get("process", "")) for each in details]


@pytest.mark.root
def test_a_restored_agent_has_other_keys_which_old_programs_trust_and_its_next_guard_goes_on_with_it(
    host: Host,
) -> None:
    """The guard dies as soon as the new stream has begun: before another egress process serves."""
    session = Session(host)
    try:
        first = session.says("look")
        assert (first["old"], first["new"]) == (200, 200)
        child = session.restored()
        parent = read_log(host.audit)
        session.kill("agent.daemon.guard")
        until(lambda: {("agent.recovered", "guard"), ("agent.recovered", "egress")} <= {*changes(child)})
        second = session.says("look")
        assert session.says("held") == 0, "what was connected is cut"
    finally:
        status = session.end()

    assert status == 0
    assert (second["old"], second["new"]) == (200, 200)
    assert first["last"] != second["last"], "another interception CA"
    assert read_log(host.audit) == parent, "nothing is added to the stream of before, by the next guard neither"
    assert changes(child)[0][0] == "agent.start"
    assert changes(child)[-1][0] == "agent.stop"
    assert verify(host.audit) == 0
