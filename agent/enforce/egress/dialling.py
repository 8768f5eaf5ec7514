"""TCP calls on our copy of a session's socket: bound to loopback, connected on loopback, never for long.

Rules kept here: the address is always ours to choose; a connection that cannot be had at once is given up and the
socket taken back to its beginning, so that the session never holds a half-made connection to the egress process; ports
below the machine's bound for everybody are the session's only where they are everybody's (ip(7)).
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address

from agent.enforce.egress.own_sockets import Kept
from agent.enforce.egress.sockaddr import AddressError, Inet, parse_name, spelled
from agent.linux.syscalls import syscall
from agent.session import preamble
from agent.values import dataclass

PATIENCE_MS = 50
"""How long a connection on loopback may take: it is made at once, or the listener's queue is full."""
SHORT_MS = 1
REST_S = 1.0
"""For so long after a wait in vain others are only waited for by `SHORT_MS`."""
UNPRIVILEGED = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
_TIMEVAL = struct.Struct("=qq")
_LOCALHOST, _LOCALHOST6 = IPv4Address("127.0.0.1"), IPv6Address("::1")
_UNSPECIFIED = struct.pack("=H14x", socket.AF_UNSPEC)


@dataclass(frozen=True, slots=True)
class Doors:
    """Where the session's connections go on: the ports, on 127.0.0.1, of the proxy and of the listener for forwarded
    connections, and the token that makes a forwarded one's header true."""

    proxy: int
    forwarded: int
    token: bytes


class Patience:
    """What the session's connections may wait for full queues in all: whoever fills one and knocks again and again
    holds up the guard's loop, and with it every exec, for a tenth of the time. `clock`: time.monotonic's."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._short_until = 0.0

    @property
    def ms(self) -> int:
        """How long one may wait now."""
        return SHORT_MS if self._clock() < self._short_until else PATIENCE_MS

    @contextmanager
    def hurried(self, sock: socket.socket) -> Iterator[None]:
        """A connect(2) inside gives up in time where the listener's queue is full (socket(7), SO_SNDTIMEO)."""
        began, most = self._clock(), self.ms
        waits = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.size)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(0, most * 1000))
        try:
            yield
        finally:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, waits)
            ended = self._clock()
            if ended - began > PATIENCE_MS / 2000:  # half of it is long enough
                self._short_until = ended + REST_S


def reach(kept: Kept, destination: Inet, patience: Patience) -> int:
    """Connect our copy to this loopback address. Returns an errno, 0 when connected."""
    sock = kept.sock
    if kept.family == socket.AF_INET6 and isinstance(destination.address, IPv4Address):
        with suppress(OSError):  # bound already, as IPv6 only
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    raw = packed(kept.family, destination)
    with patience.hurried(sock):
        most = patience.ms
        try:
            syscall("connect", sock.fileno(), raw, len(raw))
        except OSError as error:
            if error.errno not in (errno.EINPROGRESS, errno.EAGAIN):
                return error.errno or errno.EACCES
            return _finish(sock, most)
    return 0


def forward(kept: Kept, destination: Inet, pid: int, doors: Doors, patience: Patience) -> int:
    """Connect our copy to the egress process, and say first where it was meant to go. Returns as `reach`."""
    if kept.family == socket.AF_INET:
        spelled(kept.family, destination.address)
    if not destination.port:
        return errno.ECONNREFUSED
    found = reach(kept, Inet(kept.family, _LOCALHOST, doors.forwarded), patience)
    if found:
        return found
    try:
        source = parse_name(kept.sock.getsockname())
        ends = ((str(source.address), source.port), (str(destination.address), destination.port))
        first = preamble.render(preamble.Preamble(*ends, pid, doors.token))
        sent = kept.sock.send(first, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError as error:
        _take_back(kept.sock)
        return error.errno or errno.EACCES
    if sent != len(first):
        _take_back(kept.sock)
        return errno.EACCES
    return 0


def bind_inet(kept: Kept, wanted: Inet) -> None:
    """Bind our copy as asked, on loopback where every address was asked for. Raises OSError."""
    if 0 < wanted.port < unprivileged_from():
        raise PermissionError(errno.EACCES, "a port that only root has")
    address = wanted.address
    if wanted.wildcard:
        only6 = kept.family == socket.AF_INET6 and kept.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        address = _LOCALHOST6 if only6 else _LOCALHOST
    raw = packed(kept.family, Inet(kept.family, address, wanted.port))
    syscall("bind", kept.sock.fileno(), raw, len(raw))


def unprivileged_from() -> int:
    """The first port that needs no privilege here (ip(7): ip_unprivileged_port_start)."""
    try:
        with open(UNPRIVILEGED, "rb") as file:  # bytes: the session's user can't read a codec that is not loaded yet
            return int(file.read())
    except OSError:
        return 1024


def packed(family: int, at: Inet) -> bytes:
    """The address as struct sockaddr_in or sockaddr_in6. Raises AddressError for IPv6 through an IPv4 socket."""
    if family == socket.AF_INET:
        if isinstance(at.address, IPv6Address):
            raise AddressError(errno.EAFNOSUPPORT)
        return struct.pack("=H", family) + struct.pack("!H4s8x", at.port, at.address.packed)
    address = IPv6Address(spelled(family, at.address))
    return struct.pack("=H", family) + struct.pack("!HI16sI", at.port, 0, address.packed, 0)


def _finish(sock: socket.socket, most_ms: int) -> int:
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    if poller.poll(most_ms):
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    _take_back(sock)
    return errno.ECONNREFUSED


def _take_back(sock: socket.socket) -> None:
    """Undo a connection, made or half made (connect(2): AF_UNSPEC)."""
    syscall("connect", sock.fileno(), _UNSPECIFIED, len(_UNSPECIFIED))
