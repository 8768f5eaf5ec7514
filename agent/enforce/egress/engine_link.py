"""The channel between the egress process and its engine worker, for an event loop.

Rules kept here: sending never blocks the loop (what the socket does not take waits in a bounded queue, and a full queue
is an error for the sender); descriptors are closed here once they are sent; messages arrive whole and in order (see
`agent.channel`); the end of the channel is told exactly once.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from agent.channel import Channel, ChannelClosed, Message, frame

MAX_QUEUED = 2048


class LinkBusy(Exception):
    """The other end does not take messages as fast as they are made; this one was not queued."""


class Link:
    """One end of the pair. `on_message` gets each message with its descriptors (now its own); `on_close` the reason."""

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[Message, list[int]], None],
        on_close: Callable[[str], None],
    ) -> None:
        sock.setblocking(False)
        self._channel = Channel(sock)
        self._on_message = on_message
        self._on_close = on_close
        self._queue: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._writing = False
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._readable)

    @property
    def closed(self) -> bool:
        return self._closed

    def send(self, message: Message, fds: Sequence[int] = (), *, urgent: bool = False) -> None:
        """Queue one message; `fds` are taken over and closed here, whatever happens.

        `urgent` messages are queued past the bound (answers to what the other end asked, which bounds them itself).
        Raises LinkBusy, or ChannelClosed where the other end is gone.
        """
        if self._closed or (len(self._queue) >= MAX_QUEUED and not urgent):
            _close_all(fds)
            if self._closed:
                raise ChannelClosed("the engine link is closed")
            raise LinkBusy(f"{MAX_QUEUED} messages wait already")
        self._queue.append((memoryview(frame(message, len(fds))), tuple(fds)))
        if not self._writing:
            self._flush()

    def close(self, reason: str = "closed here") -> None:
        """Stop and tell `on_close`, once."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._channel.sock)
        if self._writing:
            self._loop.remove_writer(self._channel.sock)
        for _, fds in self._queue:
            _close_all(fds)
        self._queue.clear()
        self._channel.close()
        self._on_close(reason)

    def _readable(self) -> None:
        try:
            messages = self._channel.feed()
        except ChannelClosed as error:
            self.close(str(error))
            return
        for message, fds in messages:
            if self._closed:
                _close_all(fds)
                continue
            self._on_message(message, fds)

    def _flush(self) -> None:
        sock = self._channel.sock
        while self._queue:
            data, fds = self._queue[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                break
            except OSError as error:
                self.close(f"peer gone: {error}")
                return
            _close_all(fds)
            if sent == len(data):
                self._queue.popleft()
            else:
                self._queue[0] = (data[sent:], ())
        self._watch_writable(bool(self._queue))

    def _watch_writable(self, wanted: bool) -> None:
        if wanted and not self._writing:
            self._loop.add_writer(self._channel.sock, self._flush)
        elif self._writing and not wanted:
            self._loop.remove_writer(self._channel.sock)
        self._writing = wanted


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
