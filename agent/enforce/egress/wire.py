"""Sockets on one edge-triggered epoll, nested in the asyncio loop.

Rules kept here: a socket is registered once, for both directions, for as long as it lives, and whoever serves it
changes under it (`Wire` while a connection is being judged, a tunnel afterwards): so whoever takes over tries to read
first. A socket is closed only after the batch of events that is being served: a descriptor reused within it would get
its predecessor's events. An exception while serving an event ends that connection and no other.

Sources: epoll(7) (edge-triggered use, EPOLLRDHUP), tcp(7).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Final, Protocol

log = logging.getLogger(__name__)

READABLE: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
WRITABLE: Final = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
_EVENTS: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_BATCH: Final = 256
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger of socket(7)
TICK_SECONDS: Final = 0.5


class Served(Protocol):
    """Whoever serves a registered socket."""

    def on_event(self, fd: int, mask: int) -> None: ...

    def on_tick(self, now: float) -> None: ...

    def abort(self) -> None: ...


class Poller:
    """The epoll and its table. Must be made inside the running loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._table: dict[int, Served] = {}
        self._graveyard: list[socket.socket] = []
        self._serving = False
        self.loop.add_reader(self._epoll.fileno(), self._dispatch)
        self._timer = self.loop.call_later(TICK_SECONDS, self._tick)

    def __len__(self) -> int:
        return len(self._table)

    def add(self, fd: int, served: Served) -> None:
        self._table[fd] = served
        self._epoll.register(fd, _EVENTS)

    def swap(self, fd: int, served: Served) -> None:
        """Somebody else serves the socket from now on, and must try to read and write at once."""
        self._table[fd] = served

    def forget(self, fd: int) -> None:
        """The socket stays open and is no longer watched."""
        if self._table.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self, sock: socket.socket, *, reset: bool = False) -> None:
        """Close now or, while a batch is being served, after it. `reset`: the peer sees a reset, never a clean end."""
        fd = sock.fileno()
        if fd < 0:
            return
        self._table.pop(fd, None)  # the epoll forgets it by itself once it is closed (epoll(7), question 6)
        if reset:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        if self._serving:
            self._graveyard.append(sock)
        else:
            sock.close()

    def again(self, callback: Callable[[], None]) -> None:
        """Call after the others had their turn (no further edge will come for bytes that already wait)."""
        self.loop.call_soon(callback)

    def stop(self) -> None:
        """Abort everything that is registered."""
        self._timer.cancel()
        self.loop.remove_reader(self._epoll.fileno())
        for served in list(self._table.values()):
            served.abort()
        self._epoll.close()

    def _dispatch(self) -> None:
        self._serving = True
        for fd, mask in self._epoll.poll(0, _BATCH):
            served = self._table.get(fd)
            if served is None:
                continue
            try:
                served.on_event(fd, mask)
            except Exception:
                log.exception("a connection is ended: serving it failed")
                served.abort()
        self._serving = False
        if self._graveyard:
            for sock in self._graveyard:
                sock.close()
            self._graveyard.clear()

    def _tick(self) -> None:
        self._timer = self.loop.call_later(TICK_SECONDS, self._tick)
        now = self.loop.time()
        for served in list(self._table.values()):
            served.on_tick(now)


class Wire:
    """A socket that a coroutine reads and writes. One reader and one writer at a time.

    `deadline` (loop time): past it, whoever waits gets TimeoutError, to within `TICK_SECONDS`.
    """

    __slots__ = ("_poller", "_reader", "_writer", "deadline", "fd", "sock")

    def __init__(self, poller: Poller, sock: socket.socket) -> None:
        self._poller = poller
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self.deadline: float | None = None
        self.sock = sock
        self.fd = sock.fileno()
        poller.add(self.fd, self)

    def limit(self, seconds: float | None) -> None:
        """Set the deadline this many seconds from now, None for none."""
        self.deadline = None if seconds is None else self._poller.loop.time() + seconds

    async def recv(self, limit: int = 65536) -> bytes:
        """The next bytes, empty at the end. Raises OSError (TimeoutError past the deadline)."""
        while True:
            try:
                return self.sock.recv(limit)
            except BlockingIOError:
                await self._readable()

    async def send(self, data: bytes) -> None:
        """All of `data`. Raises OSError."""
        view: bytes | memoryview = data
        while view:
            try:
                sent = self.sock.send(view)
            except BlockingIOError:
                await self._writable()
            else:
                if sent == len(view):
                    return
                view = memoryview(view)[sent:]

    async def connect(self, address: tuple[str, int]) -> None:
        """connect(2) to a literal address. Raises OSError."""
        code = self.sock.connect_ex(address)
        if code == errno.EINPROGRESS:
            await self._writable()
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    def quiet(self) -> bool:
        """True where neither bytes nor an end wait to be read (an idle connection that can be used again)."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def detach(self) -> socket.socket:
        """Stop watching; the caller owns the socket."""
        self._poller.forget(self.fd)
        return self.sock

    def close(self, *, reset: bool = False) -> None:
        """Close; whoever waits gets ConnectionAbortedError."""
        self._fail(ConnectionAbortedError("closed"))
        self._poller.close(self.sock, reset=reset)

    def abort(self) -> None:
        self.close(reset=True)

    def on_event(self, fd: int, mask: int) -> None:
        if mask & READABLE and self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
        if mask & WRITABLE and self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def on_tick(self, now: float) -> None:
        if self.deadline is not None and now >= self.deadline:
            self._fail(TimeoutError("the peer took too long"))

    def _fail(self, error: OSError) -> None:
        for waiter in (self._reader, self._writer):
            if waiter is not None and not waiter.done():
                waiter.set_exception(error)

    async def _readable(self) -> None:
        waiter = self._reader = self._poller.loop.create_future()
        try:
            await waiter
        finally:
            self._reader = None

    async def _writable(self) -> None:
        waiter = self._writer = self._poller.loop.create_future()
        try:
            await waiter
        finally:
            self._writer = None


class DialError(Exception):
    """No address could be reached. `timed_out`: at least one of them did not answer in time."""

    def __init__(self, message: str, *, timed_out: bool) -> None:
        super().__init__(message)
        self.timed_out = timed_out


async def dial(poller: Poller, addresses: tuple[str, ...], port: int, seconds: float) -> Wire:
    """Connect to the first of `addresses` that answers, and to nothing else. `seconds` is for each of them.

    Raises DialError.
    """
    reasons, timed_out = [], False
    for address in addresses:
        sock = _stream_socket(address)
        wire = Wire(poller, sock)
        wire.limit(seconds)
        try:
            await wire.connect((address, port))
        except OSError as error:
            timed_out = timed_out or isinstance(error, TimeoutError)
            reasons.append(error.strerror or str(error))
            wire.close()
        except BaseException:
            wire.close()
            raise
        else:
            wire.limit(None)
            return wire
    raise DialError("; ".join(dict.fromkeys(reasons)) or "no address", timed_out=timed_out)


def _stream_socket(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, socket.IPPROTO_TCP)
    prepare(sock)
    return sock


def prepare(sock: socket.socket) -> None:
    """Small writes go out at once (Nagle costs 40 ms against delayed acknowledgements, tcp(7))."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        return  # gone, or of another kind
