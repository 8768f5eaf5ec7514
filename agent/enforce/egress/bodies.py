"""The bodies of HTTP/1 messages, as they stream through the forwarder.

Rules kept here: a body is never held whole; one that is malformed or cut is an error, never an end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from agent.enforce.egress.head import CHUNKED, UNTIL_CLOSE, Chunks, HeadError
from agent.enforce.egress.wire import Wire


def chunk(piece: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112 7.1)."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


async def pieces(
    wire: Wire, buffered: bytearray, length: int, received: Callable[[int], None] | None = None
) -> AsyncIterator[bytes]:
    """A body, piece by piece; what follows it stays in `buffered`, and `received` is told how much is read.

    Raises HeadError where it is malformed or cut.
    """
    chunks = Chunks() if length == CHUNKED else None
    while chunks is not None or length:
        data, most = bytes(buffered), length if length > 0 else None
        if data:
            del buffered[:most]
            data = data[:most]
        else:
            data = await wire.recv(65536 if most is None else min(65536, most))
            if received is not None:
                received(len(data))
        if not data:
            if length == UNTIL_CLOSE:
                return
            raise HeadError("a body ended early")
        if chunks is not None:
            data = chunks.feed(data)
        elif length > 0:
            length -= len(data)
        if data:
            yield data
        if chunks is not None and chunks.done:
            buffered[:0] = chunks.rest
            return
