"""Transparent listening: every TCP connection that is made in a network namespace arrives at one socket.

nf_tables' tproxy statement hands a connection to a listener that is marked transparent, whatever address and port it
was meant for; the accepted socket's own name is that destination. It needs every address to be local
(`agent.linux.netlink.make_every_address_local`), CAP_NET_ADMIN over the namespace, and nf_tables with tproxy in the
kernel (Linux 4.19, CONFIG_NFT_TPROXY); no conntrack. A hook of nf_tables is asked before the kernel looks for a
listener, so no socket bound to the destination can take a connection away.

In the words of nft(8)::

    table inet parhelia { chain capture {
        type filter hook prerouting priority mangle; policy accept;
        ip daddr 127.0.0.0/8 accept
        ip6 daddr ::1 accept
        tcp dport { … } accept
        meta l4proto tcp tproxy to :PORT accept
    } }

Numbers are from linux/netfilter/nf_tables.h, nfnetlink.h, linux/in.h and linux/in6.h. Everything raises OSError with
the kernel's errno.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection

from agent.linux.netlink import ACK, APPEND, CREATE, NETLINK_NETFILTER, REQUEST, Message, ask, attribute, nested

_IP_TRANSPARENT = 19
_IPV6_TRANSPARENT = 75

_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _NEWCHAIN, _NEWRULE = 0, 3, 6
_NFGENMSG = struct.Struct("!BBH")  # struct nfgenmsg: family, version, resource
_INET, _IPV4, _IPV6, _UNSPEC = 1, 2, 10, 0  # NFPROTO_*
_PREROUTING, _MANGLE, _ACCEPT = 0, -150, 1
_REGISTER, _VERDICT = 1, 0  # NFT_REG_1, NFT_REG_VERDICT
_META_NFPROTO, _META_L4PROTO = 15, 16
_NETWORK, _TRANSPORT = 1, 2  # NFT_PAYLOAD_*_HEADER
_IP4_DESTINATION, _IP6_DESTINATION, _TCP_DESTINATION = 16, 24, 2  # offsets in their headers
_TABLE, _CHAIN = b"parhelia\0", b"capture\0"


def transparent_listener(family: int, port: int, backlog: int) -> socket.socket:
    """A socket that listens on the loopback's `port` and may stand for any destination. `family`: AF_INET, AF_INET6."""
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        else:
            listener.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def capture_tcp(port: int, *, spare: Collection[int] = ()) -> None:
    """Hand every TCP connection of this network namespace to the transparent listeners on `port`, but those to
    127.0.0.0/8 and ::1, and those to a port of `spare`, which go their usual way."""
    rules = [
        (_meta(_META_NFPROTO, bytes([_IPV4])), _field(_NETWORK, _IP4_DESTINATION, b"\x7f"), _accept()),
        (
            _meta(_META_NFPROTO, bytes([_IPV6])),
            _field(_NETWORK, _IP6_DESTINATION, socket.inet_pton(socket.AF_INET6, "::1")),
            _accept(),
        ),
        *((_tcp(), _field(_TRANSPORT, _TCP_DESTINATION, struct.pack("!H", one)), _accept()) for one in spare),
        (_tcp(), _tproxy(port), _accept()),
    ]
    hook = nested(4, attribute(1, struct.pack("!I", _PREROUTING)), attribute(2, struct.pack("!i", _MANGLE)))
    kind, policy = attribute(7, b"filter\0"), attribute(5, struct.pack("!I", _ACCEPT))
    ask(
        NETLINK_NETFILTER,
        _batch(_BATCH_BEGIN),
        _message(_NEWTABLE, CREATE, attribute(1, _TABLE)),
        _message(_NEWCHAIN, CREATE, attribute(1, _TABLE) + attribute(3, _CHAIN) + hook + policy + kind),
        *(
            _message(_NEWRULE, CREATE | APPEND, attribute(1, _TABLE) + attribute(2, _CHAIN) + nested(4, *expressions))
            for expressions in rules
        ),
        _batch(_BATCH_END),
    )


def _batch(kind: int) -> Message:
    return Message(kind, REQUEST, _NFGENMSG.pack(socket.AF_UNSPEC, 0, _SUBSYSTEM))


def _message(kind: int, flags: int, attributes: bytes) -> Message:
    return Message(_SUBSYSTEM << 8 | kind, REQUEST | ACK | flags, _NFGENMSG.pack(_INET, 0, 0) + attributes)


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, attribute(1, name.encode() + b"\0"), nested(2, *attributes))


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value))


def _equals(value: bytes) -> bytes:
    return _expression("cmp", _number(1, _REGISTER), _number(2, 0), nested(3, attribute(1, value)))


def _meta(key: int, value: bytes) -> bytes:
    """Two expressions: load a fact about the packet, compare it."""
    return _expression("meta", _number(1, _REGISTER), _number(2, key)) + _equals(value)


def _tcp() -> bytes:
    return _meta(_META_L4PROTO, bytes([socket.IPPROTO_TCP]))


def _field(base: int, offset: int, value: bytes) -> bytes:
    """Two expressions: load bytes of a header, compare them."""
    where = (_number(1, _REGISTER), _number(2, base), _number(3, offset), _number(4, len(value)))
    return _expression("payload", *where) + _equals(value)


def _tproxy(port: int) -> bytes:
    load = _expression("immediate", _number(1, _REGISTER), nested(2, attribute(1, struct.pack("!H", port))))
    return load + _expression("tproxy", _number(1, _UNSPEC), _number(3, _REGISTER))


def _accept() -> bytes:
    return _expression("immediate", _number(1, _VERDICT), nested(2, nested(2, _number(1, _ACCEPT))))
