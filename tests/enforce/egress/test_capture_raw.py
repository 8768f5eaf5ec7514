"""Captured raw bytes and lookups: whom an address stands for, and what a rule for raw TCP does not open."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from agent.enforce.egress.front import Front
from agent.enforce.egress.http1 import Forwarder
from agent.enforce.egress.identity import Doorkeeper
from agent.enforce.egress.limits import Limits
from agent.enforce.egress.passage import Ways
from agent.enforce.egress.resolve import Resolver
from agent.enforce.egress.tunnel import Carrier, Traffic
from agent.enforce.egress.wire import Poller, Wire
from agent.gate import Gate
from agent.policy.model import Policy
from agent.policy.request import Origin, Protocol
from agent.session.doors import Door
from agent.session.preamble import Preamble, render
from tests.enforce.egress.proxy import (
    SECONDS,
    TOKEN,
    client_hello,
    policy,
    read_all,
    read_exactly,
    rule,
    upstream,
)
from tests.enforce.egress.test_capture import ALERT, NAMES, http
from tests.enforce.egress.test_identity import Kept


def in_process(given: Policy, names_of: dict[str, tuple[str, ...]], talk: object, dns: object = None) -> Kept:
    """A front of its own inside this process, for what the egress process wires to its name server."""
    kept = Kept()

    async def body() -> None:
        poller, resolver = Poller(), Resolver(lambda host: NAMES[host][0])
        door = Doorkeeper(lambda: given, Gate(lambda: given, kept, "session:t"), kept, resolver, "session:t")
        limits, traffic = Limits(head=3, dial=3), Traffic()
        ways = Ways(Carrier(poller, traffic), Forwarder(poller, door, traffic, limits), None)
        front = Front(poller, door, ways, limits, token=TOKEN, names_of=lambda a: names_of.get(a, ()), dns=dns)  # type: ignore[arg-type]
        listener = socket.create_server(("127.0.0.1", 0))
        place = listener.getsockname()
        front.listen(listener, Door.FORWARDED)
        try:
            await asyncio.to_thread(talk, place)  # type: ignore[arg-type]
        finally:
            front.stop()
            poller.stop()
            resolver.close()

    asyncio.run(body())
    return kept


def test_raw_bytes_go_to_an_address_that_the_session_was_given_for_an_allowed_name() -> None:
    def greet(sock: socket.socket, received: bytearray) -> None:
        sock.sendall(b"SSH-2.0-server\r\n")

    with upstream(greet) as ssh:

        def talk(place: tuple[str, int]) -> None:
            for address, wanted in (("127.0.0.1", b"SSH-2.0-server\r\n"), ("127.0.0.2", b"")):
                with socket.create_connection(place, SECONDS) as sock, contextlib.suppress(ConnectionResetError):
                    sock.sendall(render(Preamble(("127.0.0.1", 1), (address, ssh.port), None, TOKEN)) + b"\0")
                    assert read_exactly(sock, 16) == wanted

        given = policy(rule("raw.good.test", ssh.port, protocol=Protocol.TCP))
        kept = in_process(given, {"127.0.0.1": ("evil.test", "raw.good.test"), "127.0.0.3": ()}, talk)
    allowed, refused = kept.events
    assert (allowed.resource, allowed.details["addresses"]) == (f"raw.good.test:{ssh.port}", ["127.0.0.1"])
    assert (refused.resource, refused.details["rule"]) == (f"127.0.0.2:{ssh.port}", "egress-default")


def test_a_rule_for_raw_tcp_opens_no_way_round_a_rule_that_wants_tls_or_requests_seen() -> None:
    received: list[bytes] = []

    def listen(sock: socket.socket, data: bytearray) -> None:
        while piece := sock.recv(65536):
            data += piece
            sock.sendall(piece)
        received.append(bytes(data))

    with upstream(listen) as server:

        def talk(place: tuple[str, int]) -> None:
            for data in (b"\0raw", client_hello("evil.test"), http(f"web.good.test:{server.port}", "/admin")):
                with socket.create_connection(place, SECONDS) as sock:
                    sock.sendall(render(Preamble(("127.0.0.1", 1), ("127.0.0.1", server.port), None, TOKEN)) + data)
                    answers.append(read_all(sock))
            with socket.create_connection(place, SECONDS) as sock:  # the one that may speak raw, once it has
                sock.sendall(render(Preamble(("127.0.0.1", 1), ("127.0.0.3", server.port), None, TOKEN)) + b"\0raw")
                answers.append(read_exactly(sock, 4))

        answers: list[bytes] = []
        given = policy(
            rule("*.good.test", server.port, protocol=Protocol.TCP),
            rule("api.good.test", server.port),
            rule("web.good.test", server.port, protocol=Protocol.HTTP, paths=("/pub/**",)),
        )
        names = {"127.0.0.1": ("api.good.test", "web.good.test"), "127.0.0.3": ("raw.good.test",)}
        kept = in_process(given, names, talk)
    assert (answers[0], answers[1], answers[3]) == (b"", ALERT, b"\0raw")
    assert b"X-Parhelia-Rule: egress-default\r\n" in answers[2]
    assert [event.details["rule"] for event in kept.events if event.result == "denied"] == [
        "tls-required",
        "egress-default",
        "egress-default",
    ]
    assert received == [b"\0raw"]


def test_a_forwarded_lookup_goes_to_the_name_server() -> None:
    class Dns:
        async def serve_tcp_connection(self, wire: Wire, prefix: bytes, origin: Origin, number: int = 0) -> None:
            assert origin.mechanism == "connect"
            await wire.send(b"answer to " + prefix)

    def talk(place: tuple[str, int]) -> None:
        with socket.create_connection(place, SECONDS) as sock:
            sock.sendall(render(Preamble(("127.0.0.1", 1), ("127.0.0.11", 53), None, TOKEN)) + b"question")
            assert read_all(sock) == b"answer to question"

    assert in_process(policy(), {}, talk, Dns()).events == []
