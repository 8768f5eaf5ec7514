"""What travels on the control socket. For both ends; standard library only.

A frame is a 4-byte big-endian length and one JSON object (as on `agent.channel`, whose other end is trusted with more).
Rules kept here: a frame is at most MAX_FRAME bytes, an intake holds no more than one frame and a little; what is
malformed is said once and ends the connection.
"""

from __future__ import annotations

import json
import struct
from typing import Any

MAX_FRAME = 512 << 10
"""Bytes of one request or answer: the longest is an exec's argument list."""
_HEADER = struct.Struct("!I")

type Message = dict[str, Any]


class WireError(Exception):
    """What arrived is no frame; the text says why."""


def encode(message: Message) -> bytes:
    """One message as it travels. Raises WireError where it is too long."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME:
        raise WireError(f"longer than {MAX_FRAME} bytes")
    return _HEADER.pack(len(body)) + body


class Frames:
    """Bytes in, messages out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._buffer += data

    def take(self) -> Message | None:
        """The next whole message, None where more bytes are needed. Raises WireError."""
        if len(self._buffer) < _HEADER.size:
            return None
        (length,) = _HEADER.unpack_from(self._buffer)
        if length > MAX_FRAME:
            raise WireError(f"a frame of {length} bytes")
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        try:
            message = json.loads(self._buffer[_HEADER.size : end])
        except (ValueError, RecursionError):
            raise WireError("it is no JSON") from None
        if not isinstance(message, dict):
            raise WireError("it is no JSON object")
        del self._buffer[:end]
        return message
