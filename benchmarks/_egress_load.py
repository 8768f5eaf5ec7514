"""Load and origins for the egress benchmark: the C tools, or clients in Python where those are not at hand.

The origins and the load share one core, the candidate has another. `Load.run` gives what one run measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.enforce.egress.proxy import client_hello, read_exactly, read_head, upstream

HOST = "localhost"
SESSION = 65534
"""The account that the load runs under, where it can be had."""
DENIED = "evil.test:443"
KEEP_ALIVE = 100
"""Requests on one connection, where connections are kept."""


@dataclass(frozen=True)
class Work:
    """One kind of run. `mode` is the load generator's; `amount` operations, or bytes for bulk; `requests` on each
    connection."""

    name: str
    mode: str
    amount: int
    at_once: int = 32
    requests: int = 1

    @property
    def bulk(self) -> bool:
        return self.mode in ("down", "up")

    @property
    def operations(self) -> float:
        """What the CPU is divided by: connections, requests, or MB."""
        return self.amount / 1e6 if self.bulk else self.amount * self.requests


def pin(pid: int, core: int) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core % (os.cpu_count() or 1)})


def _as_session() -> None:
    """On the load's core, and under an account of its own, as sessions are."""
    pin(os.getpid(), 1)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(SESSION, SESSION, SESSION)
        os.setresuid(SESSION, SESSION, SESSION)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(port: int, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.005)
    raise SystemExit(f"nothing listens on {port}")


class PythonLoad:
    """A client that is slow itself; four threads, tunnels and refusals only."""

    modes = frozenset({"hello", "deny"})

    def __init__(self, origin: int) -> None:
        self.raw = self.tls = self.http = origin
        self._hello = client_hello(HOST)

    def run(self, work: Work, proxy: int | None) -> dict[str, Any]:
        once = self._tunnel if work.mode == "hello" else self._denied
        start = time.monotonic()
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: once(proxy or 0), range(work.amount)))
        return {"rate": work.amount / (time.monotonic() - start)}

    def _tunnel(self, proxy: int) -> None:
        with socket.create_connection(("127.0.0.1", proxy)) as sock:
            sock.sendall(f"CONNECT {HOST}:{self.raw} HTTP/1.1\r\n\r\n".encode())
            read_head(sock)
            sock.sendall(self._hello)
            read_exactly(sock, len(self._hello))

    def _denied(self, proxy: int) -> None:
        with socket.create_connection(("127.0.0.1", proxy)) as sock:
            sock.sendall(f"CONNECT {DENIED} HTTP/1.1\r\n\r\n".encode())
            read_head(sock)  # the answer; squid would keep the connection open behind it


class CLoad:
    """The load generator in C. `ca`: the TLS origin's certificate, its own authority."""

    modes = frozenset({"hello", "deny", "http", "tls", "down", "up", "idle"})

    def __init__(self, program: Path, raw: int, tls: int, http: int, ca: Path) -> None:
        self._program = program
        self.raw, self.tls, self.http, self.ca = raw, tls, http, ca

    def command(self, work: Work, proxy: int | None) -> list[str | Path]:
        port = {"tls": self.tls, "http": self.http}.get(work.mode, self.raw)
        target = DENIED if work.mode == "deny" else f"{HOST}:{port}"
        command: list[str | Path] = [self._program, "-m", work.mode, "-t", target, "-s", HOST]
        command += [] if proxy is None else ["-p", f"127.0.0.1:{proxy}"]
        if work.bulk:
            return [*command, "-b", str(work.amount)]
        return [*command, "-c", str(work.at_once), "-n", str(work.amount), "-r", str(work.requests), "-d", "120"]

    def run(self, work: Work, proxy: int | None) -> dict[str, Any]:
        """What the generator says (`rate`, `p50`, `mbps`). `proxy` None: straight to the origin."""
        done = subprocess.run(
            self.command(work, proxy),
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
            preexec_fn=_as_session,
        )
        result: dict[str, Any] = json.loads(done.stdout)
        if result.get("err") or result.get("timedout"):
            print(f"  {work.name}: {result}", file=sys.stderr)
        return result

    @contextlib.contextmanager
    def idle(self, proxy: int, count: int) -> Iterator[str]:
        """So many tunnels that are open and at rest; what the generator says about them."""
        work = Work("idle", "idle", count, at_once=64)
        command = self.command(work, proxy)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.communicate(timeout=60)


@contextlib.contextmanager
def load(tools: Path | None, where: Path) -> Iterator[PythonLoad | CLoad]:
    if tools is None:
        with upstream() as origin:
            yield PythonLoad(origin.port)
        return
    where.chmod(0o755)
    for name in ("load", "origin"):
        libraries = ["-lssl", "-lcrypto", "-lm", "-lpthread"]
        subprocess.run(["gcc", "-O2", "-w", "-o", where / name, tools / f"{name}.c", *libraries], check=True)
    certificate, key = where / "cert.pem", where / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    make += ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    raw, tls = free_port(), free_port()
    process = subprocess.Popen([where / "origin", str(raw), str(tls), certificate, key])
    try:
        wait_for(raw)
        pin(process.pid, 1)
        with http_origin() as http:
            yield CLoad(where / "load", raw, tls, http, certificate)
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def http_origin() -> Iterator[int]:
    """A process that answers every HTTP request with 1 KB and keeps its connections; its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    child = os.fork()
    if child == 0:
        pin(os.getpid(), 1)
        _answer_for_ever(listener)
    port = int(listener.getsockname()[1])
    listener.close()
    try:
        yield port
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def _answer_for_ever(listener: socket.socket) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\nContent-Type: text/plain\r\n\r\n" + b"a" * 1024
    poll, peers = select.epoll(), {}
    poll.register(listener.fileno(), select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                peer, _ = listener.accept()
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peers[peer.fileno()] = peer
                poll.register(peer.fileno(), select.EPOLLIN)
                continue
            data = b""
            with contextlib.suppress(OSError):
                data = peers[fd].recv(65536)
            if data:
                peers[fd].sendall(answer)
            else:
                poll.unregister(fd)
                peers.pop(fd).close()
