"""The header in front of a connection that the guard made in the session's stead: where it was meant to go.

PROXY protocol version 2 (the HAProxy specification, section 2.2), source and destination, and two values of our own in
its custom range: who asked (0xE0, the process id in ASCII) and a token (0xE1) that only the agent's processes know.
The session holds the socket while the header is written and may write first; without the token its bytes are no header.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from agent.enforce.egress.sockaddr import Inet

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PROXY_COMMAND = 0x21  # version 2, PROXY
TCP4, TCP6 = 0x11, 0x21
TLV_PID, TLV_TOKEN = 0xE0, 0xE1
TOKEN_BYTES = 16


def header(source: Inet, destination: Inet, pid: int, token: bytes) -> bytes:
    """The bytes to send first. IPv4 stays IPv4 only where both ends are."""
    ends = (source.address, destination.address)
    if all(isinstance(end, IPv4Address) for end in ends):
        family, packed = TCP4, b"".join(end.packed for end in ends)
    else:
        family, packed = TCP6, b"".join(_as_v6(end) for end in ends)
    ports = struct.pack("!HH", source.port, destination.port)
    further = _tlv(TLV_PID, str(pid).encode()) + _tlv(TLV_TOKEN, token)
    length = len(packed) + len(ports) + len(further)
    return SIGNATURE + struct.pack("!BBH", PROXY_COMMAND, family, length) + packed + ports + further


def _as_v6(address: IPv4Address | IPv6Address) -> bytes:
    return address.packed if isinstance(address, IPv6Address) else b"\0" * 10 + b"\xff\xff" + address.packed


def _tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value
