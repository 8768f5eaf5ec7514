"""A session floods the proxy with what is refused: every refusal is counted, the log holds their exact sum in few
lines, the agent's memory stays what it was, and an allowed connection goes on meanwhile."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path

import pytest

from tests.escape.runtime import Case, Host, policy
from tests.escape.test_secrets import Gateway

ONE_NAME, MANY_NAMES = 8000, 2000
GROWTH = 64 * 1024 * 1024
SESSION = r"""
import json, os, socket, sys, threading
from urllib.parse import urlsplit
port, one, many = (int(word) for word in sys.argv[1:])
proxy = urlsplit(os.environ["HTTPS_PROXY"])
near = (proxy.hostname, proxy.port)
hosts = ["evil.test"] * one + [f"n{number}.evil.test" for number in range(many)]
refused, echoed, flooding = [0] * 4, 0, True
def flood(at):
    for host in hosts[at::4]:
        with socket.create_connection(near, timeout=60) as link:
            link.sendall(f"CONNECT {host}:443 HTTP/1.1\r\n\r\n".encode())
            refused[at] += link.recv(64).startswith(b"HTTP/1.1 403 ")
link = socket.create_connection(near, timeout=60)
where = f"allowed.test:{port}"
ask = f"GET http://{where}/ HTTP/1.1\r\nHost: {where}\r\n\r\n".encode()
threads = [threading.Thread(target=flood, args=(at,)) for at in range(4)]
for thread in threads: thread.start()
while any(thread.is_alive() for thread in threads):
    link.sendall(ask)
    echoed += link.recv(65536).startswith(b"HTTP/1.1 200 ")
for thread in threads: thread.join()
print(json.dumps([sum(refused), echoed]))
"""


def peaks(found: dict[str, list[int]], stop: threading.Event) -> None:
    """Note the resident size of this test's egress process and guard until told to stop: the first and the highest."""
    while not stop.wait(0.2):
        for pid in descendants():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            for module in ("agent.enforce.egress.main", "agent.daemon.guard"):
                if module.encode() in words and "VmRSS:" in status:
                    found.setdefault(module, []).append(int(status.split("VmRSS:")[1].split()[0]) * 1024)


def descendants() -> list[int]:
    found, todo = [], ["self"]
    while todo:
        for children in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
            try:
                pids = children.read_text().split()
            except OSError:
                continue
            found += map(int, pids)
            todo += pids
    return found


@pytest.mark.root
def test_every_refusal_of_a_flood_is_counted_and_others_go_on(host: Host) -> None:
    pushed: list[str] = []
    gateway = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Kept", (Gateway,), {"pushed": pushed}))
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    sizes: dict[str, list[int]] = {}
    stop = threading.Event()
    watch = threading.Thread(target=peaks, args=(sizes, stop))
    watch.start()
    words = [str(host.upstream.ports["http"]), str(ONE_NAME), str(MANY_NAMES)]
    url = f"http://127.0.0.1:{gateway.server_address[1]}"
    command = ("/usr/bin/python3", "-c", SESSION, *words)
    outcome = host.run(Case(command, policy(), env={"PARHELIA_PUSHGATEWAY_URL": url}))
    stop.set()
    watch.join()
    gateway.shutdown()
    gateway.server_close()
    assert outcome.status == 0, outcome.stderr
    refused, answered = json.loads(outcome.stdout)
    assert refused == ONE_NAME + MANY_NAMES
    assert answered > 10
    lines = outcome.of("network.egress_blocked")
    counts = [event["details"].get("count", 1) for event in lines]
    assert sum(counts) == refused
    assert len([event for event in lines if event["resource"] == "evil.test:443"]) < ONE_NAME / 10
    assert outcome.of("audit.gap") == []
    assert outcome.verified == 0
    counted = f'parhelia_security_denied_total{{event_type="network.egress_blocked"}} {float(refused)}'
    assert counted in pushed[-1].splitlines()
    assert set(sizes) == {"agent.enforce.egress.main", "agent.daemon.guard"}
    for module, seen in sizes.items():
        settled = seen[min(len(seen) - 1, 10)]  # imported by then
        assert max(seen) - settled < GROWTH, module
