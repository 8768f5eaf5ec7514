"""Every line about a connection names the session's process behind it, on every runtime."""

from __future__ import annotations

from typing import Any

from tests.escape.client import Ask, requests
from tests.escape.runtime import Case, Runtime, policy

INTERCEPTED = "    - {host: forbidden.test, ports: [{tls}], methods: [GET], addresses: [127.0.0.0/8]}\n"


def _client(details: dict[str, Any]) -> tuple[str, list[str]]:
    return details["exe"].rpartition("/")[2][:7], details["argv"][:2]


def test_allowed_denied_and_intercepted_connections_name_their_process(runtime: Runtime) -> None:
    ports = runtime.upstream.ports
    answers, outcome = requests(
        runtime,
        Ask(f"http://allowed.test:{ports['http']}/"),
        Ask("https://evil.test/"),
        Ask(f"https://forbidden.test:{ports['tls']}/", method="POST", body="x"),
        rules=INTERCEPTED,
    )
    assert [answer.get("status") for answer in answers] == [200, None, 403]
    allowed, _ = outcome.of("network.egress")
    for event in (allowed, *outcome.of("network.egress_blocked")):
        details = event["details"]
        assert _client(details) == ("python3", ["/usr/bin/python3", "-c"])
        assert details["uid"] > 0
        assert details["user"] == "session"
        assert details["pid"] != details["ppid"]
    assert len(outcome.of("network.egress_blocked")) == 2


LOOKUPS = r"""
import socket, sys
for name in ("first.evil.test", "second.evil.test"):
    try: socket.getaddrinfo(name, 443)
    except socket.gaierror as error: print(name, error.args[0])
"""


def test_a_refused_lookup_names_its_process_whichever_way_it_was_asked(runtime: Runtime) -> None:
    """By datagrams in the jail, by TCP where the guard makes the session's sockets."""
    outcome = runtime.run(Case(("/usr/bin/python3", "-c", LOOKUPS), policy()))
    assert len(outcome.stdout.split()) == 4, outcome.stderr
    refused = outcome.of("network.egress_blocked")
    assert {event["resource"] for event in refused} >= {"first.evil.test:53", "second.evil.test:53"}
    for event in refused:
        details = event["details"]
        assert (details["mechanism"], details.get("transport")) in (("dns", "udp"), ("dns", None))
        assert details["exe"].rpartition("/")[2].startswith("python3"), details
        assert details["user"] == "session"
    if runtime.name != "docker":
        assert {event["details"]["transport"] for event in refused} == {"udp"}
