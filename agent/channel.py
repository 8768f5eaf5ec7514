"""Framed messages, with file descriptors, between the agent's own processes.

A frame is a 4-byte big-endian length and one JSON object; descriptors travel as SCM_RIGHTS (unix(7)) with the frame's
first byte. Both ends are the agent's; a malformed frame is a fault of the peer and closes the channel. The socket is a
Unix stream pair made with `pair()`.

Rules: a received descriptor is close-on-exec; a frame is at most `MAX_FRAME` bytes; a short read is end of channel,
never a partial message.
"""

from __future__ import annotations

import array
import json
import socket
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

MAX_FRAME = 16 * 1024 * 1024
MAX_FDS = 16
_HEADER = struct.Struct("!I")
_READ = 1 << 16  # bytes at once: above the C library's mmap threshold every read would map and unmap its buffer
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class ChannelClosed(Exception):
    """The peer is gone or has sent something malformed."""


type Message = dict[str, Any]


def pair() -> tuple[socket.socket, socket.socket]:
    """A connected pair of Unix stream sockets, both close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def frame(message: Message, fds: int = 0) -> bytes:
    """One message as it travels, for an end that must not block and keeps a buffer. `fds`: how many go with it."""
    body = _encode({**message, "fds": fds}).encode()
    return _HEADER.pack(len(body)) + body


def messages(data: bytes) -> Iterator[Message]:
    """The whole messages in what was to travel, without descriptors. Raises ValueError where it is none."""
    at = 0
    while len(data) - at >= _HEADER.size:
        (length,) = _HEADER.unpack_from(data, at)
        end = at + _HEADER.size + length
        if end > len(data):
            return
        yield json.loads(data[at + _HEADER.size : end])
        at = end


class Channel:
    """One end. `send` and `receive` block unless the socket is non-blocking (then see `feed`)."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()
        self._fds: deque[int] = deque()

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send one message. Raises ChannelClosed where the peer is gone."""
        data = memoryview(frame(message, len(fds)))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            sent = self.sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)
            while sent < len(data):
                sent += self.sock.send(data[sent:], socket.MSG_NOSIGNAL)
        except OSError as error:
            raise ChannelClosed(f"peer gone: {error}") from error

    def receive(self) -> tuple[Message, list[int]]:
        """Wait for the next message and its descriptors. Raises ChannelClosed at the end."""
        while True:
            parsed = self._take()
            if parsed is not None:
                return parsed
            self._read()

    def feed(self) -> list[tuple[Message, list[int]]]:
        """Read once (for a ready, non-blocking socket) and return whole messages. Raises ChannelClosed at the end."""
        try:
            self._read()
        except BlockingIOError:
            return []
        messages = []
        while (parsed := self._take()) is not None:
            messages.append(parsed)
        return messages

    def close(self) -> None:
        self.sock.close()

    def _read(self) -> None:
        try:
            data, ancillary, flags, _ = self.sock.recvmsg(
                _READ, socket.CMSG_SPACE(MAX_FDS * 4), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            raise
        except OSError as error:
            raise ChannelClosed(f"peer gone: {error}") from error
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
                self._fds.extend(received)
        if flags & socket.MSG_CTRUNC:
            raise ChannelClosed("descriptors were cut off")
        if not data:
            raise ChannelClosed("end of channel")
        self._buffer += data

    def _take(self) -> tuple[Message, list[int]] | None:
        if len(self._buffer) < _HEADER.size:
            return None
        (length,) = _HEADER.unpack_from(self._buffer)
        if length > MAX_FRAME:
            raise ChannelClosed(f"frame of {length} bytes")
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        try:
            message = json.loads(self._buffer[_HEADER.size : end])
            count = message.pop("fds")
            fds = [self._fds.popleft() for _ in range(count)]
        except (ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
            raise ChannelClosed(f"malformed frame: {error}") from error
        del self._buffer[:end]
        return message, fds
