"""A session floods the interception engine with what has no end: each connection is cut, and log and counter agree."""

from __future__ import annotations

import http.server
import json
import threading

import pytest

from tests.escape.runtime import Case, Host, policy
from tests.escape.test_secrets import Gateway

RULES = """\
    - {host: forbidden.test, ports: [{tls}], methods: [GET, POST], paths: ["/pub/**"], addresses: [127.0.0.0/8]}
"""
ROUNDS = 2
SESSION = r"""
import json, os, socket, ssl, sys
from urllib.parse import urlsplit
port, rounds = (int(word) for word in sys.argv[1:])
proxy = urlsplit(os.environ["HTTPS_PROXY"])
where = f"forbidden.test:{port}"
def frame(kind, flags, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + (1).to_bytes(4, "big") + payload
chunked = f"POST /pub/x HTTP/1.1\r\nHost: {where}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
unfolding = b"\x82\x84\x87\x40\x01a\x7f\xa1\x1e" + b"b" * 4000 + b"\xbe" * 12000
floods = {
    "a chunk's extension": ("http/1.1", chunked + b"5;", b"a" * 65536),
    "a chunk's size": ("http/1.1", chunked, b"0" * 65536),
    "trailers": ("http/1.1", chunked + b"5\r\nhello\r\n0\r\n", b"x-a: b\r\n" * 8192),
    "a head": ("http/1.1", f"GET /pub/x HTTP/1.1\r\nHost: {where}\r\n".encode(), b"x-a: b\r\n" * 8192),
    "header frames": ("h2", preface + frame(1, 1, b"\x82"), frame(9, 0, b"a" * 16000)),
    "empty header frames": ("h2", preface + frame(1, 1, b"\x82"), frame(9, 0) * 1000),
    "fields that unfold": ("h2", preface + frame(1, 5, unfolding), frame(6, 0, bytes(8))),
}
def flood(alpn, begin, block):
    with socket.create_connection((proxy.hostname, proxy.port), timeout=60) as link:
        link.sendall(f"CONNECT {where} HTTP/1.1\r\n\r\n".encode())
        assert link.recv(4096).startswith(b"HTTP/1.1 200 ")
        trust = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
        trust.set_alpn_protocols([alpn])
        with trust.wrap_socket(link, server_hostname="forbidden.test") as tls:
            assert tls.selected_alpn_protocol() == alpn
            try:
                tls.sendall(begin)
                for _ in range(4000): tls.sendall(block)
            except OSError as error:
                return not isinstance(error, TimeoutError)
    return False
print(json.dumps({name: [flood(*how) for _ in range(rounds)] for name, how in floods.items()}))
"""


@pytest.mark.root
def test_every_flood_of_the_engine_is_cut_recorded_and_counted(host: Host) -> None:
    pushed: list[str] = []
    gateway = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Kept", (Gateway,), {"pushed": pushed}))
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    command = ("/usr/bin/python3", "-c", SESSION, str(host.upstream.ports["tls"]), str(ROUNDS))
    url = f"http://127.0.0.1:{gateway.server_address[1]}"
    outcome = host.run(Case(command, policy(extra_egress=RULES), env={"PARHELIA_PUSHGATEWAY_URL": url}))
    gateway.shutdown()
    gateway.server_close()
    assert outcome.status == 0, outcome.stderr
    cut = json.loads(outcome.stdout)
    assert cut == {name: [True] * ROUNDS for name in cut}
    lines = outcome.of("network.egress_blocked")
    assert {(event["details"]["rule"], event["details"]["mechanism"]) for event in lines} == {
        ("malformed-request", "engine")
    }
    refused = len(cut) * ROUNDS
    assert sum(event["details"].get("count", 1) for event in lines) == refused
    counted = f'parhelia_security_denied_total{{event_type="network.egress_blocked"}} {float(refused)}'
    assert counted in pushed[-1].splitlines()
    assert outcome.verified == 0
