"""A connection from the session while it is being judged.

Rules kept here: what the client can be told is said by `Speech` and by nothing else; what was read and not yet used
stays in `buffered`, so that whoever takes over sees every byte once.
"""

from __future__ import annotations

from enum import Enum, auto

from agent.enforce.egress.head import HeadError, Request, end_of_head
from agent.enforce.egress.wire import Wire
from agent.policy.request import Origin
from agent.values import dataclass, field


class Speech(Enum):
    """In which words a refusal can reach this client.

    HTTP: an HTTP answer. SOCKS4, SOCKS_METHODS, SOCKS: the refusals of those exchanges (RFC 1928). BYTES: the client
    believes that it speaks to its destination; TLS gets an alert, anything else a reset.
    """

    HTTP = auto()
    SOCKS4 = auto()
    SOCKS_METHODS = auto()
    SOCKS = auto()
    BYTES = auto()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a connection goes that is no proxy request: origin-form HTTP on it is for `port`, and for `host` or, where
    that is None (captured), for whom each Host header names."""

    port: int
    host: str | None = None


@dataclass(slots=True)
class Client:
    """`started`: an HTTP answer is on its way already. `place` None: HTTP requests are in absolute-form.
    `number`: see `agent.enforce.egress.sightings`, 0 where nobody looks whose it is."""

    wire: Wire
    origin: Origin
    buffered: bytearray = field(default_factory=bytearray)
    request: Request | None = None
    started: bool = False
    speech: Speech = Speech.HTTP
    place: Place | None = None
    number: int = 0

    async def more(self) -> bool:
        """Read some more; False at the end. Raises OSError (TimeoutError past the wire's deadline)."""
        data = await self.wire.recv()
        self.buffered += data
        return bool(data)


async def read_head(wire: Wire, buffered: bytearray) -> bytes | None:
    """The next head, taken off `buffered`; None where the peer ended before one began. Raises HeadError, OSError."""
    while (end := end_of_head(buffered)) is None:
        data = await wire.recv()
        if not data:
            if buffered:
                raise HeadError("the connection ended within the request head")
            return None
        buffered += data
    head = bytes(buffered[:end])
    del buffered[:end]
    return head
