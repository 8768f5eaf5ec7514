"""Faults put into the engine itself: whatever fails inside it, nothing more leaves."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import pytest
from mitmproxy.proxy import commands
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request, TextMessage

from agent.enforce.egress import engine_decisions
from agent.enforce.egress.ca import InterceptionCA
from agent.enforce.egress.engine import EngineConnection, EngineFault, VettedLoop, serving
from agent.enforce.egress.engine_decisions import Decisions
from agent.enforce.egress.engine_layers import DecidedStream
from agent.enforce.egress.engine_requests import Identity
from agent.enforce.egress.engine_room import Room
from agent.enforce.egress.engine_tls import EngineTls, engine_options
from agent.enforce.egress.limits import Limits
from agent.gate import Gate
from agent.policy.model import Policy
from tests.enforce.egress.engine_front import (
    ACTOR,
    HOST,
    PATIENCE,
    Journal,
    Target,
    exchange,
    policy_of,
    tls_rule,
    until,
)
from tests.enforce.egress.engine_upstream import Authority, Http1Upstream
from tests.enforce.egress.test_engine_http2 import Http2Client


class Inside:
    """The engine's connections in a loop of this process, where its parts can be broken."""

    def __init__(self, policy: Policy, authority: Authority) -> None:
        self.journal = Journal()
        self.policy = policy
        self.ca = InterceptionCA((HOST,))
        self.engine_tls = EngineTls(self.ca)
        self.options = engine_options(str(authority.file))
        self.gate = Gate(lambda: self.policy, self.journal, ACTOR)
        self.loop = VettedLoop()
        self.loop.set_task_factory(asyncio.eager_task_factory)
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.target = Target(HOST, 443)
        self.served: list[Future[None]] = []
        self.connections: list[EngineConnection] = []
        self.room = Room()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE)
        self.loop.close()

    def dialled(self, identity: Identity, work: Callable[[], Any]) -> Any:
        """What `work()`'s coroutine gives for somebody who serves `identity`."""

        async def inside() -> Any:
            with serving(identity):
                return await work()

        return asyncio.run_coroutine_threadsafe(inside(), self.loop).result(PATIENCE)

    def request(self, port: int, data: bytes) -> bytes:
        """What a TLS client gets that sends `data`; empty where it is cut off."""
        self.target = Target(HOST, port)
        try:
            with self.tls() as sock:
                return exchange(sock, data)
        except OSError:
            return b""
        finally:
            self.served.pop().result(PATIENCE)

    def tls(self, *, alpn: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLSocket:
        """A client's connection for the target, being served. Raises OSError where the handshake is cut."""
        ours, theirs = socket.socketpair()
        identity = Identity(HOST, self.target.port, ("127.0.0.1",), "connect", "c1", None)
        self.served.append(asyncio.run_coroutine_threadsafe(self._serve(theirs, identity), self.loop))
        context = ssl.create_default_context(cadata=self.ca.pem)
        context.set_alpn_protocols(list(alpn))
        ours.settimeout(PATIENCE)
        try:
            return context.wrap_socket(ours, server_hostname=HOST)
        except BaseException:
            ours.close()
            raise

    async def _serve(self, sock: socket.socket, identity: Identity) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        decisions = Decisions(identity, lambda: self.policy, self.gate, self.journal, ACTOR)
        with serving(identity):
            connection = EngineConnection(
                reader,
                writer,
                options=self.options,
                identity=identity,
                decisions=decisions,
                engine_tls=self.engine_tls,
                meter=lambda _up, _down: None,
                limits=Limits(),
                room=self.room,
            )
            self.connections.append(connection)
            try:
                await connection.handle_client()
            except EngineFault:  # the worker logs it
                pass
            finally:
                writer.transport.abort()


@pytest.fixture
def inside(authority: Authority, upstream: Http1Upstream) -> Iterator[Inside]:
    engine = Inside(policy_of(tls_rule(HOST, upstream.port, methods=("GET", "POST"), paths=("/simple/**",))), authority)
    yield engine
    engine.close()


def get(port: int, path: str = "/simple/x") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n".encode()


def test_without_a_fault_the_request_is_answered(inside: Inside, upstream: Http1Upstream) -> None:
    assert inside.request(upstream.port, get(upstream.port)).startswith(b"HTTP/1.1 200 ")
    assert inside.request(upstream.port, get(upstream.port, "/x")).startswith(b"HTTP/1.1 403 ")


def test_upstreams_that_are_done_with_are_forgotten(inside: Inside, upstream: Http1Upstream) -> None:
    """Over HTTP/1 each HTTP/2 stream has a connection of its own, with its TLS: mitmproxy would keep them all."""
    inside.target = Target(HOST, upstream.port)
    client = Http2Client(inside)
    for _ in range(4):
        streams = [client.send("GET", "/simple/x") for _ in range(5)]
        assert {status for status, _ in client.answers(streams).values()} == {200}
    http = inside.connections[0]._http
    assert http is not None
    until(lambda: len(http.connections) == 1, "the client's connection alone")
    client.sock.close()
    inside.served.pop().result(PATIENCE)
    assert len(upstream.requests) == 20


BEFORE_THE_REQUEST_LEAVES = [
    "client_connected",
    "next_layer",
    "tls_clienthello",
    "tls_start_client",
    "tls_established_client",
    "requestheaders",
    "request",
    "server_connect",
    "server_connected",
    "tls_start_server",
    "tls_established_server",
]


@pytest.mark.parametrize("broken", BEFORE_THE_REQUEST_LEAVES)
@pytest.mark.row(40)
def test_a_hook_that_raises_ends_the_connection_and_the_request_stays_here(
    inside: Inside, upstream: Http1Upstream, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    reached = break_hook(monkeypatch, broken)
    assert inside.request(upstream.port, get(upstream.port)) == b""
    assert reached == [broken]
    assert upstream.requests == []
    assert inside.journal.rules() == ["agent-fault"]


@pytest.mark.parametrize("broken", ["responseheaders"])
def test_a_hook_that_raises_on_the_answer_lets_nothing_of_it_through(
    inside: Inside, upstream: Http1Upstream, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    reached = break_hook(monkeypatch, broken)
    assert inside.request(upstream.port, get(upstream.port)) == b""
    assert reached == [broken]
    assert inside.journal.rules() == ["agent-fault"]


def test_a_hook_that_raises_at_the_answers_end_cuts_the_connection(
    inside: Inside, upstream: Http1Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = break_hook(monkeypatch, "response")
    asked = get(upstream.port).replace(b"Connection: close\r\n", b"")
    assert inside.request(upstream.port, asked + asked).count(b"HTTP/1.1 200 ") == 1
    assert reached == ["response"]


def test_a_hook_that_raises_on_a_websocket_message_cuts_the_connection(
    inside: Inside, upstream: Http1Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = break_hook(monkeypatch, "websocket_message")
    inside.policy = policy_of(tls_rule(HOST, upstream.port, methods=("GET",), paths=("/ws/**",)))
    inside.target = Target(HOST, upstream.port)
    peer = WSConnection(ConnectionType.CLIENT)
    with inside.tls() as sock:
        sock.sendall(peer.send(Request(host=f"{HOST}:{upstream.port}", target="/ws/x")))
        peer.receive_data(sock.recv(65536))
        assert [type(event) for event in peer.events()] == [AcceptConnection]
        sock.sendall(peer.send(TextMessage(data="hello")))
        with pytest.raises(OSError), closing(sock):
            if not sock.recv(65536):
                raise ConnectionResetError
    inside.served.pop().result(PATIENCE)
    assert reached == ["websocket_message"]
    assert inside.journal.rules() == ["agent-fault"]


def break_hook(monkeypatch: pytest.MonkeyPatch, broken: str) -> list[str]:
    """Make one hook raise, once; the list says that it was reached."""
    real = EngineConnection._dispatch
    reached: list[str] = []

    async def dispatch(self: EngineConnection, hook: commands.StartHook) -> None:
        if hook.name == broken and not reached:
            reached.append(hook.name)
            raise RuntimeError("injected")
        await real(self, hook)

    monkeypatch.setattr(EngineConnection, "_dispatch", dispatch)
    return reached


def test_a_hook_that_the_engine_does_not_know_ends_the_connection(
    inside: Inside, upstream: Http1Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.enforce.egress.engine._NOTHING_TO_DECIDE", frozenset({"client_connected"}))
    assert inside.request(upstream.port, get(upstream.port)) == b""
    assert upstream.connections == 0


def test_an_exception_in_the_protocol_layers_ends_the_connection(
    inside: Inside, upstream: Http1Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: DecidedStream) -> Iterator[Any]:
        raise RuntimeError("injected")
        yield

    monkeypatch.setattr(DecidedStream, "make_server_connection", broken)
    assert inside.request(upstream.port, get(upstream.port)) == b""
    assert upstream.connections == 0
    assert inside.journal.rules() == ["agent-fault"]


def test_a_decision_that_fails_is_a_denial(
    inside: Inside, upstream: Http1Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("injected")

    monkeypatch.setattr("agent.gate.decide", broken)
    said = inside.request(upstream.port, get(upstream.port))
    assert said.startswith(b"HTTP/1.1 403 ")
    assert b"X-Parhelia-Rule: agent-fault" in said
    assert upstream.connections == 0


def test_an_examination_that_fails_ends_the_connection(
    inside: Inside, upstream: Http1Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("injected")

    monkeypatch.setattr(engine_decisions, "examine", broken)
    assert inside.request(upstream.port, get(upstream.port)) == b""
    assert upstream.connections == 0


def test_a_switch_of_protocols_that_nobody_asked_for_is_cut(
    inside: Inside, upstream: Http1Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.policy = policy_of(tls_rule(HOST, upstream.port, methods=("GET",), paths=("/h2c",)))
    monkeypatch.setattr(Decisions, "_prepare", lambda _self, flow, _head: setattr(flow.request, "stream", True))
    data = f"GET /h2c HTTP/1.1\r\nHost: {HOST}:{upstream.port}\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n".encode()
    assert b"101" not in inside.request(upstream.port, data)
    assert [target for _, target, _ in upstream.requests] == ["/h2c"]


IDENTITY = Identity(HOST, 443, ("192.0.2.1", "2001:db8::1"), "connect", "c1", None)


def test_a_name_resolves_to_the_vetted_addresses_and_any_other_name_to_nothing(inside: Inside) -> None:
    found = inside.dialled(IDENTITY, lambda: inside.loop.getaddrinfo(HOST, 443))
    assert [entry[4][:2] for entry in found] == [("192.0.2.1", 443), ("2001:db8::1", 443)]
    for host, port in (("evil.test", 443), (HOST, 80), (f"{HOST}.", 443), ("localhost", 443)):
        with pytest.raises(socket.gaierror, match="not the name"):
            inside.dialled(IDENTITY, lambda host=host, port=port: inside.loop.getaddrinfo(host, port))  # type: ignore[misc]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "192.0.2.2", "2130706433", "0177.0.0.1", "localhost"])
def test_the_loop_connects_to_nothing_that_was_not_vetted(inside: Inside, address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        identity = Identity(HOST, port, ("192.0.2.1",), "connect", "c1", None)
        with pytest.raises((PermissionError, socket.gaierror)):
            inside.dialled(identity, lambda: asyncio.open_connection(address, port))
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_who_serves_no_connection_dials_nothing(inside: Inside) -> None:
    with pytest.raises(socket.gaierror):
        asyncio.run_coroutine_threadsafe(inside.loop.getaddrinfo(HOST, 443), inside.loop).result(PATIENCE)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(PermissionError):
        work = asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
        asyncio.run_coroutine_threadsafe(work, inside.loop).result(PATIENCE)
