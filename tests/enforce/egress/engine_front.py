"""A front for the engine's tests: accepts on loopback and hands every connection over, as the egress front would."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import date
from http.client import HTTPConnection, HTTPResponse
from ipaddress import ip_network
from pathlib import Path
from shutil import which
from typing import Any, Literal

from agent.enforce.egress.handover import Engine, HandOverError
from agent.enforce.egress.quota import Quota, Ticket
from agent.enforce.egress.secrets import Secrets
from agent.policy.decision import Decision, Verdict
from agent.policy.model import (
    EgressLimits,
    EgressSection,
    HostLimits,
    HostRule,
    Layer,
    Mode,
    Pattern,
    Policy,
    Secret,
    Where,
)
from agent.policy.request import EgressRequest, Origin, Protocol
from agent.record.event import Event, RecordError
from agent.record.timings import Timings
from tests.conftest import require

ACTOR = "session:test"
LOOPBACK = (ip_network("127.0.0.0/8"),)
NOBODY = 65534
PATIENCE = 60.0
MEBIBYTE = 1024 * 1024
HOST = "api.good.test"
METHODS = ("GET", "HEAD", "POST", "OPTIONS")
PATHS = ("/simple/**", "/ws/**", "/big/**", "/events", "/moved", "/h2c")


def allow(host: str, port: int, **more: Any) -> HostRule:
    return HostRule(
        id=f"allow-{host}", pattern=host, where=Where("t.yaml", 1, 1), ports=(port,), addresses=LOOPBACK, **more
    )


def policy_of(
    *rules: HostRule,
    deny: tuple[HostRule, ...] = (),
    secrets: tuple[Secret, ...] = (),
    patterns: tuple[Pattern, ...] = (),
    mode: Mode = Mode.ENFORCE,
) -> Policy:
    section = EgressSection(mode=mode, allow=rules, deny=deny)
    layer = Layer(source="test", egress=section, secrets=secrets)
    return Policy(layers=(layer,), digest="d" * 64, patterns=patterns)


class Journal:
    """A recorder that keeps what it is given; `broken` refuses everything.

    `connection`: the number of the connections that it is about. A worker tells of a denial after it has answered, so
    that what an earlier test did not wait for may come late: that is not kept.
    """

    def __init__(self) -> None:
        self.posted: list[Event] = []
        self.accepted: list[Event] = []
        self.broken = False
        self.connection = "c1"

    def post(self, event: Event) -> None:
        self._keep(self.posted, event)

    def accept(self, event: Event) -> None:
        self._keep(self.accepted, event)

    def _keep(self, kept: list[Event], event: Event) -> None:
        if self.broken:
            raise RecordError("the test's recorder is broken")
        if str(event.details.get("request_id", self.connection)).partition("-")[0] == self.connection:
            kept.append(event)

    def renew(self) -> None:
        """For the next test."""
        self.connection = f"c{int(self.connection[1:]) + 1}"
        self.posted.clear()
        self.accepted.clear()
        self.broken = False

    def wait(self, count: int = 1) -> list[Event]:
        """The posted events, once there are `count`."""
        until(lambda: len(self.posted) >= count, f"{count} events, have {self.rules()}")
        return list(self.posted)

    def rules(self) -> list[str]:
        return [str(event.details["rule"]) for event in self.posted]


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"in vain waited for {what}")
        time.sleep(0.01)


@dataclass
class Target:
    """The identity that the next connections are handed over with."""

    host: str
    port: int
    addresses: tuple[str, ...] = ("127.0.0.1",)
    kind: Literal["connect", "absolute"] = "connect"
    prefix: int = 0  # how many bytes are read before the hand-over
    idle: int | None = None  # seconds of the rule, which travel with a ticket


class Front:
    """An engine in a loop of its own thread, and a listener whose connections are handed over for `target`."""

    def __init__(
        self,
        policy: Policy,
        ca_file: Path | None,
        *,
        uid: int | Literal["drop"] | None = "drop",
        secrets: Secrets | None = None,
    ) -> None:
        self.journal = Journal()
        self.target = Target("api.good.test", 443)
        self.deaths: list[str] = []
        self.up = self.down = 0
        self.timings = Timings()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        who = (NOBODY if os.geteuid() == 0 else None) if uid == "drop" else uid
        self.engine = Engine(
            policy,
            ACTOR,
            self.journal,
            ca_file=None if ca_file is None else str(ca_file),
            uid=who,
            gid=who,
            on_death=self.deaths.append,
            on_stats=self._count,
            secrets=secrets,
            timings=self.timings,
        )
        self.failure: HandOverError | None = None
        try:
            self.ca_pem = self.run(self.engine.start())
        except HandOverError:
            self._stop_loop()
            raise
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(180)

    def close(self) -> None:
        self.listener.close()
        self.run(self.engine.stop())
        self._stop_loop()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def tls(self, sni: str | None = "", alpn: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLSocket:
        """A TLS client's connection; "" names the target's host, which is verified against the engine's CA."""
        context = ssl.create_default_context(cadata=self.ca_pem)
        context.set_alpn_protocols(list(alpn))
        if sni != "":
            context.check_hostname = False
        return context.wrap_socket(self.connect(), server_hostname=self.target.host if sni == "" else sni)

    def client(self) -> HTTPConnection:
        """An HTTP/1.1 client over TLS; Host is the target's authority unless a request sets its own."""
        return SocketClient(self.target.host, self.target.port, self.tls())

    def get(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[HTTPResponse, bytes]:
        client = self.client()
        try:
            client.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            response = client.getresponse()
            return response, response.read()
        finally:
            client.close()

    def raw(self, data: bytes, sni: str | None = "") -> bytes:
        """What a TLS client gets that sends exactly `data` and then reads to the end (or a second of silence)."""
        with self.tls(sni) as sock:
            return exchange(sock, data)

    def head(self, request_line: str, *lines: str) -> bytes:
        """A request's head with the right Host, unless `lines` has one or says "-"."""
        given = [line for line in lines if line != "-"]
        if "-" not in lines and not any(line.lower().startswith("host:") for line in given):
            given.insert(0, f"Host: {self.target.host}:{self.target.port}")
        return "\r\n".join([request_line, *given, "", ""]).encode("latin-1")

    def curl(self, *options: str) -> list[str]:
        """What curl prints, by lines; it trusts the engine's CA and takes this listener for every host."""
        program = which("curl")
        require(program, "curl")
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as ca:
            ca.write(self.ca_pem)
            ca.flush()
            argv = [str(program), "-sS", "-m", "60", "--noproxy", "*", "--cacert", ca.name]
            argv += ["--connect-to", f"::127.0.0.1:{self.port}", *options]
            return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()

    def _count(self, up: int, down: int) -> None:
        self.up += up
        self.down += down

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            prefix = sock.recv(self.target.prefix) if self.target.prefix else b""
            self.loop.call_soon_threadsafe(self._hand_over, sock, prefix)

    def _hand_over(self, sock: socket.socket, prefix: bytes) -> None:
        target = self.target
        try:
            ticket = None if target.idle is None else _ticket(target)
            self.engine.hand_over(
                sock,
                prefix,
                host=target.host,
                port=target.port,
                addresses=target.addresses,
                kind=target.kind,
                request_id=self.journal.connection,
                source_ip="192.0.2.7",
                ticket=ticket,
            )
        except HandOverError as error:
            self.failure = error

    def _stop_loop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE)
        self.loop.close()


def _ticket(target: Target) -> Ticket:
    asked = EgressRequest(target.host, target.port, date(2026, 11, 22), Origin("proxy", request_id="c1"))
    rule = allow(target.host, target.port, limits=HostLimits(idle=target.idle))
    decision = Decision(Verdict.ALLOW, "allow", "allowed", "d" * 64, grants=(rule,))
    return Quota().open(asked, decision, EgressLimits(), lambda _request, _excess: None, observing=False)


class SocketClient(HTTPConnection):
    """http.client over a socket that is connected already."""

    def __init__(self, host: str, port: int, sock: socket.socket) -> None:
        super().__init__(host, port, timeout=PATIENCE)
        self.sock = sock


def exchange(sock: socket.socket, data: bytes) -> bytes:
    sock.settimeout(PATIENCE)
    received = b""
    try:
        sock.sendall(data)
        while block := sock.recv(65536):
            received += block
            if received.endswith(b"\r\n\r\n") and b"Content-Length: 0" in received:
                break
    except (TimeoutError, ConnectionError, ssl.SSLError):
        pass
    return received


def tls_rule(host: str, port: int, **more: Any) -> HostRule:
    return allow(host, port, protocol=Protocol.TLS, **more)


def resident_peak(pid: int | None) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def settle(front: Front) -> None:
    """Wait until the engine reports no more bytes (it does so every second)."""
    for _ in range(20):
        before = front.up, front.down
        time.sleep(1.5)
        if before == (front.up, front.down):
            return
    raise AssertionError("bytes flow without end")
