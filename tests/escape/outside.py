"""The world outside of an agent, in a network namespace of its own: stand-in addresses, servers, a name server.

`Outside` makes a namespace that has nothing but loopback, gives loopback addresses that look like others' (RFC 5737),
and serves on them from the test's own process: sockets stay in the namespace in which they were made. An agent started
with `command_prefix` lives there; closing it takes everything away, and nothing of the machine's changes.

Since the stand-ins' addresses are not loopback's, what a session connects to them is captured in its jail; and since
names are answered by the stand-in name server alone (the agent's hosts file knows none of them), a lookup by the
session goes the way every lookup goes. `questions` are those that reached that server; `arrived` is who got where
nobody may.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType

from agent.linux import namespaces
from tests.escape.upstream import Upstream

SERVER, OTHER, RESOLVER = "203.0.113.10", "198.51.100.10", "198.51.100.53"
"""Where the names lead, an address that no name leads to, and the agent's name server."""
LISTENED = (22, 53, 853, 443, 9000)
NAMES = ("allowed.test", "forbidden.test", "raw.test")


class Outside:
    """Open from construction to `close`."""

    def __init__(self, certificate: str) -> None:
        with ThreadPoolExecutor(1) as thread:  # a namespace belongs to a thread (namespaces(7))
            self._descriptor = thread.submit(_make).result()
        self.arrived: list[tuple[str, str, int]] = []
        self.questions: list[str] = []
        self._open = True
        self._sockets: list[socket.socket] = []
        self.upstream: Upstream = self.inside(lambda: Upstream(certificate, (80, 443, 9000), address=SERVER))
        self.inside(self._serve)

    def __enter__(self) -> Outside:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def command_prefix(self) -> list[str]:
        """In front of an argument list that is to run there."""
        return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self._descriptor}"]

    def inside[T](self, act: Callable[[], T]) -> T:
        """Call it in a thread that lives there; sockets that it makes are there."""

        def there() -> T:
            namespaces.setns(self._descriptor, namespaces.NEWNET)
            return act()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(there).result()

    def close(self) -> None:
        self._open = False
        self.upstream.close()
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits on it
            sock.close()
        os.close(self._descriptor)

    def _serve(self) -> None:
        """Listeners where nobody may arrive, and the name server."""
        for port in LISTENED:
            server = socket.create_server((OTHER, port))
            self._start(server, self._accept)
            for address in (SERVER, OTHER):
                datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                datagrams.bind((address, port))
                self._start(datagrams, self._receive)
        names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        names.bind((RESOLVER, 53))
        self._start(names, self._answer)

    def _start(self, sock: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        self._sockets.append(sock)

        def served() -> None:
            while self._open:
                try:
                    serve(sock)
                except OSError:
                    return

        threading.Thread(target=served, daemon=True).start()

    def _accept(self, server: socket.socket) -> None:
        server.accept()[0].close()
        self.arrived.append(("tcp", *server.getsockname()))

    def _receive(self, sock: socket.socket) -> None:
        sock.recv(4096)
        if self._open:
            self.arrived.append(("udp", *sock.getsockname()))

    def _answer(self, sock: socket.socket) -> None:
        """A for the names, an empty answer for their other types, NXDOMAIN for the rest (RFC 1035)."""
        question, client = sock.recvfrom(4096)
        if not self._open:
            return
        name, end = _name(question)
        kind = int.from_bytes(question[end : end + 2])
        self.questions.append(f"{name} {kind}")
        known = name in NAMES
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(SERVER) if known and kind == 1 else b""
        head = question[:2] + (b"\x81\x80" if known else b"\x81\x83") + b"\0\1" + bytes([0, bool(answer)]) + b"\0" * 4
        sock.sendto(head + question[12 : end + 4] + answer, client)


def _make() -> int:
    namespaces.unshare(namespaces.NEWNET)
    namespaces.bring_loopback_up()
    for address in (SERVER, OTHER, RESOLVER):
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _name(question: bytes) -> tuple[str, int]:
    """The name of the first question, and where it ends."""
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode("ascii", "replace").lower())
        at += 1 + question[at]
    return ".".join(labels), at + 1
