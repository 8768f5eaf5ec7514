"""Canaries: sockets outside of the session's confinement that nothing of the session may reach.

The launcher, once confined, tries each (agent.session.proofs) and is not asked how it went: where connections are
captured, connect(2) succeeds and the egress process has the connection. What counts is what arrived here. Everything on
loopback is judged by arrival alone; a datagram must carry the run's token, because one canary may have an address that
others can send to.
"""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress

from agent.session.plan import Target

_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))  # RFC 5737, RFC 3849
_TOKEN_BYTES = 16
_DATAGRAMS = 64


class Canaries:
    """Open from construction to `close`. `targets` is what the launcher must try, `token` what it must send."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(_TOKEN_BYTES)
        self._streams: list[socket.socket] = []
        self._datagrams: list[socket.socket] = []
        for family, address in _LOOPBACK:
            self._add(self._streams, family, socket.SOCK_STREAM, address)
        for either, address in (*_LOOPBACK, *_own_addresses()):
            self._add(self._datagrams, either, socket.SOCK_DGRAM, address)

    def __enter__(self) -> Canaries:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def targets(self) -> tuple[Target, ...]:
        """(kind, address, port) of each; the kind is ``tcp`` or ``udp``."""
        return tuple(
            (kind, *sock.getsockname()[:2])
            for kind, canaries in (("tcp", self._streams), ("udp", self._datagrams))
            for sock in canaries
        )

    def reached(self) -> list[str]:
        """A sentence for each canary that the launcher got through to. To be asked when the launcher has tried."""
        arrived = [("TCP connection", one) for one in self._streams if _accepts(one)]
        arrived += [("datagram", one) for one in self._datagrams if self._has_token(one)]
        return [f"a direct {what} to {one.getsockname()[0]} outside of the session arrived" for what, one in arrived]

    def close(self) -> None:
        for sock in (*self._streams, *self._datagrams):
            sock.close()

    def _add(self, canaries: list[socket.socket], family: int, kind: int, address: str) -> None:
        """One more, where this machine has the family (it may have no IPv6)."""
        with suppress(OSError):
            sock = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            try:
                sock.bind((address, 0))
                if kind == socket.SOCK_STREAM:
                    sock.listen(1)
            except OSError:
                sock.close()
                raise
            canaries.append(sock)

    def _has_token(self, sock: socket.socket) -> bool:
        with suppress(BlockingIOError):
            for _ in range(_DATAGRAMS):
                if sock.recv(256) == self.token.encode():
                    return True
        return False


def _accepts(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def _own_addresses() -> list[tuple[int, str]]:
    """The addresses by which this machine would speak to others; connect(2) on a datagram socket sends nothing."""
    found = []
    for family, elsewhere in _ELSEWHERE:
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as unsent:
            unsent.connect((elsewhere, 9))
            found.append((family, str(unsent.getsockname()[0])))
    return [(family, address) for family, address in found if (family, address) not in _LOOPBACK]
