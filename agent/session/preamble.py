"""What stands before the bytes of a connection that the guard made in the session's stead: where it was meant to go.

Pure. Rules kept here: the binary form of the PROXY protocol, version 2, and of that only what is sent here: command
PROXY over TCP, both ends, which process asked, and a token that only the agent's processes know; anything else is a
`PreambleError`, never skipped. What `render` makes, `read` takes, and nothing beyond. The token is why it can be
believed: the session holds the socket while it is connected, and may write first.

Source: HAProxy's proxy-protocol specification, section 2.2 (signature, 0x21, families 0x11 and 0x21, TLVs; types 0xE0
to 0xEF are free for private use).
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from agent.values import dataclass

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_PROXY: Final = 0x21
_TCP4, _TCP6 = 0x11, 0x21
_BLOCK: Final = {_TCP4: 12, _TCP6: 36}
_HEAD: Final = 16
_MAX: Final = 256
_TLV_PID, _TLV_TOKEN = 0xE0, 0xE1
TOKEN_BYTES: Final = 16
_PID: Final = re.compile(rb"[1-9][0-9]{0,9}", re.ASCII)


class PreambleError(Exception):
    """Not a preamble of ours. The text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Preamble:
    """Address text (IPv6 without zone) and port of both ends; `pid` of the session's process, None where unknown;
    `token`: empty where there is none."""

    source: tuple[str, int]
    destination: tuple[str, int]
    pid: int | None = None
    token: bytes = b""


def render(preamble: Preamble) -> bytes:
    """The bytes to send first. Raises ValueError for what is no address or port."""
    ends = [ip_address(address) for address, _ in (preamble.source, preamble.destination)]
    if any(end.version == 6 for end in ends):
        ends = [end if end.version == 6 else IPv6Address(f"::ffff:{end}") for end in ends]
    ports = b"".join(port.to_bytes(2) for _, port in (preamble.source, preamble.destination))
    body = b"".join(end.packed for end in ends) + ports
    if preamble.pid is not None:
        text = b"%d" % preamble.pid
        body += bytes((_TLV_PID,)) + len(text).to_bytes(2) + text
    if preamble.token:
        body += bytes((_TLV_TOKEN,)) + len(preamble.token).to_bytes(2) + preamble.token
    family = _TCP6 if ends[0].version == 6 else _TCP4
    return SIGNATURE + bytes((_PROXY, family)) + len(body).to_bytes(2) + body


def read(data: bytes) -> tuple[Preamble, int] | None:
    """The preamble at the start of `data` and its length; None where more bytes are needed. Raises PreambleError."""
    if data[: len(SIGNATURE)] != SIGNATURE[: len(data)]:
        raise PreambleError("the connection does not begin with a PROXY protocol header")
    if len(data) > 12 and data[12] != _PROXY:
        raise PreambleError("the PROXY protocol header is no version 2 PROXY command")
    if len(data) > 13 and data[13] not in _BLOCK:
        raise PreambleError("the PROXY protocol header is not about TCP")
    if len(data) < _HEAD:
        return None
    size = int.from_bytes(data[14:16])
    if not _BLOCK[data[13]] <= size <= _MAX:
        raise PreambleError("the PROXY protocol header has an impossible length")
    if len(data) < _HEAD + size:
        return None
    return _parse(data[13], data[_HEAD : _HEAD + size]), _HEAD + size


def _parse(family: int, body: bytes) -> Preamble:
    block = _BLOCK[family]
    width = (block - 4) // 2
    address = IPv4Address if family == _TCP4 else IPv6Address
    source, destination = str(address(body[:width])), str(address(body[width : 2 * width]))
    ports = int.from_bytes(body[2 * width : 2 * width + 2]), int.from_bytes(body[2 * width + 2 : block])
    if not ports[1]:
        raise PreambleError("the destination's port is out of range")
    rest, token = _token(body[block:])
    return Preamble((source, ports[0]), (destination, ports[1]), _pid(rest), token)


def _token(tlvs: bytes) -> tuple[bytes, bytes]:
    """What stands before it, and the token, which comes last."""
    head = bytes((_TLV_TOKEN,)) + TOKEN_BYTES.to_bytes(2)
    before, value = tlvs[: -TOKEN_BYTES - len(head)], tlvs[-TOKEN_BYTES:]
    return (before, value) if tlvs[len(before) : -TOKEN_BYTES] == head else (tlvs, b"")


def _pid(tlvs: bytes) -> int | None:
    if not tlvs:
        return None
    value = tlvs[3:]
    if tlvs[0] != _TLV_PID or len(tlvs) < 3 or int.from_bytes(tlvs[1:3]) != len(value) or not _PID.fullmatch(value):
        raise PreambleError("the PROXY protocol header holds something else than one process id")
    return int(value)
