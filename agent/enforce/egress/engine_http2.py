"""mitmproxy's HTTP/2, on the client's side of an intercepted connection, and what either side's holds in memory.

Rules kept here: a client that begins requests and gives them up, faster than that can be noticed, is cut; a request
that was given up goes nowhere; what waits is counted as it lies in memory, not as it came (a frame of one byte, or of
none, is an object of some hundred).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import h2.errors
import h2.events
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http import HttpStream
from mitmproxy.proxy.layers.http._base import ReceiveHttp, StreamId
from mitmproxy.proxy.layers.http._events import ErrorCode, RequestData, RequestProtocolError, ResponseProtocolError
from mitmproxy.proxy.layers.http._http2 import Http2Client, Http2Connection, Http2Server

from agent.enforce.egress.engine_failures import answer_fields, failure

PIECE: Final = 256
"""Bytes of memory that a piece of data takes beside its own."""
MAX_STREAMS: Final = 512
"""Requests of one connection that are not done with: what a client has given up counts until that is noticed."""
_HEADER_FRAMES: Final = (0x1, 0x9)  # HEADERS, CONTINUATION (RFC 9113 section 6)


class BoundedHttp2Server(Http2Server):
    """The client's side in HTTP/2, whose own library bounds heads and refuses what is malformed. `requests`: those that
    are not done with."""

    def __init__(
        self, context: Context, malformed: Callable[[str], None], requests: Mapping[StreamId, HttpStream]
    ) -> None:
        super().__init__(context)
        self._malformed = malformed
        self._requests = requests

    def head_begun(self) -> bool:
        """A block of header frames that goes on, or the beginning of a frame that could be of one (RFC 9113 4.3)."""
        buffer = self.h2_conn.incoming_buffer
        kind = buffer._data[3:4]
        return bool(buffer._headers_buffer or (buffer._data and (not kind or kind[0] in _HEADER_FRAMES)))

    def handle_h2_event(self, event: h2.events.Event) -> CommandGenerator[bool]:
        if isinstance(event, h2.events.RequestReceived) and len(self._requests) >= MAX_STREAMS:
            self._malformed("too many requests of one connection were begun and given up")
            yield from super().protocol_error("too many streams", h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            return True
        if isinstance(event, h2.events.StreamReset) and event.stream_id not in self.streams:
            # mitmproxy has forgotten a request that ended and was given up in one breath, and would send it on
            yield ReceiveHttp(RequestProtocolError(event.stream_id, "stream reset by client", ErrorCode.CANCEL))
        return (yield from super().handle_h2_event(event))

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        """What failed is said in our words, as in HTTP/1."""
        if isinstance(event, ResponseProtocolError):
            status = event.code.http_status_code()
            stream = self.h2_conn.streams.get(event.stream_id)
            if (
                status is not None
                and stream is not None
                and not stream.state_machine.headers_sent
                and self.is_open_for_us(event.stream_id)
            ):
                answer = failure(status, event)
                fields, body = answer_fields(answer)
                known = self._requests.get(event.stream_id)
                bodiless = known is not None and known.flow.request.data.method == b"HEAD"
                head = [(b":status", b"%d" % answer.status), *fields]
                self.h2_conn.send_headers(event.stream_id, head, end_stream=bodiless)
                if not bodiless:
                    self.h2_conn.send_data(event.stream_id, body, end_stream=True)
                yield commands.SendData(self.conn, self.h2_conn.data_to_send())
                return
        yield from super()._handle_event(event)

    def protocol_error(
        self, message: str, error_code: int = h2.errors.ErrorCodes.PROTOCOL_ERROR
    ) -> CommandGenerator[None]:
        self._malformed("the client breaks the HTTP/2 protocol")
        yield from super().protocol_error(message, error_code)


def held(peer: layer.Layer | None) -> int:
    """What an HTTP/2 connection, wrapped in TLS or not, could not send yet; 0 for HTTP/1 (sockets hold back)."""
    while peer is not None and not isinstance(peer, Http2Connection):
        peer = getattr(peer, "child_layer", None)
    if peer is None:
        return 0
    waiting = sum(PIECE + len(part.data) for parts in peer.h2_conn.stream_buffers.values() for part in parts)
    if isinstance(peer, Http2Client):
        waiting += sum(map(size_of, peer.stream_queue.values()))
    return waiting


def size_of(queued: Iterable[events.Event]) -> int:
    """Bytes of memory that waiting events take."""
    return sum(PIECE + (len(event.data) if isinstance(event, RequestData) else 0) for event in queued)
