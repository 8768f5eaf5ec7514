"""How a judged connection goes on: tunnelled, looked into, or neither where the rules ask for both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agent.policy.model import Mode, Tls
from tests.enforce.egress.proxy import client_hello, policy, read_exactly, rule, running, upstream

NAMES = {"api.good.test": [["127.0.0.1"]]}


def connect(target: str) -> bytes:
    return f"CONNECT {target} HTTP/1.1\r\n\r\n".encode()


def test_tls_that_a_rule_leaves_alone_is_tunnelled_and_never_looked_into(tmp_path: Path) -> None:
    hello = client_hello("api.good.test")
    with upstream() as server:
        alone = rule("api.good.test", server.port, tls=Tls.PASSTHROUGH)
        looking = rule("*.good.test", server.port, methods=("GET",), id="looking")
        with running(policy(alone), NAMES, tmp_path) as proxy, proxy.tunnel("api.good.test", server.port) as sock:
            sock.sendall(hello)
            assert read_exactly(sock, len(hello)) == hello
        reached = len(server.conversations)
        first, second = (policy(one).layers[0] for one in (alone, looking))
        both = replace(policy(), layers=(first, second))  # the loader refuses this; the proxy does not rely on it
        with running(both, NAMES, tmp_path) as proxy:
            answer = proxy.ask(connect(f"api.good.test:{server.port}") + hello)
            assert answer.startswith(b"HTTP/1.1 403 Forbidden by parhelia: passthrough-conflict: ")
            assert proxy.event(rule="passthrough-conflict")["result"] == "denied"
        assert len(server.conversations) == reached


def test_tls_is_judged_as_ever_where_a_deny_only_observes(tmp_path: Path) -> None:
    names = {"api.good.test": [["127.0.0.1"]]}
    with upstream() as server:
        watched = rule("api.good.test", id="watched", mode=Mode.OBSERVE)
        given = policy(rule("api.good.test", server.port), deny=[replace(watched, ports=None, protocol=None)])
        with running(given, names, tmp_path) as proxy:
            hello = client_hello("api.good.test")
            with proxy.tunnel("api.good.test", server.port) as sock:
                sock.sendall(hello)
                assert read_exactly(sock, len(hello)) == hello
            assert proxy.event(rule="watched")["result"] == "success"
            with proxy.tunnel("api.good.test", server.port) as sock:
                sock.sendall(client_hello("evil.test"))
                assert sock.recv(1) in (b"", b"\x15")
            assert proxy.event(rule="sni-mismatch")["result"] == "denied"
            assert b"".join(server.conversations).count(hello) == 1
            assert client_hello("evil.test") not in server.conversations
