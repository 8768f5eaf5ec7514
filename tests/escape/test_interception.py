"""Hosts with method or path rules: every request inside TLS is decided, and the session trusts the agent's own CA."""

from __future__ import annotations

from tests.escape.runtime import Case, Runtime, policy

RULES = """\
    - {host: forbidden.test, ports: [{tls}], methods: [GET], paths: ["/pub/**"], addresses: [127.0.0.0/8]}
"""
CURL = "curl -sS --max-time 30 --noproxy '' -w '%{http_code}\\n'"


def test_each_request_inside_tls_is_decided_by_method_and_path(runtime: Runtime) -> None:
    base = f"https://forbidden.test:{runtime.upstream.ports['tls']}"
    requests = [
        f"{CURL} {base}/pub/a",
        f"{CURL} -o /dev/null {base}/private",
        f"{CURL} -o /dev/null --path-as-is {base}/pub/../private",
        f"{CURL} -o /dev/null -d x=1 {base}/pub/a",
        f"{CURL} -o /dev/null -H 'Host: allowed.test' {base}/pub/a",
    ]
    outcome = runtime.run(Case(("/bin/sh", "-c", "; ".join(requests)), policy(extra_egress=RULES)))
    reached = f"reached forbidden.test:{runtime.upstream.ports['tls']}"
    assert outcome.stdout.split("\n") == [reached, "200", "403", "403", "403", "421", ""], outcome.stderr
    blocked = outcome.of("network.egress_blocked")
    assert [(event["details"]["method"], event["details"]["path"]) for event in blocked[:3]] == [
        ("GET", "/private"),
        ("GET", "/pub/../private"),
        ("POST", "/pub/a"),
    ]
    assert len(blocked) == 4
    assert outcome.verified == 0


def test_a_host_that_needs_no_inspection_is_tunnelled_with_its_own_certificate(runtime: Runtime) -> None:
    port = runtime.upstream.ports["tls"]
    script = f"{CURL} -o /dev/null -v https://allowed.test:{port}/ 2>&1 | grep -i 'issuer:'"
    outcome = runtime.run(Case(("/bin/sh", "-c", script), policy(extra_egress=RULES)))
    assert "CN=allowed.test" in outcome.stdout, outcome.stdout + outcome.stderr


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
