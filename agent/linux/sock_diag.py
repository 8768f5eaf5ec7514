"""Asking the kernel which sockets listen on a TCP port, or which one has a connection, without walking all there are.

Source: sock_diag(7), linux/inet_diag.h. Rules kept here: the kernel filters by port and state, or finds one connection
by both ends; an answer that is cut or unknown is an OSError, never an empty list.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

NETLINK_SOCK_DIAG = 4  # linux/netlink.h
SOCK_DIAG_BY_FAMILY = 20  # linux/sock_diag.h
_REQUEST_ONE = 0x1  # NLM_F_REQUEST
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_ANY_STATE = 0xFFFFFFFF
_LISTEN = 1 << 10  # TCPF_LISTEN, net/tcp_states.h
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBBxI2s2s16s16sI8s")  # struct inet_diag_req_v2
_FOUND = struct.Struct("=BBBB2s2s16s16sI8sIIIII")  # struct inet_diag_msg; the last is the inode
_BUFFER = 1 << 16


def listeners(port: int) -> list[tuple[int, IPv4Address | IPv6Address]]:
    """Inode and address of every socket that listens on TCP `port` in this network namespace. Raises OSError."""
    found: list[tuple[int, IPv4Address | IPv6Address]] = []
    with open_link() as link:
        for family in (socket.AF_INET, socket.AF_INET6):
            wanted = port.to_bytes(2)
            body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _LISTEN, wanted, b"", b"", b"", 0, b"\xff" * 8)
            link.send(_HEADER.pack(_HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + body)
            found += [(inode, address) for inode, address, at in _answers(link) if at == wanted]
    return found


def open_link() -> socket.socket:
    """A socket to ask through, about the network namespace it is opened in. Raises OSError."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)


def connection(link: socket.socket, source: tuple[str, int], destination: tuple[str, int]) -> int:
    """The inode of the TCP socket with these ends, its own first; 0 where there is none or nobody holds it.

    Raises OSError, ValueError (OverflowError) for what is no address and no port.
    """
    ends = ip_address(source[0]), ip_address(destination[0])
    family = socket.AF_INET if all(isinstance(end, IPv4Address) for end in ends) else socket.AF_INET6
    ports = source[1].to_bytes(2), destination[1].to_bytes(2)
    packed = ends[0].packed, ends[1].packed
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _ANY_STATE, *ports, *packed, 0, b"\xff" * 8)
    link.send(_HEADER.pack(_HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, _REQUEST_ONE, 1, 0) + body)
    data = link.recv(_BUFFER)
    length, kind, _, _, _ = _HEADER.unpack_from(data)
    if kind != SOCK_DIAG_BY_FAMILY or length < _HEADER.size + _FOUND.size:
        return 0
    found = _FOUND.unpack_from(data, _HEADER.size)
    own, other = (_address(found[0], raw) for raw in found[6:8])
    # the kernel answers with a listener where there is no connection
    return int(found[-1]) if (found[4:6], own, other) == (ports, *ends) else 0


def _answers(link: socket.socket) -> Iterator[tuple[int, IPv4Address | IPv6Address, bytes]]:
    while True:
        data = link.recv(_BUFFER)
        while data:
            length, kind, _, _, _ = _HEADER.unpack_from(data)
            if kind == _DONE:
                return
            if kind == _ERROR:
                number = -int(struct.unpack_from("=i", data, _HEADER.size)[0])
                raise OSError(number, f"sock_diag: {os.strerror(number)}")
            if kind != SOCK_DIAG_BY_FAMILY or not _HEADER.size <= length <= len(data):
                raise OSError(errno.EBADMSG, "sock_diag: not an answer")
            family, _, _, _, port, _, address, *_, inode = _FOUND.unpack_from(data, _HEADER.size)
            yield inode, _address(family, address), port
            data = data[(length + 3) & ~3 :]


def _address(family: int, raw: bytes) -> IPv4Address | IPv6Address:
    if family == socket.AF_INET:
        return IPv4Address(raw[:4])
    address = IPv6Address(raw)
    return address.ipv4_mapped or address
