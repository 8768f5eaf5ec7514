"""The way in for clients that ask a proxy: CONNECT, absolute-form HTTP and SOCKS5 on one port.

Rules kept here: the first byte says which; what is malformed is refused before anything is looked up; whichever way a
destination was asked for, it is asked of the policy as the same question.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agent.enforce.egress import socks
from agent.enforce.egress.answer import ESTABLISHED
from agent.enforce.egress.client import Client, Place, Speech, read_head
from agent.enforce.egress.head import HeadError, Request, parse_request
from agent.enforce.egress.http1 import Forwarder
from agent.enforce.egress.identity import TUNNELS, Doorkeeper, parse_authority
from agent.enforce.egress.limits import Limits
from agent.enforce.egress.passage import Passage
from agent.policy.hosts import normalise_host
from agent.policy.request import Protocol
from agent.values import replace

_SUCCEEDED: Final = socks.render_reply(0)


class Proxying:
    """Serves a connection of the proxy's door."""

    def __init__(self, door: Doorkeeper, passage: Passage, forwarder: Forwarder, limits: Limits) -> None:
        self._door = door
        self._passage = passage
        self._forwarder = forwarder
        self._limits = limits

    async def serve(self, client: Client) -> bool:
        """True where the socket is somebody else's now. Raises Refusal, HeadError, HostError, SocksError, OSError."""
        client.wire.limit(self._limits.head)
        if not client.buffered and not await client.more():
            return False
        if client.buffered[0] == socks.VERSION:
            return await self._socks(client)
        if client.buffered[0] == socks.VERSION_4:
            client.speech = Speech.SOCKS4
            raise socks.SocksError("SOCKS4 is not served; use SOCKS5 (socks5h)")
        return await self._http(client)

    async def _http(self, client: Client) -> bool:
        head = await read_head(client.wire, client.buffered)
        if head is None:
            return False
        request = client.request = parse_request(head)
        if request.method == "CONNECT":
            return await self._connect(client, request)
        await self._forwarder.serve(client, request)
        return False

    async def _connect(self, client: Client, request: Request) -> bool:
        host, port = parse_authority(request.target)
        if request.body:
            raise HeadError("a CONNECT request has no body")
        asked = self._door.request(host, port, client.origin, None)
        # Host may leave out the port here: many clients do (RFC 9110 7.2 wants it, and says what it must name)
        self._door.check_host_header(asked, request.host, port)
        return await self._passage.enter(client, asked, ESTABLISHED)

    async def _socks(self, client: Client) -> bool:
        client.speech = Speech.SOCKS_METHODS
        client.origin = replace(client.origin, mechanism="socks")
        greeting = await _read(client, socks.read_greeting)
        if greeting is None:
            return False
        del client.buffered[: greeting.size]
        if 0 not in greeting.methods:
            raise socks.SocksError("the client offers no SOCKS method without authentication")
        await client.wire.send(socks.METHOD_NONE)
        client.speech = Speech.SOCKS
        request = await _read(client, socks.read_request)
        if request is None:
            return False
        del client.buffered[: request.size]
        return await self._socks_request(client, request)

    async def _socks_request(self, client: Client, request: socks.SocksRequest) -> bool:
        host = normalise_host(request.host)
        asked = self._door.request(host, request.port, client.origin, None, (*TUNNELS, Protocol.HTTP))
        if request.command != socks.CONNECT:
            what = socks.COMMANDS[request.command]
            raise self._door.refusal(asked, "socks-command", f"SOCKS {what} is not served", "use CONNECT (TCP)")
        if asked.protocol is not Protocol.HTTP:
            return await self._passage.enter(client, asked, _SUCCEEDED)
        await self._door.check(asked)
        await client.wire.send(_SUCCEEDED)
        client.speech, client.place = Speech.HTTP, Place(request.port, host)
        return await self._http_inside(client)

    async def _http_inside(self, client: Client) -> bool:
        client.wire.limit(self._limits.head)
        head = await read_head(client.wire, client.buffered)
        if head is not None:
            await self._forwarder.serve(client, parse_request(head))
        return False


async def _read[T](client: Client, parse: Callable[[bytes], T | None]) -> T | None:
    """The next message, left in `buffered`. None where the client ended first. Raises SocksError, OSError."""
    while (message := parse(bytes(client.buffered))) is None:
        if not await client.more():
            return None
    return message
