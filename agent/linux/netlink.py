"""Netlink: messages to the kernel's network configuration, and the two routes that make every address local.

Framing is from netlink(7) and linux/netlink.h, routes from rtnetlink(7) and linux/rtnetlink.h. A request is sent as one
datagram and is over when the kernel has acknowledged each message that asked for it; everything raises OSError with the
kernel's errno (EPERM without CAP_NET_ADMIN over the network namespace).
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from agent.values import dataclass

NETLINK_ROUTE = 0  # linux/netlink.h, as the following
NETLINK_NETFILTER = 12

REQUEST, ACK, CREATE, APPEND = 0x1, 0x4, 0x400, 0x800
_NESTED = 0x8000
_ERROR = 2  # NLMSG_ERROR; error 0 is an acknowledgement
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_ANSWER_SECONDS = 5
_ANSWER_BYTES = 65536

_NEWROUTE = 24  # linux/rtnetlink.h, as the following
_RTMSG = struct.Struct("=8BI")  # struct rtmsg
_NEWADDR = 20
_IFADDRMSG = struct.Struct("=4BI")  # struct ifaddrmsg, linux/if_addr.h
_ATTRIBUTE_ADDRESS, _ATTRIBUTE_LOCAL = 1, 2
_TABLE_LOCAL, _PROTOCOL_BOOT, _SCOPE_HOST, _TYPE_LOCAL = 255, 3, 254, 2
_ATTRIBUTE_OIF, _ATTRIBUTE_PREFSRC = 4, 7
_LOOPBACK: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message. `body` is the family's fixed header and its attributes."""

    kind: int
    flags: int
    body: bytes


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds others."""
    return attribute(kind | _NESTED, b"".join(attributes))


def ask(protocol: int, *messages: Message) -> None:
    """Send the messages together and wait until all that asked for it are acknowledged. Raises OSError."""
    awaited = {number for number, message in enumerate(messages, 1) if message.flags & ACK}
    datagram = b"".join(_pack(number, message) for number, message in enumerate(messages, 1))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as kernel:
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _ANSWER_SECONDS, 0))
        kernel.sendto(datagram, (0, 0))
        while awaited:
            awaited -= _acknowledged(kernel.recv(_ANSWER_BYTES))


def make_every_address_local(family: int) -> None:
    """Route all of `family` (AF_INET, AF_INET6) to this network namespace itself, as the command
    ``ip route add local default dev lo src 127.0.0.1`` (``::1``) does: whatever is dialled is answered here, and
    nowhere else. Without the source, a client's own address would be the one that it dials."""
    route = _RTMSG.pack(family, 0, 0, 0, _TABLE_LOCAL, _PROTOCOL_BOOT, _SCOPE_HOST, _TYPE_LOCAL, 0)
    oif = attribute(_ATTRIBUTE_OIF, struct.pack("=I", socket.if_nametoindex("lo")))
    source = attribute(_ATTRIBUTE_PREFSRC, socket.inet_pton(family, _LOOPBACK[family]))
    ask(NETLINK_ROUTE, Message(_NEWROUTE, REQUEST | ACK | CREATE, route + oif + source))


def claim_every_address(address: str) -> None:
    """Give `lo` this IPv4 address with a prefix of no bits. For gVisor, which refuses the route above and takes a
    loopback interface for the owner of all addresses of its networks (seen with release 20240729; older ones refuse
    this as well). Linux makes no route of such a prefix."""
    packed = socket.inet_pton(socket.AF_INET, address)
    head = _IFADDRMSG.pack(socket.AF_INET, 0, 0, 0, socket.if_nametoindex("lo"))
    body = head + attribute(_ATTRIBUTE_LOCAL, packed) + attribute(_ATTRIBUTE_ADDRESS, packed)
    ask(NETLINK_ROUTE, Message(_NEWADDR, REQUEST | ACK | CREATE, body))


def _pack(number: int, message: Message) -> bytes:
    length = _HEADER.size + len(message.body)
    return _HEADER.pack(length, message.kind, message.flags, number, 0) + message.body + b"\0" * (-length % 4)


def _acknowledged(datagram: bytes) -> set[int]:
    """The sequence numbers that an answer acknowledges. Raises the error it tells."""
    seen: set[int] = set()
    while len(datagram) >= _HEADER.size:
        length, kind, _, number, _ = _HEADER.unpack_from(datagram)
        if not _HEADER.size <= length <= len(datagram):
            raise OSError(errno.EBADMSG, "netlink: an answer that is cut short")
        if kind == _ERROR:
            (code,) = struct.unpack_from("=i", datagram, _HEADER.size)
            if code:
                raise OSError(-code, f"netlink: {os.strerror(-code)}")
            seen.add(number)
        datagram = datagram[length + -length % 4 :]
    return seen
