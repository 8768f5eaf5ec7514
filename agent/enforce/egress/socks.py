"""SOCKS5 as a session may speak it: read strictly, CONNECT only, no authentication. Pure.

Rules kept here: bytes become a message, a need for more, or a `SocksError`; nothing is skipped or repaired. A domain is
visible ASCII (so no NUL, CR, LF or space ever reaches a lookup); whether it is a host, and which, is
`agent.policy.hosts`' business, which judges address text in a domain as the literal that it is.

Source: RFC 1928 (greeting and methods 3, requests 4, addresses 5, replies 6). RFC 1929 passwords are not offered.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Final

from agent.values import dataclass

VERSION: Final = 5
VERSION_4: Final = 4
CONNECT: Final = 1
COMMANDS: Final = {1: "CONNECT", 2: "BIND", 3: "UDP ASSOCIATE"}
METHOD_NONE: Final = b"\x05\x00"
NO_METHOD: Final = b"\x05\xff"
REFUSED_4: Final = b"\0\x5b\0\0\0\0\0\0"  # "request rejected or failed" of SOCKS4

GENERAL, NOT_ALLOWED, HOST_UNREACHABLE, CONNECTION_REFUSED, COMMAND_UNKNOWN = 1, 2, 4, 5, 7
_IPV4, _DOMAIN, _IPV6 = 1, 3, 4


class SocksError(Exception):
    """Malformed. The text says what is wrong and is fit for the record."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """The methods the client offers; `size`: the bytes it took."""

    methods: bytes
    size: int


@dataclass(frozen=True, slots=True)
class SocksRequest:
    """`host` is the text of an address or a domain as sent, not yet normalised; `size`: the bytes it took."""

    command: int
    host: str
    port: int
    size: int


def read_greeting(data: bytes) -> Greeting | None:
    """The greeting at the start of `data`, None where more bytes are needed. Raises SocksError."""
    if data[:1] and data[0] != VERSION:
        raise SocksError("this is no SOCKS5 greeting")
    if len(data) < 2:
        return None
    if not data[1]:
        raise SocksError("the SOCKS greeting offers no method")
    end = 2 + data[1]
    return Greeting(data[2:end], end) if len(data) >= end else None


def read_request(data: bytes) -> SocksRequest | None:
    """The request at the start of `data`, None where more bytes are needed. Raises SocksError."""
    for at, wanted in ((0, (VERSION,)), (1, tuple(COMMANDS)), (2, (0,)), (3, (_IPV4, _DOMAIN, _IPV6))):
        if len(data) > at and data[at] not in wanted:
            raise SocksError(f"the SOCKS request is malformed (byte {at + 1} is {data[at]})")
    if len(data) < 5:
        return None
    kind = data[3]
    start = 5 if kind == _DOMAIN else 4
    length = {_IPV4: 4, _IPV6: 16}.get(kind, data[4])
    if not length:
        raise SocksError("the SOCKS request names no host")
    end = start + length
    if len(data) < end + 2:
        return None
    port = int.from_bytes(data[end : end + 2])
    if not port:
        raise SocksError("the port is out of range")
    return SocksRequest(data[1], _host(kind, data[start:end]), port, end + 2)


def render_reply(code: int) -> bytes:
    """A reply that says `code` (0: it goes on) and nothing of our own addresses."""
    return bytes((VERSION, code, 0, _IPV4)) + bytes(6)


def _host(kind: int, raw: bytes) -> str:
    if kind == _IPV4:
        return str(IPv4Address(raw))
    if kind == _IPV6:
        return str(IPv6Address(raw))
    if any(not 0x21 <= byte <= 0x7E for byte in raw):
        raise SocksError("the SOCKS domain holds a character that is no visible ASCII")
    return raw.decode("ascii")
