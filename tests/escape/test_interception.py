"""Hosts with method or path rules: every request inside TLS is decided, and the session trusts the agent's own CA."""

from __future__ import annotations

from tests.escape.client import Ask, requests
from tests.escape.runtime import Case, Runtime, policy

RULES = """\
    - {host: forbidden.test, ports: [{tls}], methods: [GET], paths: ["/pub/**"], addresses: [127.0.0.0/8]}
"""


def test_each_request_inside_tls_is_decided_by_method_and_path(runtime: Runtime) -> None:
    base = f"https://forbidden.test:{runtime.upstream.ports['tls']}"
    answers, outcome = requests(
        runtime,
        Ask(f"{base}/pub/a"),
        Ask(f"{base}/private"),
        Ask(f"{base}/pub/../private"),
        Ask(f"{base}/pub/a", method="POST", body="x=1"),
        Ask(f"{base}/pub/a", headers={"Host": "allowed.test"}),
        rules=RULES,
    )
    assert [answer.get("status") for answer in answers] == [200, 403, 403, 403, 421], answers
    assert answers[0]["body"] == f"reached forbidden.test:{runtime.upstream.ports['tls']}\n"
    blocked = outcome.of("network.egress_blocked")
    assert [(event["details"]["method"], event["details"]["path"]) for event in blocked[:3]] == [
        ("GET", "/private"),
        ("GET", "/pub/../private"),
        ("POST", "/pub/a"),
    ]
    assert len(blocked) == 4
    assert outcome.verified == 0


def test_only_hosts_that_need_inspection_are_shown_the_agents_certificate(runtime: Runtime) -> None:
    port = runtime.upstream.ports["tls"]
    (tunnelled, inspected), _ = requests(
        runtime, Ask(f"https://allowed.test:{port}/"), Ask(f"https://forbidden.test:{port}/pub/x"), rules=RULES
    )
    assert "allowed.test" in tunnelled["issuer"], tunnelled
    assert "allowed.test" not in inspected["issuer"], inspected
    assert inspected["status"] == 200


def test_the_key_of_the_agents_ca_is_nowhere_that_the_session_can_read(runtime: Runtime) -> None:
    script = (
        "grep -c 'BEGIN CERTIFICATE' $SSL_CERT_FILE; "
        "for f in /run/parhelia/* /run/parhelia/*/* /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/fd/* "
        "/proc/[0-9]*/mem; do [ -f $f ] && [ $f != /proc/$$/cmdline ] && grep -ls 'PRIVATE KEY' $f; done; true"
    )
    outcome = runtime.run(Case(("/bin/sh", "-c", script), policy(extra_egress=RULES)))
    assert outcome.status == 0, outcome.stderr
    certificates, *found = outcome.stdout.splitlines()
    assert int(certificates) > 1
    assert found == []
