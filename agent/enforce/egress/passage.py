"""How a connection goes on, whichever way it came in: admitted, dialled, its ClientHello agreed, then tunnelled or
handed to the interception engine.

Rules kept here: nothing of a tunnel is sent upstream before the ClientHello was read and agrees with what was decided;
the client hears that it is through only once it is; a connection that a rule wants looked into is never tunnelled, and
one that a rule forbids to look into is never handed over: where rules ask for both it is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.enforce.egress.answer import Answer
from agent.enforce.egress.client import Client, Speech
from agent.enforce.egress.hello import MAX_HELLO, ClientHello, HelloError, read_client_hello
from agent.enforce.egress.http1 import Forwarder
from agent.enforce.egress.identity import Admission, Doorkeeper, Refusal, speaks_tls
from agent.enforce.egress.limits import Limits
from agent.enforce.egress.quota import Ticket
from agent.enforce.egress.tunnel import Carrier
from agent.enforce.egress.wire import DialError, Poller, Wire, dial
from agent.policy.hosts import host_and_port
from agent.policy.request import EgressRequest
from agent.policy.terms import terms
from agent.values import dataclass, replace

if TYPE_CHECKING:  # mitmproxy's side is imported only where the policy needs it
    from agent.enforce.egress.handover import Engine


@dataclass(frozen=True, slots=True)
class Ways:
    """The ways a connection can go on."""

    carrier: Carrier
    forwarder: Forwarder
    engine: Engine | None


class Passage:
    """Takes judged connections to where they go. True from its methods: the socket is somebody else's now."""

    def __init__(self, poller: Poller, door: Doorkeeper, ways: Ways, limits: Limits) -> None:
        self._poller = poller
        self._door = door
        self._ways = ways
        self._limits = limits

    async def enter(self, client: Client, asked: EgressRequest, established: bytes) -> bool:
        """Admit and go on. `established` is what the client hears then. Raises Refusal, OSError."""
        return await self.go(client, await self._door.admit(asked), established)

    async def go(self, client: Client, admission: Admission, established: bytes, *, agreed: bool = False) -> bool:
        """Go on with what was admitted. `agreed`: its ClientHello was there already, and was compared as it was
        admitted. Raises Refusal, OSError (LimitExceeded)."""
        going = False
        try:
            going = await self._go(client, admission, established, agreed=agreed)
        finally:
            if not going:
                admission.ticket.close()
        return going

    async def _go(self, client: Client, admission: Admission, established: bytes, *, agreed: bool) -> bool:
        if self._looks_inside(admission):
            await self._establish(client, established)
            return (agreed or await self._agrees(client, admission)) and self._hand_over(client, admission)
        upstream = await self._dial(admission.request)
        try:
            await self._establish(client, established)
            if agreed or await self._agrees(client, admission):
                self._carry(client, upstream, admission.ticket)
                return True
        except BaseException:
            upstream.close()
            raise
        upstream.close()
        return False

    async def _agrees(self, client: Client, admission: Admission) -> bool:
        """Read the ClientHello and compare. False where the client ended first. Raises Refusal, OSError."""
        if not speaks_tls(admission.request, admission.decision):
            return True
        try:
            hello = await read_hello(client)
        except HelloError as error:
            self._door.refuse_hello(admission.request, error)
            return True
        if hello is not None:
            self._door.check_hello(admission.request, hello)
        return hello is not None

    def _looks_inside(self, admission: Admission) -> bool:
        if not admission.decision.inspect:
            return False
        if not terms(admission.decision).passthrough:
            return True
        self._door.refuse(
            admission.request,
            "passthrough-conflict",
            "one rule of the policy wants this host's requests looked into, another forbids to look into its TLS",
            "take `tls: passthrough` or the method, path, header, scan and credential rules off this host",
        )
        return False

    async def _dial(self, request: EgressRequest) -> Wire:
        try:
            return await dial(self._poller, request.addresses, request.port, self._limits.dial)
        except DialError as error:
            raise Refusal(unreachable(request, error)) from error

    async def _establish(self, client: Client, established: bytes) -> None:
        client.wire.limit(self._limits.head)
        client.speech = Speech.BYTES
        await client.wire.send(established)

    def _carry(self, client: Client, upstream: Wire, ticket: Ticket) -> None:
        self._ways.carrier.carry(client.wire.sock, upstream.sock, bytes(client.buffered), ticket)
        self._ways.carrier.traffic.connections += 1

    def _hand_over(self, client: Client, admission: Admission) -> bool:
        """Give the connection to the interception engine, its ClientHello read and agreed."""
        engine = self._ways.engine
        if engine is None:
            raise RuntimeError("a rule needs interception and there is no engine")
        admission.ticket.still_good()
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
            source_ip=request.origin.source_ip,
            ticket=admission.ticket,
            source_port=request.origin.source_port,
        )
        return True


async def read_hello(client: Client) -> ClientHello | None:
    """The ClientHello that the client sends; it stays in `buffered`. None where the client ended first.

    Raises HelloError, OSError.
    """
    while (hello := read_client_hello(bytes(client.buffered))) is None:
        if len(client.buffered) > MAX_HELLO:
            raise HelloError("tls-malformed", "the TLS ClientHello is too long")
        if not await client.more():
            return None
    return hello


def unreachable(request: EgressRequest, error: DialError) -> Answer:
    """What a client is told whose destination does not answer."""
    answer = Answer(
        504 if error.timed_out else 502,
        f"{host_and_port(request.host, request.port)} cannot be reached: {error}",
        request_id=request.origin.request_id or "",
    )
    return answer if error.timed_out else replace(answer, refused=True)
