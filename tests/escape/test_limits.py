"""What all processes of a session may take is bounded, and at the bound the agent still decides and records.

Counted loops, not bombs: where a limit did not hold they would end by themselves.
"""

from __future__ import annotations

import json

import pytest

from agent.daemon.ring.limiting import available
from tests.conftest import require
from tests.escape.conftest import RUNTIMES
from tests.escape.runtime import Case, Host, Runtime, policy

PIDS = 60
FILL = r"""
import errno, json, os, signal, socket, sys, time
limit = int(sys.argv[1])
found = {"started": 0}
children = []
try:
    while found["started"] < 3 * limit:
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
        children.append(child)
        found["started"] += 1
except OSError as error:
    found["fork"] = errno.errorcode[error.errno]
try: os.execv(sys.argv[2], sys.argv[2:])
except OSError as error: found["exec"] = errno.errorcode[error.errno]
try:
    proxy = socket.create_connection(("127.0.0.1", int(os.environ["HTTP_PROXY"].rpartition(":")[2])), 60)
    proxy.sendall(b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n")
    found["proxy"] = proxy.recv(12).decode()
except OSError as error: found["proxy"] = repr(error)
print(json.dumps(found), flush=True)
os._exit(3)  # with all children left behind
"""
TAKE = r"""
import os, sys
child = os.fork()
if child == 0:
    kept = bytearray(int(sys.argv[1]))
    kept[::4096] = b"x" * len(kept[::4096])
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def limited(limits: str) -> str:
    return policy() + f"session: {{limits: {{{limits}}}}}\n"


@pytest.mark.parametrize("runtime", RUNTIMES[:2], indirect=True)
def test_a_session_that_starts_ever_more_processes_meets_its_limit_and_the_agent_does_not(runtime: Runtime) -> None:
    """On this machine by a control group, in Docker by the account."""
    command = ("/usr/bin/python3", "-c", FILL, str(PIDS), "/usr/bin/dd", "if=/dev/zero")
    outcome = runtime.run(Case(command, limited(f"pids: {PIDS}")))
    assert outcome.status == 3, outcome.stderr
    found = json.loads(outcome.stdout)
    assert found["fork"] == "EAGAIN"
    assert found["started"] < PIDS
    assert found["exec"] == "EACCES"
    assert found["proxy"] == "HTTP/1.1 403"
    assert [event["details"]["rule"] for event in outcome.of("bash.dangerous")] == ["commands.deny[1]"]
    assert len(outcome.of("network.egress_blocked")) == 1
    assert outcome.verified == 0


def test_a_session_that_takes_ever_more_memory_meets_its_limit(host: Host) -> None:
    require(available()["memory"] == "control group", "a control group for memory")
    command = ("/usr/bin/python3", "-c", TAKE, str(300 << 20))
    outcome = host.run(Case(command, limited("memory: 64MiB")))
    assert (outcome.status, outcome.stdout) == (0, "-9\n"), outcome.stderr
    assert outcome.verified == 0
    assert host.run(Case(command, policy())).stdout == "0\n"


@pytest.mark.parametrize("runtime", RUNTIMES[1:], indirect=True)
def test_a_limit_that_nothing_holds_is_said_and_contained_refuses_it(runtime: Runtime) -> None:
    """No control group for memory in Docker and gVisor."""
    outcome = runtime.run(Case(("/bin/true",), limited("memory: 64MiB")))
    assert outcome.status == 0, outcome.stderr
    said = [event["details"]["reason"] for event in outcome.of("agent.degraded")]
    assert any(reason.startswith("session.limits.memory: ") for reason in said)
    assert "session.limits.memory: " in outcome.stderr
    refused = runtime.run(Case(("/bin/true",), limited("memory: 64MiB"), flags=("--require", "contained")))
    assert refused.status == 5
