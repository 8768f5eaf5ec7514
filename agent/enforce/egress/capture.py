"""The way in for connections that were meant for somewhere else: captured in the jail, or forwarded by the guard.

Rules kept here: where the connection was meant to go is the kernel's word (the accepted socket's own name) or the
guard's (`agent.session.preamble`), never the client's. Raw bytes go to that address only, and only where a rule says
`protocol: tcp` for it or for a name that the session was told it stands for, and none wants TLS or HTTP of that host
and port. TLS and HTTP name their host themselves (SNI, Host): that name is decided and resolved anew, and the captured
address is never dialled for it; the port is the captured one. What is neither, or names nobody, is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hmac import compare_digest
from typing import Final
from typing import Protocol as Interface

from agent.enforce.egress.client import Client, Place, Speech, read_head
from agent.enforce.egress.head import parse_request, starts_request
from agent.enforce.egress.hello import HelloError
from agent.enforce.egress.http1 import Forwarder
from agent.enforce.egress.identity import RAW_INSTEAD, Admission, Doorkeeper
from agent.enforce.egress.limits import Limits
from agent.enforce.egress.passage import Passage, read_hello
from agent.enforce.egress.wire import Wire
from agent.policy.addresses import canonical_address
from agent.policy.hosts import HostError, host_and_port, normalise_host
from agent.policy.request import Origin, Protocol
from agent.session import preamble
from agent.values import dataclass, replace

_TLS: Final = 0x16
_DNS: Final = 53
_PATIENCE: Final = 1.0
_NAMED: Final = (Protocol.TLS, Protocol.HTTP)

type NamesOf = Callable[[str], tuple[str, ...]]


class DnsStreams(Interface):
    """The name server's TCP side; `prefix` was read already. Closing stays with the caller."""

    def serve_tcp_connection(self, wire: Wire, prefix: bytes, origin: Origin, number: int = 0) -> Awaitable[None]: ...


@dataclass(frozen=True, slots=True)
class _Destination:
    """`names`: what the session was told stands at `address`. `raw`: the address or name to which raw bytes may go.
    `named`: something at this address is to be reached by TLS or HTTP, which name it themselves."""

    address: str
    port: int
    names: tuple[str, ...]
    raw: str | None
    named: bool


class Capture:
    """Serves connections of the doors CAPTURE and FORWARDED.

    `names_of(address)`: the names that the session's name server answered with this address and still keeps.
    `token`: what a forwarded connection's preamble must hold.
    """

    def __init__(
        self,
        door: Doorkeeper,
        passage: Passage,
        forwarder: Forwarder,
        limits: Limits,
        *,
        token: bytes,
        names_of: NamesOf | None = None,
        dns: DnsStreams | None = None,
    ) -> None:
        self._token = token
        self._door = door
        self._passage = passage
        self._forwarder = forwarder
        self._limits = limits
        self._names_of = names_of
        self._dns = dns

    async def captured(self, client: Client) -> bool:
        """A connection whose own name is where it was meant to go. Raises Refusal, HeadError, HostError, OSError."""
        client.speech = Speech.BYTES
        name = client.wire.sock.getsockname()
        return await self._take(client, str(name[0]), int(name[1]))

    async def forwarded(self, client: Client) -> bool:
        """A connection that begins with the guard's preamble. Raises PreambleError as well."""
        client.speech = Speech.BYTES
        client.wire.limit(self._limits.head)
        while (found := preamble.read(bytes(client.buffered))) is None:
            if not await client.more():
                return False
        head, size = found
        if not compare_digest(head.token, self._token):
            raise preamble.PreambleError("the header is not the agent's own: it does not hold this run's token")
        del client.buffered[:size]
        source_ip, source_port = head.source
        client.origin = replace(
            client.origin, source_ip=canonical_address(source_ip), source_port=source_port, pid=head.pid
        )
        if head.destination[1] == _DNS and self._dns is not None:
            prefix = bytes(client.buffered)
            await self._dns.serve_tcp_connection(client.wire, prefix, client.origin, client.number)
            return False
        return await self._take(client, *head.destination)

    async def _take(self, client: Client, address: str, port: int) -> bool:
        address = canonical_address(address.partition("%")[0]) or address
        captured = ("captured", host_and_port(address, port))
        client.origin = replace(client.origin, extra=(*client.origin.extra, captured))
        names = () if self._names_of is None else self._names_of(address)
        hosts = (address, *names)
        named = [host for host in hosts if any(self._door.speaks(host, port, how) for how in _NAMED)]
        plain = (host for host in hosts if host not in named and self._door.speaks(host, port, Protocol.TCP))
        raw = next(plain, None)
        there = _Destination(address, port, names, raw, bool(named))
        if raw is not None and not named:
            return await self._raw(client, raw, there)
        return await self._by_first_bytes(client, there)

    async def _by_first_bytes(self, client: Client, there: _Destination) -> bool:
        """Wait for the client to speak; not long where only raw bytes could be meant, or nothing that is allowed."""
        served = there.named or (there.raw is None and self._door.serves(there.port))
        patient = served and there.raw is None
        client.wire.limit(self._limits.head if patient else min(_PATIENCE, self._limits.head))
        try:
            while (http := starts_request(client.buffered)) is None:
                if not await client.more():
                    return False if served and not client.buffered else await self._unknown(client, there)
        except TimeoutError:
            return await self._unknown(client, there)
        client.wire.limit(self._limits.head)
        if client.buffered[0] == _TLS:
            return await self._tls(client, there)
        return await self._http(client, there.port) if http else await self._unknown(client, there)

    async def _tls(self, client: Client, there: _Destination) -> bool:
        literal = self._door.request(there.address, there.port, client.origin, None)
        try:
            hello = await read_hello(client)
            if hello is None:
                return False
            host = there.address if hello.sni is None else normalise_host(hello.sni)
        except HelloError as error:
            self._door.refuse_hello(literal, error)
            return await self._unknown(client, there)
        except HostError as error:
            self._door.refuse(literal, "tls-malformed", f"the TLS server name is malformed: {error.message}")
            return await self._unknown(client, there)
        if hello.sni is None and not self._door.speaks(host, there.port, Protocol.TLS):
            self._door.refuse(
                literal, "sni-missing", "the TLS ClientHello names no host", "use a client that sends SNI"
            )
            return await self._unknown(client, there)
        asked = replace(self._door.request(host, there.port, client.origin, None), sni=hello.sni)
        admission = await self._door.admit(asked, hello)
        return await self._passage.go(client, admission, b"", agreed=True)

    async def _http(self, client: Client, port: int) -> bool:
        client.speech, client.place = Speech.HTTP, Place(port)
        head = await read_head(client.wire, client.buffered)
        if head is not None:
            await self._forwarder.serve(client, parse_request(head))
        return False

    async def _unknown(self, client: Client, there: _Destination) -> bool:
        """Nothing said who is meant: raw bytes, where a rule has them; else the policy refuses (or observes)."""
        if there.raw is not None:
            return await self._raw(client, there.raw, there)
        host = there.names[0] if there.names else there.address
        if there.named:  # a rule may say tcp as well: the one that wants to know what is said holds
            asked = self._door.request(host, there.port, client.origin, None)
            self._door.refuse(asked, "tls-required", "the first bytes are neither TLS nor HTTP", RAW_INSTEAD)
        return await self._raw(client, host, there)

    async def _raw(self, client: Client, host: str, there: _Destination) -> bool:
        asked = self._door.request(host, there.port, client.origin, Protocol.TCP)
        admission = await self._door.admit(asked)
        return await self._passage.go(client, _meant(admission, there.address), b"")


def _meant(admission: Admission, address: str) -> Admission:
    """The very address that the session chose, where it is one of the vetted ones."""
    if address not in admission.request.addresses:
        return admission
    return replace(admission, request=replace(admission.request, addresses=(address,)))
