"""mitmproxy's protocol layers, narrowed to what may happen on an intercepted connection.

Rules kept here: an exception anywhere in the layers ends the connection (mitmproxy logs it and carries on in an unknown
state); a refused request is answered at once and what remains of its body is thrown away unread; nothing that a peer
sends is kept without a bound; a request whose body has no length is never sent so to an HTTP/1 upstream, which would
read the body as the next request; what the engine says by itself is worded as the front's answers are.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import h2.errors
import wsproto.events
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.commands import Command
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http import DropStream, HttpLayer, HTTPMode, HttpStream, SendHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    HttpEvent,
    RequestData,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._hooks import HttpRequestHeadersHook
from mitmproxy.proxy.layers.http._http1 import Http1Client, Http1Server
from mitmproxy.proxy.layers.http._http2 import Http2Client, Http2Connection, Http2Server
from mitmproxy.proxy.layers.websocket import WebsocketLayer

from agent.enforce.egress.answer import Answer, render_answer
from agent.enforce.egress.engine_quota import download, upload
from agent.enforce.egress.engine_secrets import CONTROL, FAILED
from agent.enforce.egress.quota import LimitExceeded
from agent.values import replace

MAX_HEAD = 256 * 1024
_HEADER_FRAMES = (0x1, 0x9)  # HEADERS, CONTINUATION (RFC 9113 section 6)
MAX_WEBSOCKET_MESSAGE = 16 * 1024 * 1024
NO_ANSWER = "no answer from"
OURS = "parhelia: "


def blame(error: BaseException) -> str:
    """What failed and where, without the exception's words: mitmproxy puts traffic into them."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {place}"


class FailClosed:
    """The outermost layer: `abort` is called where the layers below raise, and nothing passes any more."""

    def __init__(self, inner: layer.Layer, abort: Callable[[str], None]) -> None:
        self._inner = inner
        self._abort = abort
        self._broken = False

    def handle_event(self, event: events.Event) -> Iterator[Command]:
        if self._broken:
            return
        try:
            yield from self._inner.handle_event(event)
        except Exception as error:
            self._broken = True
            self._abort(f"the protocol layers failed: {blame(error)}")


class Closing(layer.Layer):
    """Closes the client's connection, whatever arrives."""

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.Start):
            yield commands.CloseConnection(self.context.client)


class DecidedHttp(HttpLayer):
    """HTTP on a connection whose destination is fixed (mitmproxy's transparent mode).

    `malformed(reason)` is told about a head that can't be read at all, for which there is no hook. `heard`: how often
    the client has sent something that came through its TLS.
    """

    def __init__(self, context: Context, malformed: Callable[[str], None]) -> None:
        super().__init__(context, HTTPMode.transparent)
        self.heard = 0
        server = BoundedHttp2Server if context.client.alpn == b"h2" else BoundedHttp1Server
        self.connections[context.client] = server(context.fork(), malformed)

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and event.connection is self.context.client:
            self.heard += 1
        yield from super()._handle_event(event)
        for connection, peer in list(self.connections.items()):
            if _head_too_long(peer):
                yield commands.CloseConnection(connection)

    def head_begun(self) -> bool:
        """Is part of a request's head here, and the rest not?"""
        peer = self.connections[self.context.client]
        return isinstance(peer, (BoundedHttp1Server, BoundedHttp2Server)) and peer.head_begun()

    def held_for_client(self) -> int:
        """Bytes that wait for the client to open its HTTP/2 windows."""
        return _held(self.connections[self.context.client])

    def held_for_upstreams(self) -> int:
        """Bytes of the client that wait for an upstream: for its windows, for a stream, for its connection."""
        upstreams = (peer for connection, peer in self.connections.items() if connection is not self.context.client)
        queued = (event for stream in self.streams.values() for event in stream._paused_event_queue)
        return sum(map(_held, upstreams)) + _data_in(queued)

    def make_stream(self, stream_id: int) -> CommandGenerator[None]:
        self.streams[stream_id] = DecidedStream(self.context.fork(), stream_id)
        yield from self.event_to_child(self.streams[stream_id], events.Start())


def _head_too_long(peer: layer.Layer | None) -> bool:
    """An HTTP/1 upstream whose answer's head has no end (mitmproxy would keep all of it)."""
    while peer is not None and not isinstance(peer, Http1Client):
        peer = getattr(peer, "child_layer", None)
    return peer is not None and peer.state == peer.read_headers and len(peer.buf) > MAX_HEAD


def _held(peer: layer.Layer | None) -> int:
    """What an HTTP/2 connection, wrapped in TLS or not, could not send yet; 0 for HTTP/1 (sockets hold back)."""
    while peer is not None and not isinstance(peer, Http2Connection):
        peer = getattr(peer, "child_layer", None)
    if peer is None:
        return 0
    waiting = sum(len(part.data) for parts in peer.h2_conn.stream_buffers.values() for part in parts)
    if isinstance(peer, Http2Client):
        waiting += sum(map(_data_in, peer.stream_queue.values()))
    return waiting


def _data_in(queued: Iterable[events.Event]) -> int:
    return sum(len(event.data) for event in queued if isinstance(event, RequestData))


class BoundedHttp1Server(Http1Server):
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
                yield commands.SendData(self.conn, render_answer(failure(status, event)))
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

    def _refuse_head(self, reason: str) -> CommandGenerator[None]:
        self._malformed(reason)
        yield commands.SendData(self.conn, render_answer(Answer(400, reason, rule="malformed-request")))


class BoundedHttp2Server(Http2Server):
    """The client's side in HTTP/2, whose own library bounds heads and streams and refuses what is malformed."""

    def __init__(self, context: Context, malformed: Callable[[str], None]) -> None:
        super().__init__(context)
        self._malformed = malformed

    def head_begun(self) -> bool:
        """A block of header frames that goes on, or the beginning of a frame that could be of one (RFC 9113 4.3)."""
        buffer = self.h2_conn.incoming_buffer
        kind = buffer._data[3:4]
        return bool(buffer._headers_buffer or (buffer._data and (not kind or kind[0] in _HEADER_FRAMES)))

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        """What failed is said in our words, as in HTTP/1."""
        if isinstance(event, ResponseProtocolError):
            status = event.code.http_status_code()
            stream = self.h2_conn.streams.get(event.stream_id)
            unanswered = stream is not None and not stream.state_machine.headers_sent
            if status is not None and unanswered and self.is_open_for_us(event.stream_id):
                answer = failure(status, event)
                fields, body = answer_fields(answer)
                self.h2_conn.send_headers(event.stream_id, [(b":status", b"%d" % answer.status), *fields])
                self.h2_conn.send_data(event.stream_id, body, end_stream=True)
                yield commands.SendData(self.conn, self.h2_conn.data_to_send())
                return
        yield from super()._handle_event(event)

    def protocol_error(
        self, message: str, error_code: int = h2.errors.ErrorCodes.PROTOCOL_ERROR
    ) -> CommandGenerator[None]:
        self._malformed("the client breaks the HTTP/2 protocol")
        yield from super().protocol_error(message, error_code)


def failure(status: int, event: ResponseProtocolError) -> Answer:
    """The answer where mitmproxy found the request malformed (4xx) or the upstream failed.

    mitmproxy quotes what the upstream sent, which can hold an injected secret: its words are passed on only where
    nothing had been sent yet, or where they are ours.
    """
    if status < 500:
        return Answer(400, event.message, rule="malformed-request")
    if event.code is ErrorCode.CONNECT_FAILED or event.message.startswith(OURS):
        return Answer(504 if NO_ANSWER in event.message else 502, event.message.removeprefix(OURS))
    return Answer(502, "the upstream's answer is malformed, or did not come")


def answer_fields(answer: Answer) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """An answer for HTTP/2: its fields and its body."""
    head, _, body = render_answer(answer).partition(b"\r\n\r\n")
    fields = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:]]
    return [(name.lower(), value) for name, value in fields if name.lower() != b"connection"], body


class DecidedStream(HttpStream):
    """One request. The hooks mark every request and response for streaming; a response set by them is a refusal."""

    def check_invalid(self, request: bool) -> CommandGenerator[bool]:
        if request and self._is_connect():
            return False  # refused by the hook like everything else, see `handle_connect`
        return (yield from super().check_invalid(request))

    def handle_connect(self) -> CommandGenerator[None]:
        yield HttpRequestHeadersHook(self.flow)
        if self.flow.response is None:
            raise RuntimeError("a CONNECT inside a connection was not refused")
        yield from self._answer_refusal()

    def _is_connect(self) -> bool:
        return self.flow.request.data.method.upper() == b"CONNECT"

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, (RequestData, ResponseData)) and not event.data:
            return  # an empty HTTP/2 frame: what streams a body would take it for the end
        yield from super()._handle_event(event)

    def start_request_stream(self) -> CommandGenerator[None]:
        if self.flow.response is None:
            yield from super().start_request_stream()
            return
        yield from self._answer_refusal()

    def start_response_stream(self) -> CommandGenerator[None]:
        """An answer that may not be passed on is given up on both sides, under our words."""
        reason = self.flow.metadata.get(FAILED)
        if reason is None:
            yield from super().start_response_stream()
            return
        yield SendHttp(RequestProtocolError(self.stream_id, reason, ErrorCode.CANCEL), self.context.server)
        said = ResponseProtocolError(self.stream_id, OURS + reason, ErrorCode.GENERIC_SERVER_ERROR)
        yield SendHttp(said, self.context.client)
        self.flow.live = False
        self.client_state = self.server_state = self.state_errored

    def _answer_refusal(self) -> CommandGenerator[None]:
        """Answer now and drop the stream; what is still to come of the body meets `state_errored`, which takes all."""
        self.client_state = self.state_errored
        yield from self.send_response()
        yield from self.flow_done()

    def make_server_connection(self) -> CommandGenerator[bool]:
        connected = yield from super().make_server_connection()
        request = self.flow.request
        unframed = "content-length" not in request.headers and "transfer-encoding" not in request.headers
        if connected and request.is_http2 and self.context.server.alpn != b"h2" and unframed and self._has_body():
            request.headers["transfer-encoding"] = "chunked"
        return connected

    def state_stream_request_body(self, event: events.Event) -> CommandGenerator[None]:
        yield from self._within_limits(event, super().state_stream_request_body)

    def state_consume_request_body(self, event: events.Event) -> CommandGenerator[None]:
        yield from self._within_limits(event, super().state_consume_request_body)

    def state_stream_response_body(self, event: events.Event) -> CommandGenerator[None]:
        yield from self._within_limits(event, super().state_stream_response_body)

    def state_consume_response_body(self, event: events.Event) -> CommandGenerator[None]:
        yield from self._within_limits(event, super().state_consume_response_body)

    def _within_limits(
        self, event: events.Event, state: Callable[[events.Event], CommandGenerator[None]]
    ) -> CommandGenerator[None]:
        """Count a piece of a body; one that is too much goes nowhere, and neither side sees an end."""
        try:
            if isinstance(event, RequestData):
                upload(self.flow, len(event.data))
            elif isinstance(event, ResponseData):
                download(self.flow, len(event.data))
        except LimitExceeded as error:
            yield from self._over(error)
        else:
            yield from state(event)

    def _over(self, error: LimitExceeded) -> CommandGenerator[None]:
        http2 = self.context.client.alpn == b"h2"
        if not http2 and self.server_state == self.state_stream_response_body:
            raise error  # the connection is one exchange, and it is cut (`FailClosed`)
        answered = self.server_state == self.state_stream_response_body
        self.client_state = self.server_state = self.state_errored
        if self.flow.server_conn is self.context.server and self.context.server.connected:
            stop = RequestProtocolError(self.stream_id, str(error), ErrorCode.CANCEL)
            yield SendHttp(stop, self.context.server)
        cut = ResponseProtocolError(self.stream_id, str(error), ErrorCode.CANCEL)
        if answered or http2:
            yield SendHttp(cut, self.context.client)
        else:
            yield commands.SendData(self.context.client, render_answer(error.answer))
            yield SendHttp(cut, self.context.client)
        self.flow.live = False
        yield DropStream(self.stream_id)

    def _has_body(self) -> bool:
        return bool(self.flow.request.raw_content) or self.flow.request.raw_content is None

    def flow_done(self) -> CommandGenerator[None]:
        if self.flow.websocket is None:
            yield from super().flow_done()
            return
        self.child_layer = BoundedWebsocket(self.context, self.flow)
        self._handle_event = self.passthrough  # type: ignore[method-assign]
        yield from self.child_layer.handle_event(events.Start())
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)


class BoundedWebsocket(WebsocketLayer):
    """Relays whole WebSocket messages up to `MAX_WEBSOCKET_MESSAGE` bytes; nothing but frames passes.

    There is a hook for messages only: what control frames carry is shown to the flow's own check.
    """

    def start(self, event: events.Event) -> CommandGenerator[None]:
        yield from super().start(event)
        check = self.flow.metadata.get(CONTROL)
        if check is not None:
            for peer, from_client in ((self.client_ws, True), (self.server_ws, False)):
                peer.events = partial(_checked, peer.events, check, from_client)

    _handle_event = start

    def relay_messages(self, event: events.Event) -> CommandGenerator[None]:
        try:
            if isinstance(event, events.DataReceived):
                (upload if event.connection is self.context.client else download)(self.flow, len(event.data))
        except LimitExceeded:
            yield from self._end()
            return
        yield from super().relay_messages(event)
        for peer in (self.client_ws, self.server_ws):
            if sum(len(part) for part in peer.frame_buf) > MAX_WEBSOCKET_MESSAGE:
                yield from self._end()

    def _end(self) -> CommandGenerator[None]:
        """Without a close frame (RFC 6455 section 7.1.5: status 1006, abnormal)."""
        yield commands.CloseConnection(self.context.server)
        yield commands.CloseConnection(self.context.client)
        self._handle_event = self.done  # type: ignore[method-assign]


def _checked(
    frames: Callable[[], Iterator[wsproto.events.Event]], check: Callable[[bytes, bool], bytes], from_client: bool
) -> Iterator[wsproto.events.Event]:
    """The events of one WebSocket peer, control frames checked and, on their way back, masked."""
    for frame in frames():
        if isinstance(frame, (wsproto.events.Ping, wsproto.events.Pong)):
            yield replace(frame, payload=check(bytes(frame.payload), from_client))
        elif isinstance(frame, wsproto.events.CloseConnection) and frame.reason:
            yield replace(frame, reason=check(frame.reason.encode(), from_client).decode())
        else:
            yield frame
