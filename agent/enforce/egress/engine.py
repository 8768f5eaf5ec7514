"""The interception engine: mitmproxy's protocol stack around one decided connection.

Rules kept here: mitmproxy is embedded below its addon manager, because that logs an exception in a hook and lets the
traffic flow on; here every hook goes through one dispatch table, an unknown hook or an exception ends the connection,
and the command that waited for the hook never continues. Every request, each HTTP/2 stream included, is decided when
its head is complete and before anything is sent. Only the vetted addresses can be dialled, whatever mitmproxy asks for:
the loop itself refuses the rest. The upstream's address is never rewritten (pooled connections would stop matching).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from mitmproxy import http
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events, layer, mode_specs, server_hooks
from mitmproxy.proxy.layers import ClientTLSLayer, ServerTLSLayer, modes
from mitmproxy.proxy.server import LiveConnectionHandler
from mitmproxy.tls import TlsData

from agent.enforce.egress.engine_decisions import Decisions
from agent.enforce.egress.engine_failures import NO_ANSWER
from agent.enforce.egress.engine_layers import Closing, DecidedHttp, FailClosed, blame
from agent.enforce.egress.engine_patience import HeadClock, Rest
from agent.enforce.egress.engine_requests import Identity, Refusal, examine_sni
from agent.enforce.egress.engine_room import Room
from agent.enforce.egress.engine_secrets import CONTROL
from agent.enforce.egress.engine_tls import EngineTls
from agent.enforce.egress.limits import Limits
from agent.policy.addresses import canonical_address

log = logging.getLogger(__name__)

DIAL_SECONDS = 15.0
MAX_UPSTREAM = 32
LOOK_SECONDS = 1.0
"""How often somebody who waits for others to hold less looks whether they do."""
TLS_RECORD_HEAD = 3

_IDENTITY: ContextVar[Identity] = ContextVar("identity of the connection that this task serves")

_NOTHING_TO_DECIDE = frozenset(
    {
        "client_connected",
        "client_disconnected",
        "server_connect_error",
        "server_disconnected",
        "tls_clienthello",
        "tls_established_client",
        "tls_established_server",
        "tls_failed_client",
        "tls_failed_server",
        "error",
        "websocket_start",
        "websocket_end",
    }
)


class EngineFault(Exception):
    """Something that must not happen on an intercepted connection; it ends the connection."""


@contextmanager
def serving(identity: Identity) -> Iterator[None]:
    """Everything inside, and every task started inside, may dial `identity` and nothing else."""
    token = _IDENTITY.set(identity)
    try:
        yield
    finally:
        _IDENTITY.reset(token)


class VettedLoop(asyncio.SelectorEventLoop):
    """An event loop that resolves no name by itself and connects to vetted addresses only."""

    async def getaddrinfo(self, host: Any, port: Any, *, family: int = 0, type: int = 0, **_: Any) -> list[Any]:
        """The vetted addresses of the connection that the calling task serves. Raises gaierror for any other name."""
        identity = _IDENTITY.get(None)
        if identity is None or (host, port) != (identity.host, identity.port):
            raise socket.gaierror(socket.EAI_FAIL, "not the name that this connection was vetted for")
        return [_address_info(address, identity.port) for address in identity.addresses]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect, or raise PermissionError where the address was not vetted, TimeoutError where nobody answers."""
        identity = _IDENTITY.get(None)
        wanted = canonical_address(str(address[0]))
        if identity is None or wanted not in identity.addresses or address[1] != identity.port:
            raise PermissionError(f"{address[0]}:{address[1]} was not vetted for this connection")
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                await super().sock_connect(sock, address)
        except TimeoutError as error:
            raise TimeoutError(f"{NO_ANSWER} {address[0]} within {DIAL_SECONDS:.0f} s") from error


class EngineConnection(LiveConnectionHandler):
    """One intercepted client connection. `meter(up, down)` is told about bytes from the client and from upstreams.
    `limits`: the session's. `idle`: the rule's seconds, None for the session's. `room`: shared with other connections.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        options: Options,
        identity: Identity,
        decisions: Decisions,
        engine_tls: EngineTls,
        meter: Callable[[int, int], None],
        limits: Limits,
        idle: int | None = None,
        room: Room | None = None,
    ) -> None:
        super().__init__(reader, writer, options, mode_specs.ProxyMode.parse("regular"))
        if not isinstance(self.client.peername, tuple):  # a Unix socket has no peer name
            self.client.peername = self.client.sockname = (identity.source_ip or "", 0)
        self._identity = identity
        self._decisions = decisions
        self._tls = engine_tls
        self._meter = meter
        self._limits = limits
        self._idle = idle
        self._room = room or Room()
        self._share = self._room.share()
        self._opaque = True  # the client's last bytes are part of a TLS record, or of its handshake
        self.timeout_watchdog = Rest(0, self.on_timeout)
        self.follow_limits()
        self._head = HeadClock(limits.head, lambda: self.abort("a request's head, or the TLS before it, took too long"))
        self._http: DecidedHttp | None = None
        self._refused = False
        self._moved = asyncio.Event()
        self.max_conns.default_factory = lambda: asyncio.Semaphore(MAX_UPSTREAM)
        context = self.layer.context
        context.server.address = (identity.host, identity.port)
        context.server.sni = identity.host
        self.layer = FailClosed(modes.TransparentProxy(context), self._failed)  # type: ignore[assignment]

    async def handle_hook(self, hook: commands.StartHook) -> None:
        with self.timeout_watchdog.disarm():
            try:
                await self._dispatch(hook)
            except Exception as error:
                # the engine's fail-closed place: whoever waits for this hook waits for ever
                self._failed(f"hook {hook.name}", error)
                raise EngineFault(f"hook {hook.name} failed") from None

    async def server_event(self, event: events.Event) -> None:
        heard, from_client = self._heard, False
        if isinstance(event, events.DataReceived):
            from_client = event.connection is self.client
            self._meter(len(event.data) if from_client else 0, 0 if from_client else len(event.data))
        await super().server_event(event)
        if from_client or self._heard != heard:  # what came first of all is read when its layer is there
            self._opaque = self._heard == heard
        self._head.heard(incomplete=self._opaque or self._http is None or self._http.head_begun())
        if self._share.held:
            self._count()
        self._moved.set()

    @property
    def _heard(self) -> int:
        return 0 if self._http is None else self._http.heard

    async def drain_writers(self) -> None:
        """Called by each reader after what it read was served: it goes on when what is held back is little enough.

        mitmproxy waits for the sockets only, and takes whatever HTTP/2 windows or a slow dial hold back into memory.
        """
        client = self.transports.get(self.client)
        from_client = client is not None and asyncio.current_task() is client.handler
        with self._head.paused() if from_client else nullcontext():
            await super().drain_writers()  # type: ignore[no-untyped-call]
            await self._until_little_is_held(from_client=from_client)

    async def _until_little_is_held(self, *, from_client: bool) -> None:
        while True:
            up, down = self._count()
            if not self._share.enough(up if from_client else down):
                return
            self._moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._moved.wait()

    def _count(self) -> tuple[int, int]:
        """Bytes that wait for upstreams and for the client."""
        if self._http is None:
            return 0, 0
        up, down = self._http.held_for_upstreams(), self._http.held_for_client()
        self._share.hold(up + down)
        return up, down

    async def handle_client(self) -> None:
        try:
            await super().handle_client()
        finally:
            self._head.stop()
            self._share.hold(0)

    def follow_limits(self) -> None:
        """The session's limits may have changed."""
        rest = self._limits.idle if self._idle is None else min(self._idle, self._limits.idle)
        self.timeout_watchdog.timeout = rest  # type: ignore[assignment]  # declared as whole seconds, used as any

    def redecide(self) -> None:
        """The policy has changed: where a request that goes on no longer holds, the connection is cut."""
        self.follow_limits()
        if not self._decisions.redecide():
            self.abort("a request of it is no longer allowed")

    def abort(self, reason: str) -> None:
        """Cut every connection of this client at once."""
        log.error("intercepted connection %s cut: %s", self._identity.request_id, reason)
        for io in list(self.transports.values()):
            if isinstance(io.writer, asyncio.StreamWriter):
                io.writer.transport.abort()
            if io.handler is not None:
                io.handler.cancel("aborted")

    def _failed(self, what: str, error: Exception) -> None:
        self.abort(f"{what} failed: {blame(error)}")
        self._decisions.failed(what, error)

    async def _dispatch(self, hook: commands.StartHook) -> None:
        (data,) = hook.args()
        match hook.name:
            case "requestheaders":
                await self._decisions.request(data)
            case "responseheaders":
                self._decisions.response(data)
            case "request":
                self._decisions.complete(data)
            case "response":
                self._decisions.trailers(data)
            case "websocket_message":
                _pass_message(data)
            case "next_layer":
                self._next_layer(data)
            case "tls_start_client":
                self._start_client_tls(data)
            case "tls_start_server":
                self._tls.tls_start_server(data)
            case "server_connect":
                self._before_dial(data)
            case "server_connected":
                self._after_dial(data)
            case name if name in _NOTHING_TO_DECIDE:
                pass
            case name:
                raise EngineFault(f"hook {name} has no place on an intercepted connection")

    def _next_layer(self, asked: layer.NextLayer) -> None:
        """TLS once and HTTP inside it (or HTTP alone); never TLS in TLS, DNS, TCP or a guess."""
        context = asked.context
        if self._identity.kind == "absolute" or any(isinstance(x, ClientTLSLayer) for x in context.layers):
            asked.layer = self._http = DecidedHttp(context, self._malformed, self._room)
            return
        start: bytes = asked.data_client()  # type: ignore[no-untyped-call]
        if len(start) < TLS_RECORD_HEAD:
            return
        if not starts_like_tls_record(start):
            self._decisions.refuse_connection(
                Refusal(400, "tls-required", "the tunnel carries something that is not TLS")
            )
            asked.layer = Closing(context)
            return
        asked.layer = ServerTLSLayer(context)
        asked.layer.child_layer = ClientTLSLayer(context)

    def _malformed(self, reason: str) -> None:
        """Ends the connection; what comes before it has ended is no refusal of its own."""
        if self._refused:
            return
        self._refused = True
        self._decisions.refuse_connection(Refusal(400, "malformed-request", reason))

    def _start_client_tls(self, start: TlsData) -> None:
        """Without an `ssl_conn` mitmproxy closes the connection: nothing has been dialled at this point."""
        refusal = examine_sni(self._identity, self.client.sni)
        if refusal is not None and not self._decisions.observing:  # the front has recorded it and let it pass
            self._decisions.refuse_connection(refusal, sni=self.client.sni)
            return
        self._tls.tls_start_client(start)

    def _before_dial(self, data: server_hooks.ServerConnectionHookData) -> None:
        if data.server.address != (self._identity.host, self._identity.port) or data.server.via is not None:
            raise EngineFault(f"{data.server.address} is not what this connection was vetted for")

    def _after_dial(self, data: server_hooks.ServerConnectionHookData) -> None:
        peer = data.server.peername
        if peer is None or canonical_address(peer[0]) not in self._identity.addresses:
            raise EngineFault(f"connected to {peer}, which was not vetted")


def _pass_message(flow: http.HTTPFlow) -> None:
    """Search the message, and forget it: mitmproxy keeps every one for its user interface."""
    if flow.websocket is None:
        return
    check = flow.metadata.get(CONTROL)
    if check is not None:
        message = flow.websocket.messages[-1]
        message.content = check(message.content, message.from_client)
    flow.websocket.messages.clear()


def _address_info(address: str, port: int) -> tuple[int, int, int, str, tuple[Any, ...]]:
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
