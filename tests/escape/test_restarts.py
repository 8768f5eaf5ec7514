"""A part of the agent that dies is replaced while the session goes on; meanwhile nothing is allowed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.escape.conftest import RUNTIMES
from tests.escape.containers import SHARED, Container, Restricted
from tests.escape.runtime import AUDIT, Case, Host, Runtime, policy, read_log, verify
from tests.escape.test_exec_identity import counted

KILLER = Path(__file__).parent / "killer.py"
KILLABLE = [*RUNTIMES[:2], pytest.param("host_without_notify", marks=pytest.mark.root)]
GVISOR = [
    pytest.param(name, marks=[pytest.mark.root, pytest.mark.docker, pytest.mark.gvisor])
    for name in ("gvisor_2022", "gvisor_2024")
]
RULES = """\
    - {host: forbidden.test, ports: [{tls}], methods: [GET], paths: ["/pub/**"], addresses: [127.0.0.0/8]}
    - {host: forbidden.test, ports: [{http}], protocol: http, addresses: [127.0.0.0/8], limits: {upload: 4000}}
"""

TOOLS = """
import json, os, socket, ssl, sys, time, urllib.parse, urllib.request, urllib.error
http, tls, raw = map(int, sys.argv[1:4])
proxy = urllib.parse.urlsplit(os.environ["https_proxy"]).port
context = ssl.create_default_context()
opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))

def ask(url, data=None):
    try:
        with opener.open(url, data, 30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return type(error).__name__

def kill(module):
    print("kill", module, flush=True)
    assert sys.stdin.readline() == "killed\\n"

def tell(**found):
    print(json.dumps(found), flush=True)

def tunnel():
    sock = socket.create_connection(("127.0.0.1", proxy), 30)
    sock.sendall(f"CONNECT allowed.test:{tls} HTTP/1.1\\r\\nHost: allowed.test:{tls}\\r\\n\\r\\n".encode())
    answer = sock.recv(1000).decode()[:12]
    return context.wrap_socket(sock, server_hostname="allowed.test"), answer

def squat():
    for address in ("127.0.0.1", "0.0.0.0", "::1"):
        for option in (None, socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            try:
                sock = socket.socket(family)
                if option: sock.setsockopt(socket.SOL_SOCKET, option, 1)
                sock.bind((address, proxy))
                sock.listen()
                if address != "::1": yield address
            except OSError:
                pass
            finally:
                sock.close()
"""

EGRESS = """
def direct():
    try: socket.create_connection(("127.0.0.1", raw), 1).close()
    except OSError: return "refused"
    return "connected"

sock, first = tunnel()
before = [ask(f"http://allowed.test:{http}/"), ask(f"https://forbidden.test:{tls}/pub/a"),
          ask(f"http://forbidden.test:{http}/", b"x" * 2500), ask("http://evil.test/")]
time.sleep(2.2)  # what was counted is told once a second
kill("agent.enforce.egress.main")
squatted = list(squat())
escaped = direct()
try: cut = len(sock.recv(1000))
except OSError: cut = 0  # a reset, or an end without TLS's own goodbye
after = [ask(f"http://allowed.test:{http}/"), ask(f"https://forbidden.test:{tls}/pub/b"),
         ask(f"http://forbidden.test:{http}/", b"x" * 2500), ask("http://evil.test/"),
         ask(f"https://forbidden.test:{tls}/private")]
kill("agent.enforce.egress.engine_worker")
engine = None
for _ in range(100):  # the first one may still meet the egress process that ends for want of its engine
    engine = ask(f"https://forbidden.test:{tls}/pub/c")
    if engine == 200: break
    time.sleep(0.1)
tell(engine=engine, first=first, before=before, squatted=squatted, direct=escaped, cut=cut, after=after)
"""


@dataclass(frozen=True)
class Killed:
    """What a session left that had parts of its agent killed."""

    lines: list[dict[str, Any]]
    stderr: str
    status: int
    left: int
    events: tuple[dict[str, Any], ...]
    verified: int

    def kinds(self, *wanted: str) -> list[str]:
        kinds = [event["details"]["event_type"] for event in self.events]
        return [kind for kind in kinds if kind in wanted]


def run_with_killer(runtime: Runtime, script: str, rules: str = "") -> Killed:
    """A session that runs `script` behind TOOLS, and pushes its numbers."""
    ports = [*(str(runtime.upstream.ports[name]) for name in ("http", "tls", "raw")), "mkfs"]
    pushed = {"PARHELIA_PUSHGATEWAY_URL": f"http://127.0.0.1:{runtime.upstream.ports['http']}"}
    case = Case(("/usr/bin/env", "python3", "-c", TOOLS + script, *ports), policy(extra_egress=rules), env=pushed)
    return run_case(runtime, case)


def run_case(runtime: Runtime, case: Case, seconds: float = 120) -> Killed:
    """Run it beside the killer, for so long at most."""
    if isinstance(runtime, Container):
        argv = runtime.argv(case)
        if isinstance(runtime, Restricted):
            runtime.own()
        at = argv.index("/opt/parhelia/bin/parhelia-agent")
        done = runtime.execute([*argv[:at], "python3", f"{SHARED}/killer.py", *argv[at:]], case.env)
        audit = runtime.directory / AUDIT
    else:
        assert isinstance(runtime, Host)
        done = subprocess.run(
            [sys.executable, KILLER, *runtime.command(case)],
            env=runtime.environment(case), capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        audit = runtime.audit
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    lines = [json.loads(line) for line in told.pop("lines")]
    return Killed(lines, **told, events=read_log(audit), verified=verify(audit))


def test_an_egress_process_that_dies_is_replaced_and_gives_nothing_away(runtime: Runtime) -> None:
    """Its port is nobody else's meanwhile, its tunnels are cut, programs that trusted its CA trust the next one, and a
    limit that was reached stays reached."""
    killed = run_with_killer(runtime, EGRESS, RULES)
    assert killed.status == 0, killed.stderr
    (found,) = killed.lines
    assert found["first"] == "HTTP/1.1 200"
    assert found["before"] == [200, 200, 200, 403], found
    assert found["after"] == [200, 200, 403, 403, 403], found
    assert (found["squatted"], found["cut"], found["engine"]) == ([], 0, 200)
    assert runtime.upstream.escapes == 0
    changes = [event["details"] for event in killed.events if event["resource"] == "egress"][-4:]
    assert [each["event_type"] for each in changes] == ["agent.degraded", "agent.recovered"] * 2
    assert [each["level"] for each in changes[::2]] == ["off", "off"]
    assert {each["process"] for each in changes[1::2]} == {"egress"}
    blocked = [each for each in killed.events if each["details"]["event_type"] == "network.egress_blocked"]
    rules = [event["details"]["rule"] for event in blocked]
    assert rules.count("limit-upload") == 1
    assert rules.count("egress-default") >= 2
    assert (killed.verified, killed.left) == (0, 0)


LOOP = """
time.sleep(2)  # a guard that has not left anything yet has no successor
for _ in range(3):
    kill("agent.enforce.egress.main")
    tell(status=ask(f"http://allowed.test:{http}/"))
kill("agent.enforce.egress.main")
time.sleep(20)
tell(status="still here")
"""


def test_an_egress_process_that_dies_again_and_again_ends_the_session(host: Host) -> None:
    killed = run_with_killer(host, LOOP)
    assert killed.lines == [{"status": 200}] * 3
    assert killed.status == 137
    assert "died 4 times within 60 seconds" in killed.stderr
    assert killed.kinds("agent.recovered") == ["agent.recovered"] * 3
    ended = [event for event in killed.events if event["details"]["event_type"] == "session.terminate"]
    assert "4 times" in ended[0]["details"]["reason"]
    assert (killed.verified, killed.left) == (0, 0)


RUN = """
import subprocess, threading
def run(*argv):
    try: return subprocess.run(argv, capture_output=True, text=True).stdout
    except PermissionError: return "denied"
"""

GUARD = (
    RUN
    + """
def storm():
    while not ends.is_set():
        ran[run("/bin/echo", "x")] += 1
        refused[run(sys.argv[4], "/dev/null")] += 1

def looks():
    return [run("/bin/echo", "b"), run(sys.argv[4], "/dev/null"), ask(f"http://allowed.test:{http}/"),
            ask("http://evil.test/"), ask(f"https://forbidden.test:{tls}/pub/b"),
            ask(f"http://forbidden.test:{http}/", b"x" * 2500)]

import collections
ends, ran, refused = threading.Event(), collections.Counter(), collections.Counter()
threads = [threading.Thread(target=storm) for _ in range(6)]
for thread in threads: thread.start()
sock, first = tunnel()
tells = []
for _ in range(2):
    tells.append(looks())
    time.sleep(2.2)  # what was counted is told once a second, and left four times a second
    kill("agent.daemon.guard")
    squatted = list(squat())
tells.append(looks())
ends.set()
for thread in threads: thread.join(60)
tell(first=first, looks=tells, squatted=squatted, ran=ran, refused=refused, hung=sum(t.is_alive() for t in threads))
"""
)


@pytest.mark.parametrize("runtime", KILLABLE, indirect=True)
def test_a_guard_that_dies_is_replaced_and_what_was_asked_meanwhile_is_decided_or_denied(runtime: Runtime) -> None:
    """Under a storm of execs: none hangs, none that is refused ever runs, each refusal is in the log; a limit that was
    reached stays reached, and programs that trusted the interception CA trust it still."""
    killed = run_with_killer(runtime, GUARD, RULES)
    assert killed.status == 0, killed.stderr
    (found,) = killed.lines
    first, *later = found["looks"]
    assert first == ["b\n", "denied", 200, 403, 200, 200]
    assert later == [["b\n", "denied", 200, 403, 200, 403]] * 2
    assert (found["squatted"], found["hung"], runtime.upstream.escapes) == ([], 0, 0)
    # denied: what was in hand of either thread of the supervisor's; nothing: it had not come to its first instruction
    assert set(found["ran"]) <= {"x\n", "denied", ""}, found
    assert sum(found["ran"].get(answer, 0) for answer in ("denied", "")) <= 2 * 2
    assert set(found["refused"]) == {"denied"}
    rules = [(event["details"].get("rule"), event["details"].get("count", 1)) for event in killed.events]
    assert sum(count for rule, count in rules if rule == "commands.deny[0]") >= found["refused"]["denied"]
    changes = [event["details"] for event in killed.events if event["details"]["event_type"] == "agent.recovered"]
    assert [each["process"] for each in changes].count("guard") == 2
    assert (killed.verified, killed.left) == (0, 0)


ONE_UID = (
    RUN
    + """
def looks():
    return [run("/bin/echo", "b"), run(sys.argv[4], "/dev/null"), ask(f"http://allowed.test:{http}/"),
            ask("http://evil.test/")]

tells = [looks()]
for module in ("agent.daemon.guard", "agent.enforce.egress.main"):
    kill(module)
    squatted = list(squat())
    tells.append(looks())
tell(looks=tells, squatted=squatted)
"""
)


@pytest.mark.root
@pytest.mark.docker
def test_where_all_is_of_one_uid_guard_and_egress_process_are_replaced_too(restricted_sessions: Restricted) -> None:
    killed = run_with_killer(restricted_sessions, ONE_UID)
    assert killed.status == 0, killed.stderr
    (found,) = killed.lines
    assert found["looks"] == [["b\n", "denied", 200, 403]] * 3
    assert (found["squatted"], restricted_sessions.upstream.escapes) == ([], 0)
    denied = [event["details"].get("rule") for event in killed.events if event["result"] == "denied"]
    assert denied.count("commands.deny[0]") == 3
    assert denied.count("egress-default") in (3, 4), "one that the guard did not live to acknowledge may be there twice"
    changes = [event["details"] for event in killed.events if event["details"]["event_type"] == "agent.recovered"]
    assert "guard" in [each["process"] for each in changes]
    assert (killed.verified, killed.left) == (0, 0)


IN_GVISOR = (
    GUARD[: GUARD.index("def looks")]
    + """
sys.argv[4] = "/usr/sbin/" + sys.argv[4]  # a search along PATH would ask more than once
import collections
ends, ran, refused = threading.Event(), collections.Counter(), collections.Counter()
threads = [threading.Thread(target=storm) for _ in range(3)]
for thread in threads: thread.start()
time.sleep(1)
kill("agent.daemon.guard")
while min(sum(ran.values()), sum(refused.values())) < 30: time.sleep(0.1)
ends.set()
for thread in threads: thread.join(60)
looks = [run("/bin/echo", "b"), run(sys.argv[4], "/dev/null"), ask(f"http://allowed.test:{http}/"), ask("http://evil.test/")]
tell(looks=looks, squatted=list(squat()), ran=ran, refused=refused, hung=sum(t.is_alive() for t in threads))
time.sleep(8)  # until the last numbers are pushed
"""
)


@pytest.mark.parametrize("runtime", GVISOR, indirect=True)
def test_in_gvisor_too_the_session_goes_on_and_every_exec_is_decided(runtime: Runtime) -> None:
    """What is traced waits for the next guard. Less is asked there than above: it takes its time."""
    killed = run_with_killer(runtime, IN_GVISOR)
    assert killed.status == 0, killed.stderr
    (found,) = killed.lines
    assert found["looks"] == ["b\n", "denied", 200, 403]
    assert (found["squatted"], found["hung"], runtime.upstream.escapes) == ([], 0, 0)
    assert set(found["ran"]) <= {"x\n", "denied", ""}, found
    assert found["ran"]["x\n"] >= sum(found["ran"].values()) - 1, "one exec is in hand of the guard's at most"
    assert set(found["refused"]) == {"denied"}
    rules = Counter[str]()
    for event in killed.events:
        rules[event["details"].get("rule")] += event["details"].get("count", 1)
    recorded = rules["commands.deny[0]"] + rules["agent-fault"]
    seen = found["refused"]["denied"] + 1 + found["ran"].get("denied", 0) + found["ran"].get("", 0)
    assert 0 <= recorded - seen <= 1, (rules, found)  # one may have been recorded and not answered
    assert recorded == counted(runtime)
    changes = [event["details"] for event in killed.events if event["details"]["event_type"] == "agent.recovered"]
    assert sorted(each["process"] for each in changes) == ["egress", "guard"], "whichever serves first"
    assert (killed.verified, killed.left) == (0, 0)


def test_a_guard_that_dies_again_and_again_ends_the_session(host: Host) -> None:
    script = LOOP.replace("agent.enforce.egress.main", "agent.daemon.guard")
    waits = '    subprocess.run(["/bin/true"])  # until another guard decides: the egress process of before has ended'
    script = "import subprocess\n" + script.replace("    tell(", f"{waits}\n    tell(", 1)
    killed = run_with_killer(host, script)
    assert killed.lines == [{"status": 200}] * 3
    assert killed.status == 137
    assert "the guard died 4 times within 60 seconds; the session is ended" in killed.stderr
    assert (killed.verified, killed.left) == (0, 0)
