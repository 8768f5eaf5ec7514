"""mitmproxy's protocol layers, narrowed to what may happen on an intercepted connection.

Rules kept here: an exception anywhere in the layers ends the connection (mitmproxy logs it and carries on in an unknown
state); a refused request is answered at once and what remains of its body is thrown away unread; nothing that a peer
sends is kept without a bound; a request whose body has no length is never sent so to an HTTP/1 upstream, which would
read the body as the next request; an upstream's connection that has ended is forgotten once nobody uses it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import wsproto.events
from mitmproxy.connection import Connection
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.commands import Command
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http import DropStream, HttpLayer, HTTPMode, HttpStream, SendHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._hooks import HttpRequestHeadersHook
from mitmproxy.proxy.layers.websocket import WebsocketLayer

from agent.enforce.egress.answer import render_answer
from agent.enforce.egress.engine_failures import OURS
from agent.enforce.egress.engine_http1 import BoundedHttp1Server, http1_client
from agent.enforce.egress.engine_http2 import BoundedHttp2Server, held, size_of
from agent.enforce.egress.engine_quota import download, upload
from agent.enforce.egress.engine_requests import CUT, Refusal
from agent.enforce.egress.engine_room import Room, Share
from agent.enforce.egress.engine_secrets import CONTROL, FAILED
from agent.enforce.egress.quota import LimitExceeded

MAX_WEBSOCKET_MESSAGE = 16 * 1024 * 1024
_TOO_LONG = Refusal(403, "message-too-long", f"a WebSocket message of more than {MAX_WEBSOCKET_MESSAGE} bytes")
_NO_ROOM = Refusal(403, "message-too-long", "the WebSocket messages that are not whole take too much memory")


def blame(error: BaseException) -> str:
    """What failed and where, without the exception's words: mitmproxy puts traffic into them."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {place}"


class FailClosed:
    """The outermost layer: `abort` is told what failed where the layers below raise, and nothing passes any more."""

    def __init__(self, inner: layer.Layer, abort: Callable[[str, Exception], None]) -> None:
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
            self._abort("the protocol layers", error)


class Closing(layer.Layer):
    """Closes the client's connection, whatever arrives."""

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.Start):
            yield commands.CloseConnection(self.context.client)


class DecidedHttp(HttpLayer):
    """HTTP on a connection whose destination is fixed (mitmproxy's transparent mode).

    `malformed(reason)` is told about a head that can't be read at all, for which there is no hook. `heard`: how often
    the client has sent something that came through its TLS. `room`: for WebSocket messages that are not whole.
    """

    def __init__(self, context: Context, malformed: Callable[[str], None], room: Room) -> None:
        super().__init__(context, HTTPMode.transparent)
        self._room = room
        self.heard = 0
        self._ended: list[Connection] = []
        if context.client.alpn == b"h2":
            self.connections[context.client] = BoundedHttp2Server(context.fork(), malformed, self.streams)
        else:
            self.connections[context.client] = BoundedHttp1Server(context.fork(), malformed)

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and event.connection is self.context.client:
            self.heard += 1
        yield from super()._handle_event(event)
        if isinstance(event, events.DataReceived) and event.connection is not self.context.client:
            peer = http1_client(self.connections.get(event.connection))
            if peer is not None and peer.head_too_long():  # mitmproxy would keep all of it
                yield commands.CloseConnection(event.connection)
        elif isinstance(event, events.ConnectionClosed):
            self._ended.append(event.connection)
        elif isinstance(event, events.OpenConnectionCompleted) and event.reply is not None:
            self._ended.append(event.command.connection)
        if self._ended:
            self._forget_ended()

    def _forget_ended(self) -> None:
        """mitmproxy keeps every upstream's connection with its TLS, and looks through all of them at each request."""
        used = {id(stream.context.server) for stream in self.streams.values()}
        still = []
        for connection in self._ended:
            if id(connection) in used or connection in self.waiting_for_establishment:
                still.append(connection)
            elif connection is not self.context.client:
                self.connections.pop(connection, None)
        self._ended = still

    def head_begun(self) -> bool:
        """Is part of a request's head here, and the rest not?"""
        peer = self.connections[self.context.client]
        return isinstance(peer, (BoundedHttp1Server, BoundedHttp2Server)) and peer.head_begun()

    def held_for_client(self) -> int:
        """Bytes of memory that wait for the client to open its HTTP/2 windows."""
        return held(self.connections[self.context.client])

    def held_for_upstreams(self) -> int:
        """Bytes of memory that the client's data take which wait: for an upstream's windows, for a stream, for its
        connection, for a decision, or for the answer to the request before."""
        client = self.connections[self.context.client]
        behind = len(client.buf) if isinstance(client, BoundedHttp1Server) else 0
        upstreams = (peer for connection, peer in self.connections.items() if connection is not self.context.client)
        queued = (event for stream in self.streams.values() for event in stream._paused_event_queue)
        return behind + sum(map(held, upstreams)) + size_of(queued)

    def make_stream(self, stream_id: int) -> CommandGenerator[None]:
        self.streams[stream_id] = DecidedStream(self.context.fork(), stream_id, self._room)
        yield from self.event_to_child(self.streams[stream_id], events.Start())


class DecidedStream(HttpStream):
    """One request. The hooks mark every request and response for streaming; a response set by them is a refusal."""

    def __init__(self, context: Context, stream_id: int, room: Room) -> None:
        super().__init__(context, stream_id)
        self._room = room

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
        self.child_layer = BoundedWebsocket(self.context, self.flow, self._room.share())
        self._handle_event = self.passthrough  # type: ignore[method-assign]
        yield from self.child_layer.handle_event(events.Start())
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)


class BoundedWebsocket(WebsocketLayer):
    """Relays whole WebSocket messages up to `MAX_WEBSOCKET_MESSAGE` bytes; nothing but frames passes.

    There is a hook for messages only: what control frames carry is shown to the flow's own check. A cut is told to the
    flow's `CUT`.
    """

    def __init__(self, context: Context, flow: HTTPFlow, share: Share) -> None:
        super().__init__(context, flow)
        self._share = share

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
        waiting = [sum(len(part) for part in peer.frame_buf) for peer in (self.client_ws, self.server_ws)]
        self._share.hold(sum(waiting))
        if self._share.enough(max(waiting), MAX_WEBSOCKET_MESSAGE):
            self.flow.metadata[CUT](_TOO_LONG if max(waiting) > MAX_WEBSOCKET_MESSAGE else _NO_ROOM)
            yield from self._end()
        elif isinstance(event, events.ConnectionClosed):
            self._share.hold(0)

    def _end(self) -> CommandGenerator[None]:
        """Without a close frame (RFC 6455 section 7.1.5: status 1006, abnormal)."""
        self._share.hold(0)
        yield commands.CloseConnection(self.context.server)
        yield commands.CloseConnection(self.context.client)
        self._handle_event = self.done  # type: ignore[method-assign]


def _checked(
    frames: Callable[[], Iterator[wsproto.events.Event]], check: Callable[[bytes, bool], bytes], from_client: bool
) -> Iterator[wsproto.events.Event]:
    """The events of one WebSocket peer, control frames checked and, on their way back, masked."""
    for frame in frames():
        if isinstance(frame, (wsproto.events.Ping, wsproto.events.Pong)):
            yield type(frame)(payload=check(bytes(frame.payload), from_client))
        elif isinstance(frame, wsproto.events.CloseConnection) and frame.reason:
            reason = check(frame.reason.encode(), from_client).decode()
            yield wsproto.events.CloseConnection(code=frame.code, reason=reason)
        else:
            yield frame
