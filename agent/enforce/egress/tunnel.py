"""Bytes between two connected sockets, once the connection has been judged.

Rules kept here: bytes arrive in order, complete, and as they were sent, or the other side sees a reset: a connection
that broke is never made to look as if it had ended; an end of one direction is passed on and leaves the other open;
what is held in memory is at most one piece (`PIECE`) for each direction, or one pipe.

A direction starts by copying through one buffer that all tunnels share, and after `BULK` bytes moves in the kernel
(splice(2)) where a pipe is to be had. Events are edge-triggered (`agent.enforce.egress.wire`): a direction runs until
one of its sockets says EAGAIN, or has moved `TURN` pieces and lets the others have theirs.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
from typing import Final

from agent.enforce.egress.quota import Allowance, LimitExceeded, Ticket
from agent.enforce.egress.wire import WRITABLE, Poller

PIECE: Final = 256 * 1024
BULK: Final = 128 * 1024
TURN: Final = 16
_REST: Final = 2.0
_SPLICE: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_ENDED: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_PIPE_BYTES: Final = 1024 * 1024
_F_SETPIPE_SZ: Final = 1031  # fcntl(2), linux/fcntl.h
_NO_SPLICE: Final = frozenset({errno.EINVAL, errno.ENOSYS})  # a kernel without splice between sockets and pipes


class Traffic:
    """What has been carried since the last report: bytes up (from the session) and down, and new connections."""

    __slots__ = ("connections", "down", "up")

    def __init__(self) -> None:
        self.up = self.down = self.connections = 0

    def take(self) -> tuple[int, int, int]:
        """The numbers, and start again at zero."""
        taken = (self.up, self.down, self.connections)
        self.up = self.down = self.connections = 0
        return taken


class Pipes:
    """A bounded stock of pipes for splice(2). `most`: how many exist at once."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._usable = True
        self._free: list[tuple[int, int]] = []

    def take(self) -> tuple[int, int] | None:
        """An empty pipe (read end, write end), None where none is to be had."""
        if not self._usable:
            return None
        if self._free:
            return self._free.pop()
        if self._left <= 0:
            return None
        try:
            pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # no descriptors left: this tunnel goes on copying
            return None
        with contextlib.suppress(OSError):  # over the user's pipe limit (pipe(7)): the default size will do
            fcntl.fcntl(pipe[0], _F_SETPIPE_SZ, _PIPE_BYTES)
        self._left -= 1
        return pipe

    def refuse(self) -> None:
        """No more pipes: this kernel can't use them."""
        self._usable = False

    def give(self, pipe: tuple[int, int], *, empty: bool) -> None:
        """Back to the stock; a pipe that still holds bytes is closed instead."""
        if empty and len(self._free) < 8:
            self._free.append(pipe)
            return
        os.close(pipe[0])
        os.close(pipe[1])
        self._left += 1


class Carrier:
    """What all tunnels share.

    `idle` and `half_idle` (seconds): how long a tunnel, or one with an ended side, may rest. `pipes`: how many
    directions may splice at once.
    """

    def __init__(
        self, poller: Poller, traffic: Traffic, *, pipes: int = 64, idle: float = 3600, half_idle: float = 600
    ) -> None:
        self.poller = poller
        self.traffic = traffic
        self.pipes = Pipes(pipes)
        self.buffer = memoryview(bytearray(PIECE))
        self.idle = idle
        self.half_idle = half_idle
        self.open = 0

    def carry(self, client: socket.socket, upstream: socket.socket, first: bytes, ticket: Ticket) -> None:
        """Start a tunnel between two registered sockets; `first` was already read from the client.

        The ticket is the tunnel's from here on. Raises LimitExceeded where it no longer holds (and stays the caller's).
        """
        ticket.still_good()
        Tunnel(self, client, upstream, first, ticket)


class _Flow:
    """One direction."""

    __slots__ = ("allowance", "ended", "finished", "held", "moved", "pipe", "piped", "source", "target")

    def __init__(self, source: socket.socket, target: socket.socket, held: bytes, allowance: Allowance) -> None:
        self.source = source
        self.target = target
        self.held: bytes | memoryview = held  # read and not yet taken by the target
        self.allowance = allowance
        self.moved = 0
        self.pipe: tuple[int, int] | None = None
        self.piped = 0  # bytes in the pipe
        self.ended = False  # the source has sent its end
        self.finished = False  # the end was passed on


class Tunnel:
    """Two flows over two sockets."""

    __slots__ = ("_active", "_again", "_carrier", "_closed", "_down", "_ticket", "_up")

    def __init__(
        self, carrier: Carrier, client: socket.socket, upstream: socket.socket, first: bytes, ticket: Ticket
    ) -> None:
        self._carrier = carrier
        self._ticket = ticket
        self._up = _Flow(client, upstream, first, ticket.up)
        self._down = _Flow(upstream, client, b"", ticket.down)
        self._closed = False
        self._again = False
        self._active = carrier.poller.loop.time()
        carrier.open += 1
        for sock in (client, upstream):
            carrier.poller.swap(sock.fileno(), self)
        ticket.on_cut(self.abort)
        try:
            self._count(self._up, len(first))
        except LimitExceeded:
            self.abort()
            return
        self._run(self._up)
        self._run(self._down)

    def on_event(self, fd: int, mask: int) -> None:
        up, down = self._up, self._down
        reading, writing = (up, down) if fd == up.source.fileno() else (down, up)
        if mask & WRITABLE and (writing.held or writing.piped):
            self._run(writing)
        if mask & (select.EPOLLIN | _ENDED):
            self._run(reading)

    def on_tick(self, now: float) -> None:
        if now - self._active > _REST:
            for flow in (self._up, self._down):
                if not flow.piped:  # at rest: others may have the pipe
                    self._release(flow)
        if now - self._active > self._patience():
            self.abort()

    def _patience(self) -> float:
        """Seconds without a byte."""
        carrier, idle = self._carrier, self._ticket.idle
        patience = carrier.idle if idle is None else min(idle, carrier.idle)
        return min(carrier.half_idle, patience) if self._up.ended or self._down.ended else patience

    def abort(self) -> None:
        """Both sides see a reset."""
        self._close(reset=True)

    def _run(self, flow: _Flow) -> None:
        if self._closed or flow.finished:
            return
        self._active = self._carrier.poller.loop.time()
        try:
            more = self._copy(flow) if flow.pipe is None else self._splice(flow, *flow.pipe)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.abort()
            return
        if flow.finished:
            if self._up.finished and self._down.finished:
                self._close(reset=False)
        elif more and not self._again:
            self._again = True
            self._carrier.poller.again(self._resume)

    def _resume(self) -> None:
        self._again = False
        self._run(self._up)
        self._run(self._down)

    def _copy(self, flow: _Flow) -> bool:
        """Move bytes through the shared buffer. True where it stopped only to let others have their turn."""
        buffer = self._carrier.buffer
        if flow.held:
            self._deliver(flow, flow.held)
        for _ in range(TURN):
            if flow.ended:
                self._finish(flow)
                return False
            count = flow.source.recv_into(buffer)  # until EAGAIN: in gVisor an end behind a short read makes no edge
            if not count:
                flow.ended = True
                continue
            self._count(flow, count)
            self._deliver(flow, buffer[:count])
            if flow.moved > BULK and (pipe := self._carrier.pipes.take()) is not None:
                flow.pipe = pipe
                return True
        return True

    def _deliver(self, flow: _Flow, data: bytes | memoryview) -> None:
        """Send, and hold what the target does not take; raises BlockingIOError then."""
        flow.held = b""
        try:
            sent = flow.target.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            flow.held = bytes(data[sent:])
            raise BlockingIOError

    def _splice(self, flow: _Flow, out: int, into: int) -> bool:
        """Move bytes through the pipe. True where it stopped only to let others have their turn."""
        source, target = flow.source.fileno(), flow.target.fileno()
        for _ in range(TURN):
            while flow.piped:
                flow.piped -= os.splice(out, target, flow.piped, flags=_SPLICE)
            if flow.ended:
                self._finish(flow)
                return False
            try:
                count = os.splice(source, into, _PIPE_BYTES, flags=_SPLICE)
            except OSError as error:
                if error.errno not in _NO_SPLICE:
                    raise
                self._carrier.pipes.refuse()
                self._release(flow)
                return True
            if not count:
                flow.ended = True
                continue
            flow.piped = count
            self._count(flow, count)
        return True

    def _finish(self, flow: _Flow) -> None:
        self._release(flow)
        flow.finished = True
        if not (self._up.finished and self._down.finished):  # else closing says it, with nothing left to read
            flow.target.shutdown(socket.SHUT_WR)

    def _release(self, flow: _Flow) -> None:
        if flow.pipe is not None:
            self._carrier.pipes.give(flow.pipe, empty=not flow.piped)
            flow.pipe, flow.piped = None, 0

    def _count(self, flow: _Flow, count: int) -> None:
        """Before the bytes are passed on. Raises LimitExceeded: they must not be."""
        flow.moved += count
        if flow is self._up:
            self._carrier.traffic.up += count
        else:
            self._carrier.traffic.down += count
        flow.allowance.take(count)

    def _close(self, *, reset: bool) -> None:
        if self._closed:
            return
        self._closed = True
        self._carrier.open -= 1
        self._ticket.close()
        for flow in (self._up, self._down):
            self._release(flow)
            self._carrier.poller.close(flow.source, reset=reset)
