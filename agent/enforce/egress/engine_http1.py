"""mitmproxy's HTTP/1, on both sides of an intercepted connection, with bounds and one reading of what is chunked.

Rules kept here: nothing that a peer sends is kept without a bound; chunked bodies are read as the front reads them
(`agent.enforce.egress.head.Chunks`): their extensions and trailers end here, whichever side sent them, and lines that
have no end are an error; interim answers (RFC 9110 15.2) end here too, for mitmproxy would take one for the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import h11
import mitmproxy.proxy.layers.http
from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import ErrorCode, HttpEvent, RequestProtocolError, ResponseProtocolError
from mitmproxy.proxy.layers.http._http1 import Http1Client, Http1Connection, Http1Server

from agent.enforce.egress.answer import Answer, render_answer
from agent.enforce.egress.engine_failures import failure
from agent.enforce.egress.head import Chunks, HeadError

MAX_HEAD: Final = 256 * 1024
MAX_INTERIM: Final = 16
"""Interim answers before the answer to one request."""
_INTERIM: Final = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9]{2}[ \r\n]")


class ChunkReader:
    """`Chunks`, as h11's readers are called: with the buffer of the connection."""

    def __init__(self) -> None:
        self._chunks = Chunks()

    def __call__(self, buffer: ReceiveBuffer) -> h11.Data | h11.EndOfMessage | None:
        """The next piece of the body (it may be empty). Raises h11.RemoteProtocolError."""
        if self._chunks.done:
            return h11.EndOfMessage()
        data = buffer.maybe_extract_at_most(len(buffer))
        if data is None:
            return None
        try:
            body = self._chunks.feed(bytes(data))
        except HeadError as error:
            raise h11.RemoteProtocolError(str(error)) from error
        if self._chunks.done:
            buffer += self._chunks.rest
        return h11.Data(data=body)

    def read_eof(self) -> h11.EndOfMessage:
        raise h11.RemoteProtocolError("the connection ended within a chunked body")


class _StrictBodies(Http1Connection):
    """Either side's bodies."""

    def read_body(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(self.body_reader, ChunkedReader):
            self.body_reader = ChunkReader()  # type: ignore[assignment]
        yield from super().read_body(event)


class BoundedHttp1Server(_StrictBodies, Http1Server):
    """The client's side in HTTP/1, with a bound on a request's head and answers in our words."""

    def __init__(self, context: Context, malformed: Callable[[str], None]) -> None:
        super().__init__(context)
        self._malformed = malformed

    def head_begun(self) -> bool:
        return self.state == self.read_headers and len(self.buf) > 0

    def send(self, event: HttpEvent) -> CommandGenerator[None]:
        if isinstance(event, ResponseProtocolError) and self.response is None:
            status = event.code.http_status_code()
            if status is not None and self.conn.state & ConnectionState.CAN_WRITE:
                bodiless = self.request is not None and self.request.data.method == b"HEAD"
                yield commands.SendData(self.conn, render_answer(failure(status, event), bodiless=bodiless))
                yield commands.CloseConnection(self.conn)
                return
        yield from super().send(event)

    def read_headers(self, event: events.ConnectionEvent) -> CommandGenerator[None]:
        for command in super().read_headers(event):
            if isinstance(command, commands.SendData):  # the one thing said here is mitmproxy's 400
                yield from self._refuse_head("the request head is not HTTP/1")
            else:
                yield command
        if self.state == self.read_headers and len(self.buf) > MAX_HEAD:
            yield from self._refuse_head(f"the request head is longer than {MAX_HEAD} bytes")
            yield commands.CloseConnection(self.conn)
            self.state = self.done

    def read_body(self, event: events.Event) -> CommandGenerator[None]:
        for command in super().read_body(event):
            broken = isinstance(command, ReceiveHttp) and isinstance(command.event, RequestProtocolError)
            if broken and isinstance(event, events.DataReceived):  # else the client is gone, and nothing more
                self._malformed("the request's body is malformed")
            yield command

    def _refuse_head(self, reason: str) -> CommandGenerator[None]:
        self._malformed(reason)
        yield commands.SendData(self.conn, render_answer(Answer(400, reason, rule="malformed-request")))


class BoundedHttp1Client(_StrictBodies, Http1Client):
    """The upstream's side in HTTP/1."""

    _interim = 0

    def head_too_long(self) -> bool:
        return self.state == self.read_headers and len(self.buf) > MAX_HEAD

    def read_headers(self, event: events.ConnectionEvent) -> CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and self.stream_id is not None:
            self._drop_interim()
            if self._interim > MAX_INTERIM:
                yield commands.CloseConnection(self.conn)
                reason = f"more than {MAX_INTERIM} interim answers"
                yield ReceiveHttp(ResponseProtocolError(self.stream_id, reason, ErrorCode.GENERIC_SERVER_ERROR))
                return
        yield from super().read_headers(event)
        if self.state != self.read_headers:
            self._interim = 0

    def _drop_interim(self) -> None:
        while self._interim <= MAX_INTERIM and _INTERIM.match(bytes(self.buf)):
            if self.buf.maybe_extract_lines() is None:
                return
            self._interim += 1


def http1_client(peer: layer.Layer | None) -> BoundedHttp1Client | None:
    """The HTTP/1 of an upstream's layers, None where it speaks another or none yet."""
    while peer is not None and not isinstance(peer, BoundedHttp1Client):
        peer = getattr(peer, "child_layer", None)
    return peer


mitmproxy.proxy.layers.http.Http1Client = BoundedHttp1Client  # type: ignore[attr-defined]  # taken from there
