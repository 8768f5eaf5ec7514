"""The proxy's front under policies of a test's own: raw tunnels, faults, limits, observing, real TLS."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from agent.policy.model import Mode
from agent.policy.request import Protocol
from tests.enforce.egress.proxy import (
    SECONDS,
    Proxy,
    client_hello,
    collect,
    echo,
    eventually,
    policy,
    read_all,
    read_exactly,
    read_head,
    rule,
    running,
    upstream,
)
from tests.enforce.egress.test_front import HERE, NAMES, connect


def test_a_rule_for_raw_tcp_tunnels_whatever_comes_from_either_side(tmp_path: Path) -> None:
    def greet(sock: socket.socket, received: bytearray) -> None:
        sock.sendall(b"SSH-2.0-server\r\n")
        echo(sock, received)

    with (
        upstream(greet) as server,
        running(policy(rule("raw.good.test", server.port, protocol=Protocol.TCP)), NAMES, tmp_path) as proxy,
        proxy.tunnel("raw.good.test", server.port) as sock,
    ):
        assert read_exactly(sock, 16) == b"SSH-2.0-server\r\n"
        sock.sendall(b"anything")
        assert read_exactly(sock, 8) == b"anything"


def test_a_rule_for_plain_http_is_no_rule_for_a_tunnel(tmp_path: Path) -> None:
    with running(policy(rule("web.good.test", 80, protocol=Protocol.HTTP)), NAMES, tmp_path) as proxy:
        assert proxy.ask(connect("web.good.test:80")).startswith(b"HTTP/1.1 403 ")


def test_an_upstream_that_refuses_or_has_no_name_is_502_with_the_reason(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    given = policy(rule("*.good.test", closed))
    with running(given, {"api.good.test": HERE}, tmp_path) as proxy:
        refused = proxy.ask(connect(f"api.good.test:{closed}"))
        assert refused.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert b"Connection refused" in refused
        unknown = proxy.ask(connect(f"none.good.test:{closed}"))
        assert unknown.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert b"cannot be resolved" in unknown


def test_the_next_address_is_tried_when_one_refuses(tmp_path: Path) -> None:
    with (
        upstream(address="127.0.0.3") as server,
        running(
            policy(rule("api.good.test", server.port)), {"api.good.test": [["127.0.0.2", "127.0.0.3"]]}, tmp_path
        ) as proxy,
        proxy.tunnel("api.good.test", server.port) as sock,
    ):
        hello = client_hello("api.good.test")
        sock.sendall(hello)
        assert read_exactly(sock, len(hello)) == hello


@pytest.mark.row(10)
def test_an_empty_policy_lets_nothing_out(tmp_path: Path) -> None:
    with running(policy(), NAMES, tmp_path) as proxy:
        assert proxy.ask(connect("api.good.test:443")).startswith(b"HTTP/1.1 403 ")
        assert proxy.ask(b"GET http://api.good.test/ HTTP/1.1\r\nHost: api.good.test\r\n\r\n").startswith(
            b"HTTP/1.1 403 "
        )
        assert proxy.lookups() == []


def test_a_deny_rule_beats_an_allow_and_gives_its_own_words(tmp_path: Path) -> None:
    closed = rule("x.good.test", id="no-x", reason="pastes are a way out\x1b[2J", instead="use api.good.test")
    with running(policy(rule("*.good.test"), deny=[closed]), NAMES, tmp_path) as proxy:
        answer = proxy.ask(connect("x.good.test:443"))
        assert b"X-Parhelia-Rule: no-x\r\n" in answer
        assert b"pastes are a way out" in answer
        assert b"use api.good.test" in answer
        assert b"\x1b" not in answer


@pytest.mark.parametrize("broken", [{"pattern": None}, {"addresses": 17}, {"ports": "443"}])
@pytest.mark.row(40)
def test_a_policy_that_makes_the_decision_raise_means_no_egress(tmp_path: Path, broken: dict[str, object]) -> None:
    given = policy(replace(rule("api.good.test"), **{"ports": None, **broken}))
    with upstream() as server, running(given, NAMES, tmp_path) as proxy:
        for _ in range(2):
            answer = proxy.ask(connect(f"api.good.test:{server.port}"))
            assert answer.startswith(b"HTTP/1.1 403 ")
            assert b"X-Parhelia-Rule: agent-fault\r\n" in answer
        assert server.conversations == []
        assert proxy.event(rule="agent-fault")["result"] == "denied"


def test_an_allow_that_the_guard_does_not_take_is_refused(tmp_path: Path) -> None:
    with upstream() as server, running(policy(rule("api.good.test", server.port)), NAMES, tmp_path) as proxy:
        proxy.accepting = lambda message: "disk full"
        answer = proxy.ask(connect(f"api.good.test:{server.port}"))
        assert b"X-Parhelia-Rule: audit-unavailable\r\n" in answer
        assert server.conversations == []


def test_observe_mode_lets_through_and_records_what_it_would_have_blocked(tmp_path: Path) -> None:
    with (
        upstream() as server,
        running(policy(rule("api.good.test"), mode=Mode.OBSERVE), NAMES, tmp_path) as proxy,
        proxy.tunnel("evil.test", server.port) as sock,
    ):
        sock.sendall(b"not even TLS")
        assert read_exactly(sock, 12) == b"not even TLS"
        event = proxy.event(type="network.egress_blocked", resource=f"evil.test:{server.port}")
        assert (event["result"], event["details"]["enforced"]) == ("success", False)


def test_past_the_most_connections_the_next_is_told_so(tmp_path: Path) -> None:
    with running(policy(), {}, tmp_path, connections=5) as proxy:
        held = [proxy.connect() for _ in range(5)]
        try:
            answer = proxy.ask(b"")
            assert answer.startswith(b"HTTP/1.1 403 ")
            assert b"\r\nX-Parhelia-Rule: limit-connections\r\n" in answer
            assert b"5 connections of the session are open" in answer
            proxy.event(type="network.egress_blocked", rule="limit-connections", result="denied")
        finally:
            for sock in held:
                sock.close()

        def free() -> bool:
            return b"X-Parhelia-Rule: egress-default" in proxy.ask(connect("evil.test:443"))

        eventually(free)


@pytest.mark.row(41)
def test_a_burst_of_denials_is_counted_to_the_last(tmp_path: Path) -> None:
    burst = 2000
    with running(policy(), {}, tmp_path) as proxy:
        for _ in range(burst):
            with proxy.connect() as sock:
                sock.sendall(connect("evil.test:443"))
                assert read_head(sock).startswith(b"HTTP/1.1 403 ")
        proxy.wait(lambda p: sum(m["event"]["details"].get("count", 1) for m in p.events) >= burst)
        assert sum(m["event"]["details"].get("count", 1) for m in proxy.events) == burst


@pytest.mark.row(42)
def test_many_idle_tunnels_do_not_keep_others_from_flowing(tmp_path: Path) -> None:
    hello = client_hello("api.good.test")
    with upstream(collect) as server, running(policy(rule("api.good.test", server.port)), NAMES, tmp_path) as proxy:
        held = []
        try:
            for _ in range(200):
                sock = proxy.tunnel("api.good.test", server.port)
                sock.sendall(hello)
                held.append(sock)
            eventually(lambda: sum(len(c) for c in server.conversations) == 200 * len(hello))
            with proxy.tunnel("api.good.test", server.port) as sock:
                sock.sendall(hello + b"x" * 1_000_000)
                eventually(lambda: max(len(c) for c in server.conversations) == 1_000_000 + len(hello))
        finally:
            for sock in held:
                sock.close()


def test_real_tls_goes_through_end_to_end(tmp_path: Path) -> None:
    certificate, key = _self_signed(tmp_path, "api.good.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def serve(sock: socket.socket, received: bytearray) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            received += tls.recv(100)
            tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    client = ssl.create_default_context(cafile=str(certificate))
    with (
        upstream(serve) as server,
        running(policy(rule("api.good.test", server.port)), NAMES, tmp_path) as proxy,
        proxy.tunnel("api.good.test", server.port) as sock,
        client.wrap_socket(sock, server_hostname="api.good.test") as tls,
    ):
        tls.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert tls.recv(100).endswith(b"ok")


def test_a_host_with_method_rules_goes_through_the_engine_and_ends_with_it(tmp_path: Path) -> None:
    certificate, key = _self_signed(tmp_path, "api.good.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def serve(sock: socket.socket, received: bytearray) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            while data := tls.recv(65536):
                received += data
                tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def get(proxy: Proxy, path: str) -> bytes:
        context = ssl.create_default_context(cadata=proxy.ca)
        with (
            proxy.tunnel("api.good.test", server.port) as sock,
            context.wrap_socket(sock, server_hostname="api.good.test") as tls,
        ):
            tls.sendall(f"GET {path} HTTP/1.1\r\nHost: api.good.test:{server.port}\r\n\r\n".encode())
            return tls.recv(65536)

    with upstream(serve) as server:
        given = policy(rule("api.good.test", server.port, methods=("GET",), paths=("/pub/**",)))
        with running(given, NAMES, tmp_path, ca_file=str(certificate)) as proxy:
            assert get(proxy, "/pub/x").startswith(b"HTTP/1.1 200 ")
            assert get(proxy, "/admin").startswith(b"HTTP/1.1 403 ")
            assert proxy.event(type="network.egress_blocked", mechanism="engine")["result"] == "denied"
            proxy.wait(lambda p: sum(stats["up"] for stats in p.stats) > 0)
            reached = len(server.conversations)
            with proxy.tunnel("api.good.test", server.port) as sock:
                sock.sendall(client_hello("evil.test"))
                assert read_all(sock) == b"\x15\x03\x01\x00\x02\x02\x31"
            assert len(server.conversations) == reached
            [worker] = Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children").read_text().split()
            os.kill(int(worker), signal.SIGKILL)
            assert proxy.process.wait(SECONDS) == 1


def _self_signed(where: Path, name: str) -> tuple[Path, Path]:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, private = where / "cert.pem", where / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private
