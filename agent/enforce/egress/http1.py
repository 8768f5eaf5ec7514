"""Plain HTTP: a strict forwarder, one request after the other, each one decided.

Requests come in absolute-form (asked of a proxy) or in origin-form (on a connection that was meant for the server:
captured, or through SOCKS). Then the Host header says who is meant, for each request anew, and the port is the
connection's.

Rules kept here: a request is parsed whole and written anew, so that the upstream reads what was decided and nothing
else; every request is decided with its method and path, on a kept connection too; hop-by-hop fields end here and no
connection is ever upgraded; bodies stream through; what breaks in the middle is reset on both sides and never made to
look complete. The Host header must be the authority of the request's URL.

Sources: RFC 9110 (7.2 Host, 7.6.1 Connection, 7.8 Upgrade, 10.1.1 Expect), RFC 9112 (3.2 Host, 3.2.1 origin-form,
3.2.2 absolute-form, 9.3).
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final

from agent.enforce.egress.answer import Answer
from agent.enforce.egress.answering import leave
from agent.enforce.egress.bodies import chunk, pieces
from agent.enforce.egress.client import Client, read_head
from agent.enforce.egress.head import (
    CHUNKED,
    UNTIL_CLOSE,
    HeadError,
    Request,
    Response,
    end_to_end,
    parse_request,
    parse_response,
    render,
)
from agent.enforce.egress.http_target import Asked, Target, refuse_tricks
from agent.enforce.egress.identity import Admission, Doorkeeper, Refusal
from agent.enforce.egress.leaks import Outgoing, refuse_leaks, search_upload
from agent.enforce.egress.limits import Limits
from agent.enforce.egress.quota import LimitExceeded, Ticket
from agent.enforce.egress.tunnel import Traffic
from agent.enforce.egress.wire import DialError, Poller, Wire, dial
from agent.policy.hosts import host_and_port
from agent.policy.request import EgressRequest, Protocol, Stage
from agent.policy.terms import terms
from agent.values import dataclass, field

if TYPE_CHECKING:
    from agent.enforce.egress.scan import Upload

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_MOST_INTERIM: Final = 16


@dataclass(slots=True)
class _Upstream:
    wire: Wire
    admission: Admission
    buffered: bytearray = field(default_factory=bytearray)
    used: bool = False
    upload: Upload | None = None

    @property
    def ticket(self) -> Ticket:
        return self.admission.ticket

    def close(self) -> None:
        self.wire.close()
        self.ticket.close()

    def serves(self, target: Target) -> bool:
        return (target.host, target.port) == (self.admission.request.host, self.admission.request.port)


class Forwarder:
    """Serves a client connection until it is done."""

    def __init__(self, poller: Poller, door: Doorkeeper, traffic: Traffic, limits: Limits) -> None:
        self._poller = poller
        self._door = door
        self._traffic = traffic
        self._limits = limits

    async def serve(self, client: Client, request: Request) -> None:
        """`request` is the first one. Raises Refusal, HeadError, HostError, OSError; then `client.started` tells."""
        upstream: _Upstream | None = None
        try:
            while True:
                client.request, client.started = request, False
                asked = Asked.of(request, client.place)
                upstream = await self._upstream_for(client, asked, upstream)
                exchange = self._exchange(client, asked, upstream)
                try:
                    persistent = await exchange.run()
                except _Stale:
                    upstream.wire.close()
                    upstream = await self._connect(client, upstream.admission)
                    exchange = self._exchange(client, asked, upstream)
                    persistent = await exchange.run()
                if not persistent:
                    upstream.close()
                    await leave(client)
                    return
                client.started = False
                client.wire.limit(self._limits.keep)
                head = await read_head(client.wire, client.buffered)
                if head is None:
                    return
                request = parse_request(head)
        finally:
            if upstream is not None:
                upstream.close()

    def _exchange(self, client: Client, asked: Asked, upstream: _Upstream) -> _Exchange:
        outgoing = Outgoing(self._door, upstream.admission.request, asked.request, upstream.upload)
        return _Exchange(client, asked, upstream, outgoing, traffic=self._traffic, limits=self._limits)

    async def _upstream_for(self, client: Client, what: Asked, last: _Upstream | None) -> _Upstream:
        """The connection for this request, decided for it: the last one where it goes to the same place."""
        request, target = what.request, what.target
        if request.host is None and request.minor == 1:
            raise HeadError("the Host header is missing")
        asked = self._door.request(target.host, target.port, client.origin, Protocol.HTTP)
        self._door.check_host_header(asked, request.host, 80 if client.place is None else client.place.port)
        self._door.check_place(asked, client.place)
        if last is not None and last.serves(target) and not last.buffered and last.wire.quiet():
            admission = last.admission
        else:
            if last is not None:
                last.close()
            last, admission = None, await self._door.admit(asked)
        try:
            upload = await self._judge(asked, what, admission)
            upstream = last if last is not None else await self._connect(client, admission)
            upstream.upload = upload
            return upstream
        except BaseException:
            admission.ticket.close()
            raise

    async def _judge(self, asked: EgressRequest, what: Asked, admission: Admission) -> Upload | None:
        """This one request; the search of its body, where a rule wants one. Raises Refusal."""
        request = what.request
        question = EgressRequest(
            host=asked.host,
            port=asked.port,
            today=asked.today,
            origin=asked.origin,
            protocol=asked.protocol,
            addresses=admission.request.addresses,
            stage=Stage.REQUEST,
            method=request.method,
            path=what.target.path,
            query=what.target.query[1:],
            headers=tuple(what.fields),
        )
        refuse_leaks(self._door, question, request)
        refuse_tricks(self._door, question, request, inspected=admission.decision.inspect)
        decision = await self._door.check(question)
        self._door.bind(admission.ticket, question, decision, request.body)
        return search_upload(self._door, question, request) if terms(decision).scan else None

    async def _connect(self, client: Client, admission: Admission) -> _Upstream:
        request = admission.request
        try:
            wire = await dial(self._poller, request.addresses, request.port, self._limits.dial)
        except DialError as error:
            status = 504 if error.timed_out else 502
            reason = f"{host_and_port(request.host, request.port)} cannot be reached: {error}"
            raise Refusal(Answer(status, reason, request_id=request.origin.request_id or "")) from error
        try:
            admission.ticket.on_cut(partial(_cut, client.wire, wire))
        except LimitExceeded:
            wire.close()
            raise
        self._traffic.connections += 1
        return _Upstream(wire, admission)


def _cut(*wires: Wire) -> None:
    for wire in wires:
        wire.close(reset=True)


class _Stale(Exception):
    """A kept connection ended before it answered a request that can be sent again."""


class _Unwanted(OSError):
    """The upstream takes no more of a request's body."""


class _Exchange:
    """One request and its response."""

    def __init__(
        self,
        client: Client,
        asked: Asked,
        upstream: _Upstream,
        outgoing: Outgoing,
        *,
        traffic: Traffic,
        limits: Limits,
    ) -> None:
        self._client = client
        self._asked = asked
        self._request = asked.request
        self._outgoing = outgoing
        self._up = upstream
        self._traffic = traffic
        self._limits = limits

    async def run(self) -> bool:
        """True where the client connection goes on."""
        client, upstream = self._client, self._up
        stale = upstream.used and self._request.method in _SAFE and not self._request.body
        upstream.used = True
        client.wire.limit(self._limits.idle)
        upstream.wire.limit(self._limits.idle)
        try:
            await self._send_up(self._request_head())
            response = None
            if not self._request.body:
                response = await self._response_head(stale=stale)
        except LimitExceeded:
            raise
        except OSError as error:
            if stale:
                raise _Stale from error
            raise Refusal(self._failed(error)) from error
        upload = asyncio.get_running_loop().create_task(self._upload()) if self._request.body else None
        try:
            return await self._answer(response, upload)
        except BaseException:
            if client.started:
                client.wire.close(reset=True)  # an answer was cut: it must not look complete
            raise
        finally:
            if upload is not None:
                upload.cancel()
                with contextlib.suppress(asyncio.CancelledError, HeadError, OSError, Refusal):
                    await upload

    async def _answer(self, response: Response | None, upload: asyncio.Task[None] | None) -> bool:
        try:
            if response is None:
                response = await self._response_head(stale=False)
            await self._relay(response)
        except LimitExceeded:
            raise
        except OSError as error:
            if upload is not None and upload.done() and not isinstance(upload.exception(), _Unwanted | None):
                await upload  # what the client sent was the cause
            if self._client.started:
                raise
            raise Refusal(self._failed(error)) from error
        framed = response.body(self._request.method) != UNTIL_CLOSE
        persistent = framed and self._request.persistent and response.persistent
        if upload is not None and persistent:  # an answer may come before the request's body has gone up
            try:
                await upload
            except OSError:
                return False
        return persistent

    def _failed(self, error: OSError) -> Answer:
        request = self._up.admission.request
        timed_out = isinstance(error, TimeoutError)
        reason = f"{host_and_port(request.host, request.port)} did not answer: {error.strerror or error}"
        return Answer(504 if timed_out else 502, reason, request_id=request.origin.request_id or "")

    def _request_head(self) -> bytes:
        target, request = self._asked.target, self._request
        fields = [("host", host_and_port(target.host, target.port).removesuffix(":80"))]
        fields += [field for field in self._asked.fields if field[0] != "host"]
        if request.body == CHUNKED:
            fields.append(("transfer-encoding", "chunked"))
        return render(f"{request.method} {target.path}{target.query} HTTP/1.1", fields)

    async def _send_up(self, data: bytes) -> None:
        self._up.ticket.up.take(len(data))
        await self._up.wire.send(data)
        self._traffic.up += len(data)

    def _received(self, count: int) -> None:
        self._traffic.down += count
        self._up.ticket.down.take(count)

    async def _upload(self) -> None:
        """The request's body. What breaks it breaks the upstream connection too; an upstream that takes no more of it
        may have answered."""
        try:
            async for piece in pieces(self._client.wire, self._client.buffered, self._request.body):
                self._up.ticket.add_body(len(piece))
                await self._send_piece(self._outgoing.feed(piece))
                self._touch()
            await self._send_piece(self._outgoing.feed(b"", last=True))
            if self._request.body == CHUNKED:
                await self._send_body(b"0\r\n\r\n")
        except _Unwanted:
            raise
        except (HeadError, OSError, Refusal):
            self._up.wire.close(reset=True)
            raise

    async def _send_piece(self, piece: bytes) -> None:
        if piece:
            await self._send_body(chunk(piece) if self._request.body == CHUNKED else piece)

    async def _send_body(self, data: bytes) -> None:
        try:
            await self._send_up(data)
        except LimitExceeded:
            raise
        except OSError as error:
            raise _Unwanted(*error.args) from error

    async def _response_head(self, *, stale: bool) -> Response:
        """The final response's head; interim ones are passed on. Raises HeadError as a Refusal."""
        for _ in range(_MOST_INTERIM):
            head = await self._read_response_head(stale=stale)
            try:
                response = parse_response(head)
            except HeadError as error:
                raise Refusal(self._malformed(str(error))) from error
            if response.status >= 200:
                return response
            if response.status == 101:
                break
            if self._request.minor == 1:
                start = f"HTTP/1.1 {response.status} {response.reason}"
                await self._client.wire.send(render(start, end_to_end(response.fields)))
        raise Refusal(self._malformed("it upgrades the connection or never answers"))

    async def _read_response_head(self, *, stale: bool) -> bytes:
        buffered = self._up.buffered
        while (end := buffered.find(b"\r\n\r\n")) < 0:
            if len(buffered) > 256 * 1024:
                raise Refusal(self._malformed("its head is too long"))
            data = await self._up.wire.recv()
            self._received(len(data))
            if not data:
                if stale and not buffered:
                    raise _Stale
                raise ConnectionResetError("the connection ended before an answer")
            buffered += data
        head = bytes(buffered[: end + 4])
        del buffered[: end + 4]
        return head

    def _malformed(self, what: str) -> Answer:
        request = self._up.admission.request
        return Answer(
            502, f"the answer of {request.host} is malformed: {what}", request_id=request.origin.request_id or ""
        )

    async def _relay(self, response: Response) -> None:
        try:
            length = response.body(self._request.method)
        except HeadError as error:
            raise Refusal(self._malformed(str(error))) from error
        fields = end_to_end(response.fields)
        chunked = length in (CHUNKED, UNTIL_CLOSE) and self._request.minor == 1
        if chunked:
            fields.append(("transfer-encoding", "chunked"))
        goes_on = self._request.persistent and response.persistent and (chunked or length >= 0)
        fields.append(("connection", "keep-alive" if goes_on else "close"))
        wire = self._client.wire
        self._client.started = True
        head, buffered = render(f"HTTP/1.1 {response.status} {response.reason}", fields), self._up.buffered
        if 0 < length <= len(buffered):  # all of it is here: one write, one packet
            body = bytes(buffered[:length])
            del buffered[:length]
            await wire.send(head + body)
            return
        await wire.send(head)
        async for piece in pieces(self._up.wire, buffered, length, self._received):
            await wire.send(chunk(piece) if chunked else piece)
            self._touch()
        if chunked:
            await wire.send(b"0\r\n\r\n")

    def _touch(self) -> None:
        self._client.wire.limit(self._limits.idle)
        self._up.wire.limit(self._limits.idle)
