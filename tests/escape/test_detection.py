"""What a session does again and again is detected: on record, counted, pushed, and answered as the policy says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.escape.runtime import Case, Host, Runtime, policy
from tests.escape.telling import Telling, beside
from tests.escape.test_live_policy import until

DETECT = """\
detect:
  - id: ten-denials
    when: {events: [bash.dangerous, network.egress_blocked], result: denied}
    count: 10
    within: 60s
    severity: critical
  - id: privileges
    when: {events: bash.dangerous, tags: [privilege]}
    count: 2
    within: 60s
"""
BECOME = """\
    - id: become
      match: {program: chroot}
      tags: [privilege]
      examples: {match: [chroot /], no_match: [ls]}
"""


# What no text shows: the exec ring decides.
NAMES = "rm=$(id -un | sed s/session/rm/); chroot=$(id -un | sed s/session/chroot/); "


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[bytes]]]:
    """What is pushed, and where to."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", bodies
        server.shutdown()
        thread.join()


def test_ten_denials_of_a_session_are_one_detection_on_record(runtime: Runtime) -> None:
    script = f"{NAMES}for n in 1 2 3 4 5 6 7 8 9 10 11; do $rm -rf /etc/$n; done; $chroot / true; exit 5"
    outcome = runtime.run(Case(("/bin/sh", "-c", script), policy(commands=BECOME) + DETECT))
    assert outcome.status == 5, outcome.stderr
    assert sum(event["details"].get("count", 1) for event in outcome.of("bash.dangerous")) == 12
    (told,) = outcome.of("detection.triggered")
    details = told["details"]
    assert (details["detector"], details["counted"], details["window_seconds"]) == ("ten-denials", "events", 60)
    assert details["occurrences"] >= 10
    assert details["severity"] == "critical"
    assert details["where"].endswith("policy.yaml:" + details["where"].rsplit(":", 1)[1])
    assert outcome.verified == 0


def test_a_detection_is_counted_and_pushed(host: Host, gateway: tuple[str, list[bytes]]) -> None:
    """While the session runs: it ends when the number has come."""
    url, bodies = gateway
    line = b'parhelia_agent_detections_total{detector="privileges",severity="high"} 1.0'
    telling = Telling(host)
    script = f"{NAMES}for n in 1 2; do $chroot / true; done; {telling.waits('pushed')}"
    case = Case(("/bin/sh", "-c", script), policy(commands=BECOME) + DETECT, env={"PARHELIA_PUSHGATEWAY_URL": url})
    with beside(lambda: until(lambda: any(line in body for body in bodies), "the number"), telling, "pushed"):
        outcome = host.run(case)
    (told,) = outcome.of("detection.triggered")
    assert told["details"]["detector"] == "privileges"
    assert line in bodies[-1]
    assert b'parhelia_agent_detections_total{detector="ten-denials",severity="critical"} 0.0' in bodies[-1]


def answered(measure: str) -> str:
    return DETECT.replace("    within: 60s\n    severity", f"    within: 60s\n    respond: [{measure}]\n    severity")


def test_a_detector_that_kills_ends_the_session_and_the_log_is_whole(runtime: Runtime) -> None:
    script = f"{NAMES}n=0; while [ $n -lt 3000 ]; do n=$((n+1)); $rm -rf /etc/$n 2>&1; done; echo survived; exit 5"
    outcome = runtime.run(Case(("/bin/sh", "-c", script), policy() + answered("kill")))
    assert "survived" not in outcome.stdout
    assert outcome.status == 137, outcome.stderr
    (told,) = outcome.of("detection.triggered")
    assert told["details"]["response"] == ["kill"]
    (contained,) = outcome.of("agent.lockdown")
    assert contained["details"]["measures"] == ["cut", "freeze", "kill"]
    assert "ten-denials" in contained["details"]["cause"]
    assert contained["actor"] == "agent"
    (ended,) = outcome.of("session.terminate")
    assert "ten-denials" in ended["details"]["reason"]
    assert outcome.verified == 0


GET = """\
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def test_a_detector_that_cuts_egress_closes_what_was_allowed_and_the_session_goes_on(runtime: Runtime) -> None:
    url = f"http://allowed.test:{runtime.upstream.ports['http']}/"
    write = f"cat > /tmp/get.py <<'EOF'\n{GET}EOF\nget() {{ /usr/bin/python3 /tmp/get.py {url}; }}\n"
    refused = "for n in 1 2 3 4 5 6 7 8 9 10; do $rm -rf /etc/$n; done"
    cut = 'n=0; while [ $n -lt 100 ] && [ "$(get)" != 403 ]; do n=$((n+1)); sleep 0.1; done'
    script = f"{write}{NAMES}get; {refused}; {cut}; get; exit 5"
    outcome = runtime.run(Case(("/bin/sh", "-c", script), policy() + answered("cut-egress")))
    assert outcome.status == 5, outcome.stderr
    assert outcome.stdout.split() == ["200", "403"], outcome.stderr
    (contained,) = outcome.of("agent.lockdown")
    assert contained["details"]["measures"] == ["cut"]
    blocked = outcome.of("network.egress_blocked")
    assert {event["details"]["rule"] for event in blocked} == {"lockdown"}
    assert blocked[-1]["resource"] == f"allowed.test:{runtime.upstream.ports['http']}"
    assert outcome.verified == 0
