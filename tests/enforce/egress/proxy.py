"""The real egress process under test, with the test playing the guard, and upstreams on loopback.

The process is the real one (`agent.enforce.egress.main.main`); only its lookup is given stand-in names, since tests
must not depend on a name server. Upstreams listen on 127.0.0.0/8, which the tests' policies grant by range.
"""

from __future__ import annotations

import base64
import contextlib
import json
import pickle
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from agent.channel import Channel, ChannelClosed, pair
from agent.enforce.egress.secrets import HeldSecret, Secrets
from agent.policy.model import EgressSection, HostRule, Layer, Mode, Pattern, Policy, Where
from agent.policy.request import Protocol
from agent.session.doors import Door

LOOPBACK = (ip_network("127.0.0.0/8"),)
SECONDS = 60.0
TOKEN = bytes(range(16))

_PROGRAM = """
import json, os, sys, time
from agent.enforce.egress.main import main
from agent.enforce.egress.limits import Limits
names, log, limits = json.loads(sys.argv[3]), open(sys.argv[4], "a", buffering=1), json.loads(sys.argv[5])
def lookup(host):
    log.write(host + "\\n")
    answers = names.get(host)
    if not answers:
        raise OSError(-2, "Name or service not known")
    if answers == "fault":
        raise RuntimeError("the lookup broke")
    while answers == "never":
        time.sleep(1)
    return answers.pop(0) if len(answers) > 1 else answers[0]
status = main(sys.argv[1:3], limits=Limits(**limits), lookup=lookup)
os._exit(status)
"""


def rule(pattern: str, *ports: int, protocol: Protocol = Protocol.TLS, **more: Any) -> HostRule:
    """An allow for a loopback upstream."""
    more.setdefault("addresses", LOOPBACK)
    more.setdefault("id", f"allow-{pattern}")
    return HostRule(pattern=pattern, where=Where("test.yaml", 1, 1), ports=ports or (443,), protocol=protocol, **more)


def policy(
    *allow: HostRule, deny: Sequence[HostRule] = (), mode: Mode = Mode.ENFORCE, patterns: tuple[Pattern, ...] = ()
) -> Policy:
    section = EgressSection(mode=mode, allow=allow, deny=tuple(deny))
    return Policy(layers=(Layer(source="test", egress=section),), digest="d" * 64, patterns=patterns)


@dataclass
class Proxy:
    """The egress process. `events` are the event messages received so far."""

    process: subprocess.Popen[bytes]
    channel: Channel
    port: int
    lookups_file: str
    places: Mapping[Door, tuple[str, int]] = field(default_factory=dict)
    ca: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    stats: list[dict[str, int]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    followed: dict[str, Any] | None = None
    accepting: Callable[[dict[str, Any]], str | None] | None = None
    seen: threading.Condition = field(default_factory=threading.Condition)

    def connect(self, door: Door = Door.PROXY) -> socket.socket:
        sock = socket.create_connection(self.places[door], timeout=SECONDS)
        sock.settimeout(SECONDS)
        return sock

    def ask(self, data: bytes, door: Door = Door.PROXY) -> bytes:
        """Send and read everything until the end."""
        with self.connect(door) as sock:
            sock.sendall(data)
            return read_all(sock)

    def tunnel(self, host: str, port: int) -> socket.socket:
        """CONNECT, which must succeed."""
        sock = self.connect()
        sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        head = read_head(sock)
        assert head.startswith(b"HTTP/1.1 200 "), head
        return sock

    def lookups(self) -> list[str]:
        with open(self.lookups_file) as file:
            return file.read().split()

    def wait(self, wanted: Callable[[Proxy], object]) -> None:
        with self.seen:
            assert self.seen.wait_for(lambda: wanted(self), SECONDS), (self.messages, self.events)

    def recorded(self, rule: str) -> int:
        """How many denials by this rule have come so far."""
        events = [message["event"] for message in self.events]
        return sum(e["result"] == "denied" and e["details"].get("rule") == rule for e in events)

    def event(self, **fields: object) -> dict[str, Any]:
        """The first event with these details, waiting for it."""

        def find() -> list[dict[str, Any]]:
            return [
                message["event"]
                for message in self.events
                if all({**message["event"]["details"], **message["event"]}.get(k) == v for k, v in fields.items())
            ]

        self.wait(lambda _: find())
        return find()[0]

    def receive(self) -> None:
        """The guard's part, in a thread."""
        with contextlib.suppress(ChannelClosed):
            while True:
                message, _ = self.channel.receive()
                with self.seen:
                    self.take(message)
                    self.seen.notify_all()

    def follow(self, given: Policy) -> int:
        """Put another policy in force and wait until it is; how many connections were cut."""
        with self.seen:
            self.followed = None
        self.channel.send({"type": "policy", "policy": base64.b64encode(pickle.dumps(given)).decode()})
        self.wait(lambda proxy: proxy.followed is not None)
        assert self.followed is not None
        assert self.followed["digest"] == given.digest
        return int(self.followed["cut"])

    def take(self, message: dict[str, Any]) -> None:
        self.messages.append(message["type"])
        if message["type"] == "ca":
            self.ca = None if message["ca"] is None else message["ca"]["certificate"]
        if message["type"] == "policy":
            self.followed = message
        if message["type"] == "stats":
            self.stats.append(message)
        if message["type"] == "opened":
            self.channel.send({"type": "seen", "through": message["n"]})
        if message["type"] == "event":
            self.events.append(message)
            if message["accept"]:
                error = self.accepting(message) if self.accepting is not None else None
                answer = {"type": "accepted"} if error is None else {"type": "refused", "error": error}
                self.channel.send({**answer, "n": message["n"]})


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def _start(
    given: Policy | object, user: tuple[int, int] | None, ca_file: str | None, secrets: Sequence[HeldSecret]
) -> dict[str, Any]:
    """The guard's first message."""
    uid, gid = user or (None, None)
    blob = base64.b64encode(pickle.dumps(given)).decode()
    message = {"type": "start", "policy": blob, "actor": "session:t", "uid": uid, "gid": gid}
    message |= {"ca_file": ca_file, "secrets": Secrets(secrets).dump(), "token": TOKEN.hex()}
    return message | {"ca": None, "renew": False, "accounts": {}}


@contextlib.contextmanager
def running(
    given: Policy | object,
    names: Mapping[str, Sequence[Sequence[str]] | str],
    tmp_path: Any,
    *,
    module: bool = False,
    user: tuple[int, int] | None = None,
    ca_file: str | None = None,
    doors: Mapping[Door, tuple[str, int]] | None = None,
    secrets: Sequence[HeldSecret] = (),
    sockets: Sequence[tuple[Door, socket.socket]] = (),
    prelude: str = "",
    **limits: float,
) -> Iterator[Proxy]:
    """A served proxy. `names`: successive answers per name, or "never", or "fault".

    `module`: as ``-m``, with the machine's own resolver. `doors`: further doors and where their listeners are bound
    (port 0: any). `sockets`: further doors whose sockets are the caller's. `prelude`: code that runs in it first.
    """
    ours, theirs = pair()
    (lookups := tmp_path / "lookups").write_text("")
    start = ["-m", "agent.enforce.egress.main"] if module else ["-c", prelude + _PROGRAM]
    argv = [sys.executable, *start, "--channel", str(theirs.fileno())]
    argv += [] if module else [json.dumps(names), str(lookups), json.dumps(limits)]
    bound = {Door.PROXY: ("127.0.0.1", 0), **(doors or {})}
    listeners = {door: socket.create_server(place, backlog=1024) for door, place in bound.items()}
    places = {door: listener.getsockname() for door, listener in listeners.items()}
    process = subprocess.Popen(argv, pass_fds=(theirs.fileno(),))
    theirs.close()
    proxy = Proxy(process, Channel(ours), places[Door.PROXY][1], str(lookups), places=places)
    try:
        threading.Thread(target=proxy.receive, daemon=True).start()
        proxy.channel.send(_start(given, user, ca_file, secrets))
        served = [*listeners.items(), *sockets]
        proxy.channel.send({"type": "listen", "doors": [d for d, _ in served]}, [s.fileno() for _, s in served])
        for listener in listeners.values():
            listener.close()
        proxy.wait(lambda p: "ready" in p.messages)
        yield proxy
    finally:
        for listener in listeners.values():
            listener.close()
        ours.shutdown(socket.SHUT_RDWR)
        with contextlib.closing(ours):
            _wait(process)


@dataclass
class Upstream:
    """A server on loopback. `conversations` holds all bytes received, per connection."""

    address: str
    port: int
    conversations: list[bytearray] = field(default_factory=list)


@contextlib.contextmanager
def upstream(
    serve: Callable[[socket.socket, bytearray], None] | None = None, address: str = "127.0.0.1", port: int = 0
) -> Iterator[Upstream]:
    """`serve(sock, received)` in a thread per connection; the default echoes and passes on the end."""
    listener = socket.create_server((address, port), backlog=1024)
    server = Upstream(address, listener.getsockname()[1])

    def work(sock: socket.socket, received: bytearray) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(SECONDS)
            (serve or echo)(sock, received)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                server.conversations.append(bytearray())
                threading.Thread(target=work, args=(sock, server.conversations[-1]), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(SECONDS)


def echo(sock: socket.socket, received: bytearray) -> None:
    while data := sock.recv(65536):
        received += data
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def collect(sock: socket.socket, received: bytearray) -> None:
    while data := sock.recv(65536):
        received += data


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            data += piece
    return bytes(data)


def read_exactly(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count and (piece := sock.recv(min(65536, count - len(data)))):
        data += piece
    return bytes(data)


def read_head(sock: socket.socket) -> bytes:
    data = bytearray()
    while not data.endswith(b"\r\n\r\n") and (piece := sock.recv(1)):
        data += piece
    return bytes(data)


def client_hello(name: str | None) -> bytes:
    """A ClientHello as OpenSSL makes it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(into, out, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return out.read()


def eventually(wanted: Callable[[], object]) -> None:
    """For what happens in another process without a message; bounded."""
    end = time.monotonic() + SECONDS
    while not wanted():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)
