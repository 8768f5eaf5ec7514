"""One connection to the control socket, from the guard's loop: requests in, answers out, descriptors where allowed.

Rules kept here: nothing blocks the loop; what arrives is bounded in size and, until it is a request, in time; at most
three descriptors are taken, and those that nobody asked for are closed. Reads are tried before they are waited for:
gVisor tells of the end of a connection once, and not always late enough.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from contextlib import suppress

from agent.daemon.control.wire import Frames, Message, WireError, encode

STANDARD = 3
"""Descriptors that a request may bring: the standard streams."""
_READ = 1 << 16
_SPACE = socket.CMSG_SPACE(STANDARD * 4)


class Gone(Exception):
    """The caller has closed the connection."""


class ControlLink:
    """The server's end. `seconds`: for a request to arrive whole, and for an answer to leave."""

    def __init__(self, peer: socket.socket, seconds: float) -> None:
        peer.setblocking(False)
        self._peer = peer
        self._seconds = seconds
        self._frames = Frames()
        self._loop = asyncio.get_running_loop()
        self.fds: list[int] = []

    async def request(self) -> Message:
        """The first message. Raises WireError, Gone; TimeoutError where it does not arrive in time."""
        async with asyncio.timeout(self._seconds):
            return await self.receive()

    async def receive(self) -> Message:
        """The next message, however long it takes. Raises WireError, Gone."""
        while (message := self._frames.take()) is None:
            data = self._read()
            if data is None:
                await self._ready()
            elif not data:
                raise Gone
            else:
                self._frames.feed(data)
        return message

    async def send(self, message: Message) -> None:
        """Send one message; what the caller does not take in time is not sent. Raises Gone."""
        try:
            data = encode(message)
        except WireError:
            data = encode({"exit": 2, "error": "the answer is too long"})
        try:
            async with asyncio.timeout(self._seconds):
                await self._loop.sock_sendall(self._peer, data)
        except (OSError, TimeoutError):
            raise Gone from None

    def send_with(self, message: Message, fds: list[int]) -> None:
        """Send a short message and these descriptors. Raises Gone."""
        data = encode(message)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        try:
            if self._peer.sendmsg([data], rights, socket.MSG_NOSIGNAL) != len(data):
                raise Gone
        except OSError:
            raise Gone from None

    def close(self) -> None:
        """Close it, and what it brought. Any number of times."""
        self.close_fds()
        self._peer.close()

    def close_fds(self) -> None:
        """Close the descriptors that were brought."""
        while self.fds:
            os.close(self.fds.pop())

    def _read(self) -> bytes | None:
        """What has arrived; None where nothing has, empty at the end."""
        try:
            data, ancillary, flags, _ = self._peer.recvmsg(_READ, _SPACE, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                brought = array.array("i")
                brought.frombytes(payload[: len(payload) - len(payload) % brought.itemsize])
                self.fds.extend(brought)
        if flags & socket.MSG_CTRUNC or len(self.fds) > STANDARD:
            raise WireError(f"it brings more than {STANDARD} descriptors")
        return data

    async def _ready(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        self._loop.add_reader(self._peer, wake)
        try:
            await ready
        finally:
            with suppress(OSError, ValueError):
                self._loop.remove_reader(self._peer)
