"""The proxy's front: accepts, reads the first bytes, and takes each connection through its judgement.

Rules kept here: a connection is CONNECT or an absolute-form request, or it is answered 400 and closed; what is
malformed is refused before anything is looked up; nothing of a tunnel is sent upstream before the ClientHello was read
and agrees with what was decided; how long a head may take, how long it may be and how many connections there are is
bounded. An exception nobody expected ends the connection as a denial (`agent-fault`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agent.enforce.egress.answer import ESTABLISHED, Answer, render_answer
from agent.enforce.egress.head import HeadError, Request, parse_request
from agent.enforce.egress.hello import MAX_HELLO, HelloError, read_client_hello
from agent.enforce.egress.http1 import Client, Forwarder, Limits, read_head
from agent.enforce.egress.identity import FAULT, Admission, Doorkeeper, Refusal, parse_authority
from agent.enforce.egress.tunnel import Carrier
from agent.enforce.egress.wire import DialError, Poller, Wire, dial, prepare
from agent.policy.decision import Verdict
from agent.policy.hosts import HostError
from agent.policy.request import EgressRequest, Protocol

if TYPE_CHECKING:  # mitmproxy's side is imported only where the policy needs it
    from agent.enforce.egress.handover import Engine

log = logging.getLogger(__name__)

_BATCH: Final = 64
_PAUSE_SECONDS: Final = 0.1
_LINGER_SECONDS: Final = 2.0
_LINGER_BYTES: Final = 1024 * 1024
_ACCESS_DENIED: Final = b"\x15\x03\x01\x00\x02\x02\x31"  # a fatal TLS alert, access_denied (RFC 8446 6)
_TRANSIENT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_BUSY: Final = render_answer(Answer(503, "too many connections are open"))


@dataclass(frozen=True, slots=True)
class Ways:
    """The ways a connection can go on."""

    carrier: Carrier
    forwarder: Forwarder
    engine: Engine | None


class Front:
    """Serves the proxy's listeners. Must be made inside the running loop."""

    def __init__(self, poller: Poller, door: Doorkeeper, ways: Ways, limits: Limits) -> None:
        self._poller = poller
        self._door = door
        self._ways = ways
        self._limits = limits
        self._listeners: list[socket.socket] = []
        self._conversations: set[asyncio.Task[None]] = set()

    def listen(self, listener: socket.socket) -> None:
        """Accept from a bound, listening socket."""
        listener.setblocking(False)
        self._listeners.append(listener)
        self._poller.loop.add_reader(listener.fileno(), self._accept, listener)

    def stop(self) -> None:
        """Accept nothing more, and end what is being judged."""
        for listener in self._listeners:
            self._poller.loop.remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()
        for conversation in list(self._conversations):
            conversation.cancel()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _TRANSIENT:
                    self._pause(listener)
                    return
                continue  # that connection went away (accept(2), ECONNABORTED and network errors)
            self._begin(sock, str(address[0]) if isinstance(address, tuple) else None)

    def _pause(self, listener: socket.socket) -> None:
        self._poller.loop.remove_reader(listener.fileno())
        self._poller.loop.call_later(_PAUSE_SECONDS, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._poller.loop.add_reader(listener.fileno(), self._accept, listener)

    def _begin(self, sock: socket.socket, source_ip: str | None) -> None:
        sock.setblocking(False)
        if len(self._conversations) + self._ways.carrier.open >= self._limits.connections:
            with contextlib.suppress(OSError):
                sock.send(_BUSY)
            sock.close()
            return
        prepare(sock)
        client = Client(Wire(self._poller, sock), source_ip)
        conversation = asyncio.Task(self._serve(client), loop=self._poller.loop, eager_start=True)
        if not conversation.done():
            self._conversations.add(conversation)
            conversation.add_done_callback(self._conversations.discard)

    async def _serve(self, client: Client) -> None:
        """The fail-closed wrapper of a connection."""
        handed_over = False
        try:
            handed_over = await self._converse(client)
        except Refusal as refusal:
            await self._answer(client, refusal.answer)
        except (HeadError, HostError) as error:
            await self._answer(client, self._door.malformed(client.source_ip, str(error)))
        except TimeoutError:
            await self._answer(client, Answer(408, "the request took too long"))
        except OSError:
            pass  # the client went away
        except Exception:
            log.exception("a connection could not be judged; denied")
            self._door.record_fault(client.source_ip)
            await self._answer(client, FAULT)
        finally:
            if not handed_over:
                client.wire.close()

    async def _converse(self, client: Client) -> bool:
        """True where the socket is somebody else's now."""
        client.wire.limit(self._limits.head)
        head = await read_head(client.wire, client.buffered)
        if head is None:
            return False
        request = client.request = parse_request(head)
        if request.method == "CONNECT":
            return await self._connect(client, request)
        await self._ways.forwarder.serve(client, request)
        return False

    async def _connect(self, client: Client, request: Request) -> bool:
        host, port = parse_authority(request.target)
        if request.body:
            raise HeadError("a CONNECT request has no body")
        asked = self._door.request(host, port, client.source_ip, None)
        # Host may leave out the port here: many clients do (RFC 9110 7.2 wants it, and says what it must name)
        self._door.check_host_header(asked, request.host, port)
        admission = await self._door.admit(asked)
        if admission.decision.inspect:
            return await self._hand_over(client, admission)
        upstream = await self._dial(admission.request)
        try:
            await self._establish(client)
            if await self._agrees(client, admission):
                self._carry(client, upstream)
                return True
        except BaseException:
            upstream.close()
            raise
        upstream.close()
        return False

    async def _dial(self, request: EgressRequest) -> Wire:
        try:
            return await dial(self._poller, request.addresses, request.port, self._limits.dial)
        except DialError as error:
            status = 504 if error.timed_out else 502
            reason = f"{request.host}:{request.port} cannot be reached: {error}"
            raise Refusal(Answer(status, reason, request_id=request.origin.request_id or "")) from error

    async def _establish(self, client: Client) -> None:
        client.wire.limit(self._limits.head)
        client.started = True
        await client.wire.send(ESTABLISHED)

    async def _agrees(self, client: Client, admission: Admission) -> bool:
        """Read the ClientHello and compare. False where the client ended first. Raises Refusal, OSError."""
        if admission.request.protocol is not Protocol.TLS or admission.decision.verdict is not Verdict.ALLOW:
            return True  # raw by rule, or let through by observe mode only
        try:
            while (hello := read_client_hello(bytes(client.buffered))) is None:
                if len(client.buffered) > MAX_HELLO:
                    raise HelloError("tls-malformed", "the TLS ClientHello is too long")
                data = await client.wire.recv()
                if not data:
                    return False
                client.buffered += data
            self._door.check_hello(admission.request, hello)
        except HelloError as error:
            self._door.refuse_hello(admission.request, error)
        return True

    def _carry(self, client: Client, upstream: Wire) -> None:
        self._ways.carrier.traffic.connections += 1
        self._ways.carrier.carry(client.wire.sock, upstream.sock, bytes(client.buffered))

    async def _hand_over(self, client: Client, admission: Admission) -> bool:
        """Give the connection to the interception engine, its ClientHello read and agreed."""
        engine = self._ways.engine
        if engine is None:
            raise RuntimeError("a rule needs interception and there is no engine")
        await self._establish(client)
        if not await self._agrees(client, admission):
            return False
        self._ways.carrier.traffic.connections += 1
        request = admission.request
        engine.hand_over(
            client.wire.detach(),
            bytes(client.buffered),
            host=request.host,
            port=request.port,
            addresses=request.addresses,
            kind="connect",
            request_id=request.origin.request_id or "",
            source_ip=client.source_ip,
        )
        return True

    async def _answer(self, client: Client, answer: Answer) -> None:
        """Tell the client, where an answer can still be told, and give it time to read."""
        request = client.request
        if client.started:
            if request is not None and request.method == "CONNECT" and client.buffered[:1] == b"\x16":
                with contextlib.suppress(OSError):
                    await client.wire.send(_ACCESS_DENIED)
            return
        as_json, bodiless = (False, False) if request is None else (request.wants_json, request.method == "HEAD")
        client.wire.limit(_LINGER_SECONDS)
        with contextlib.suppress(OSError):
            await client.wire.send(render_answer(answer, as_json=as_json, bodiless=bodiless))
            if client.buffered or (request is not None and request.body) or not client.wire.quiet():
                await self._linger(client.wire)

    async def _linger(self, wire: Wire) -> None:
        """Closing with unread bytes makes the kernel send a reset, which can take the answer away from its reader."""
        wire.sock.shutdown(socket.SHUT_WR)
        left = _LINGER_BYTES
        while left > 0 and (data := await wire.recv()):
            left -= len(data)
