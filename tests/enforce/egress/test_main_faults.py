"""Faults put into the running egress process: whichever step of a judgement fails, by whichever way a connection comes,
nothing of it leaves, its client is refused, and the failure is on record."""

from __future__ import annotations

import base64
import contextlib
import pickle
from pathlib import Path

import pytest

from agent.policy.request import Protocol
from agent.session.doors import Door
from agent.session.preamble import Preamble, render
from tests.enforce.egress.proxy import (
    SECONDS,
    TOKEN,
    Proxy,
    Upstream,
    client_hello,
    policy,
    read_exactly,
    read_head,
    rule,
    running,
    upstream,
)

ELSEWHERE = "127.0.0.9"
NAMES = {name: [["127.0.0.1"]] for name in ("api.good.test", "web.good.test")}
HELLO = client_hello("api.good.test")
EVERY = ("connect", "http", "socks", "captured", "forwarded", "captured http")
TLS_WAYS = ("connect", "socks", "captured", "forwarded")
HTTP_WAYS = ("http", "captured http")


def ask(proxy: Proxy, way: str, tls: int, http: int) -> bytes:
    """What a client gets that comes this way, for what the policy allows; empty or cut short where it is refused."""
    door = {"captured": Door.CAPTURE, "captured http": Door.FORWARDED, "forwarded": Door.FORWARDED}.get(way, Door.PROXY)
    head = b"Host: web.good.test:%d\r\nConnection: close\r\n\r\n" % http
    with proxy.connect(door) as sock, contextlib.suppress(ConnectionError):
        if door is Door.FORWARDED:
            port = http if way == "captured http" else tls
            sock.sendall(render(Preamble(("127.0.0.1", 40000), (ELSEWHERE, port), 77, TOKEN)))
        match way:
            case "http":
                sock.sendall(b"GET http://web.good.test:%d/x HTTP/1.1\r\n" % http + head)
                return read_head(sock)
            case "captured http":
                sock.sendall(b"GET /x HTTP/1.1\r\n" + head)
                return read_head(sock)
            case "connect":
                sock.sendall(b"CONNECT api.good.test:%d HTTP/1.1\r\n\r\n" % tls)
                if b" 200 " not in (answer := read_head(sock)):
                    return answer
            case "socks":
                sock.sendall(b"\5\1\0\5\1\0\3\x0dapi.good.test" + tls.to_bytes(2))
                if (answer := read_exactly(sock, 12))[3:4] != b"\0":
                    return answer
        sock.sendall(HELLO)
        return read_exactly(sock, len(HELLO))
    return b""


def got_through(answer: bytes) -> bool:
    return answer == HELLO or answer.startswith(b"HTTP/1.1 200 ")


def seen_of(proxy: Proxy, faults: int) -> None:
    proxy.wait(lambda p: p.recorded("agent-fault") >= faults)


def serve(sock: object, received: bytearray) -> None:
    """HTTP to what looks like it, an echo to the rest."""
    while data := sock.recv(65536):  # type: ignore[attr-defined]
        received += data
        http = data.startswith(b"GET ")
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" if http else data)  # type: ignore[attr-defined]


def breaking(target: str, call: int) -> str:
    """Code that makes the function `module:name` or `module:Class.name` raise from its `call`-th call on."""
    module, _, name = target.partition(":")
    return f"""
import functools, importlib
place = importlib.import_module({module!r})
*path, name = {name!r}.split(".")
for part in path: place = getattr(place, part)
whole, calls = getattr(place, name), [0]
@functools.wraps(whole)
def broken(*given, **named):
    calls[0] += 1
    if calls[0] >= {call}: raise RuntimeError("injected")
    return whole(*given, **named)
setattr(place, name, broken)
"""


@pytest.fixture(scope="module")
def servers() -> object:
    with upstream(serve) as tls, upstream(serve) as http:
        yield tls, http


HERE = "agent.enforce.egress"
FAULTS = [
    # what raises, from which call on, and the ways that it is a step of
    ("agent.gate:decide", 1, EVERY),
    ("agent.gate:decide", 2, EVERY),
    ("agent.gate:decide", 3, HTTP_WAYS),
    ("agent.gate:describe", 2, EVERY),
    (f"{HERE}.identity:Doorkeeper.request", 1, EVERY),
    (f"{HERE}.identity:Doorkeeper.admit", 1, EVERY),
    (f"{HERE}.identity:Doorkeeper.check", 2, EVERY),
    (f"{HERE}.identity:Doorkeeper.check_host_header", 1, ("connect", "http")),
    (f"{HERE}.identity:Doorkeeper.check_hello", 1, TLS_WAYS),
    (f"{HERE}.identity:spoken", 1, TLS_WAYS),
    (f"{HERE}.resolve:Resolver.resolve", 1, EVERY),
    (f"{HERE}.proxying:parse_request", 1, ("connect", "http")),
    (f"{HERE}.proxying:parse_authority", 1, ("connect",)),
    (f"{HERE}.proxying:normalise_host", 1, ("socks",)),
    (f"{HERE}.socks:read_greeting", 1, ("socks",)),
    (f"{HERE}.socks:read_request", 1, ("socks",)),
    ("agent.session.preamble:read", 1, ("forwarded", "captured http")),
    (f"{HERE}.capture:starts_request", 1, ("captured", "forwarded", "captured http")),
    (f"{HERE}.capture:normalise_host", 1, ("captured", "forwarded")),
    (f"{HERE}.passage:read_client_hello", 1, TLS_WAYS),
    (f"{HERE}.passage:Passage._agrees", 1, ("connect", "socks")),
    (f"{HERE}.passage:Passage.go", 1, TLS_WAYS),
    (f"{HERE}.passage:dial", 1, TLS_WAYS),
    (f"{HERE}.http_target:parse_target", 1, HTTP_WAYS),
    (f"{HERE}.http1:refuse_tricks", 1, HTTP_WAYS),
    (f"{HERE}.http1:dial", 1, HTTP_WAYS),
]

UNSAID = ("agent.gate:describe",)
"""What cannot be described cannot be recorded; the denial stands."""


@pytest.mark.row(40)
@pytest.mark.parametrize(("target", "call", "ways"), FAULTS, ids=[f"{target}-{call}" for target, call, _ in FAULTS])
def test_a_step_that_raises_means_no_egress(
    servers: tuple[Upstream, Upstream], tmp_path: Path, target: str, call: int, ways: tuple[str, ...]
) -> None:
    tls, http = servers
    given = policy(
        rule("api.good.test", tls.port),
        rule("web.good.test", http.port, protocol=Protocol.HTTP, methods=("GET",), paths=("/**",)),
    )
    doors = {Door.CAPTURE: (ELSEWHERE, tls.port), Door.FORWARDED: ("127.0.0.1", 0)}
    tls.conversations.clear()
    http.conversations.clear()
    for group in [ways] if call == 1 else [(way,) for way in ways]:  # the calls are counted for each way
        with running(given, NAMES, tmp_path, doors=doors, prelude=breaking(target, call), head=3, dial=3) as proxy:
            assert [way for way in group if got_through(ask(proxy, way, tls.port, http.port))] == []
            if target not in UNSAID:
                seen_of(proxy, len(group))
            assert not any((*tls.conversations, *http.conversations))


def test_without_a_fault_every_way_leads_there(servers: tuple[Upstream, Upstream], tmp_path: Path) -> None:
    tls, http = servers
    given = policy(
        rule("api.good.test", tls.port),
        rule("web.good.test", http.port, protocol=Protocol.HTTP, methods=("GET",), paths=("/**",)),
    )
    doors = {Door.CAPTURE: (ELSEWHERE, tls.port), Door.FORWARDED: ("127.0.0.1", 0)}
    with running(given, NAMES, tmp_path, doors=doors, head=3, dial=3) as proxy:
        assert [way for way in EVERY if not got_through(ask(proxy, way, tls.port, http.port))] == []


RELOAD_FAULTS = [
    f"{HERE}.follow:Follower.redecide",
    f"{HERE}.follow:Follower._follow",
    f"{HERE}.main:session_limits",
    f"{HERE}.limits:Limits.follow",
    "pickle:loads",
]


@pytest.mark.row(40)
@pytest.mark.parametrize("target", RELOAD_FAULTS)
def test_a_reload_that_raises_ends_every_tunnel_and_the_process(
    servers: tuple[Upstream, Upstream], tmp_path: Path, target: str
) -> None:
    tls, _ = servers
    prelude = breaking(target, 1 if ".follow:" in target else 2)  # the first is the start's
    with running(policy(rule("api.good.test", tls.port)), NAMES, tmp_path, prelude=prelude, head=3, dial=3) as proxy:
        with proxy.tunnel("api.good.test", tls.port) as sock, contextlib.suppress(ConnectionError):
            sock.sendall(HELLO)
            assert read_exactly(sock, len(HELLO)) == HELLO
            changed = base64.b64encode(pickle.dumps(policy(rule("other.good.test", tls.port)))).decode()
            proxy.channel.send({"type": "policy", "policy": changed})
            assert sock.recv(1) == b""
        assert proxy.process.wait(SECONDS) == 1
        with pytest.raises(ConnectionError):
            proxy.connect()
