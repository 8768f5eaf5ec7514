"""A service on the machine's own loopback (a sidecar) is a destination like any other: by a rule, through the proxy."""

from __future__ import annotations

import json

from tests.escape.runtime import Case, Runtime, policy

RULE = "    - {host: 127.0.0.1, protocol: tcp, ports: [{http}], addresses: [127.0.0.1/32]}\n"
SCRIPT = r"""
import json, os, socket, sys
from urllib.parse import urlsplit
place = urlsplit(os.environ["HTTPS_PROXY"])
def by_proxy(port):
    with socket.create_connection((place.hostname, place.port), 10) as link:
        link.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        link.settimeout(60)
        said = link.recv(4096)
        if b" 200 " not in said.split(b"\r\n")[0]: return said.split(b"\r\n")[0].decode()
        link.sendall(b"GET / HTTP/1.1\r\nHost: sidecar\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: link.recv(4096), b"")).decode()
print(json.dumps([by_proxy(port) for port in sys.argv[1:]]))
"""


def test_a_service_on_loopback_is_reached_by_its_rule_and_its_neighbour_is_not(runtime: Runtime) -> None:
    ports = runtime.upstream.ports
    before = runtime.upstream.escapes
    command = ("/usr/bin/python3", "-c", SCRIPT, str(ports["http"]), str(ports["raw"]))
    outcome = runtime.run(Case(command, policy(extra_egress=RULE)))
    assert outcome.status == 0, outcome.stderr
    reached, refused = json.loads(outcome.stdout)
    assert reached.endswith("reached sidecar\n"), reached
    assert refused.startswith("HTTP/1.1 403 "), refused
    (event,) = outcome.of("network.egress_blocked")
    assert (event["resource"], event["details"]["rule"]) == (f"127.0.0.1:{ports['raw']}", "egress-default")
    (allowed,) = outcome.of("network.egress")
    assert allowed["resource"] == f"127.0.0.1:{ports['http']}"
    assert runtime.upstream.escapes == before
