"""Socket addresses, read strictly: what a program can hand to the kernel means here what it means there."""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.enforce.egress.dialling import packed
from agent.enforce.egress.sockaddr import AddressError, Inet, Netlink, Unix, parse_name, read_address

FAMILIES = st.sampled_from([socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK])


def unix(name: bytes) -> bytes:
    return struct.pack("=H", socket.AF_UNIX) + name


def inet6(address: str) -> bytes:
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16sI", 80, 7, IPv6Address(address).packed, 3)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_what_is_packed_is_read_back(address: IPv4Address | IPv6Address, port: int) -> None:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    meant = address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
    assert read_address(family, packed(family, Inet(family, address, port))) == Inet(family, meant, port)


@given(FAMILIES, st.binary(max_size=140), st.booleans())
def test_no_bytes_make_the_reader_fail_otherwise(family: int, raw: bytes, begin: bool) -> None:
    try:
        read_address(family, (struct.pack("=H", family) if begin else b"") + raw)
    except AddressError as error:
        assert error.errno in (errno.EINVAL, errno.EAFNOSUPPORT)


MEANT = [
    (socket.AF_INET6, inet6("::ffff:192.0.2.7"), Inet(socket.AF_INET6, IPv4Address("192.0.2.7"), 80)),
    (socket.AF_INET6, inet6("::1"), Inet(socket.AF_INET6, IPv6Address("::1"), 80)),
    (socket.AF_UNIX, unix(b"/run/x\0rest"), Unix(path=b"/run/x", raw=unix(b"/run/x\0rest"))),
    (socket.AF_UNIX, unix(b"\0name\0more"), Unix(abstract=b"name\0more", raw=unix(b"\0name\0more"))),
    (socket.AF_UNIX, unix(b""), Unix(raw=unix(b""))),
    (socket.AF_NETLINK, struct.pack("=HHII", 16, 0, 4, 1), Netlink(4, 1, struct.pack("=HHII", 16, 0, 4, 1))),
]


@pytest.mark.parametrize(("family", "raw", "meant"), MEANT)
def test_each_form_means(family: int, raw: bytes, meant: object) -> None:
    assert read_address(family, raw) == meant


REFUSED = [
    (socket.AF_INET, b"", errno.EINVAL),
    (socket.AF_INET, bytes(16), errno.EAFNOSUPPORT),  # AF_UNSPEC: a disconnect
    (socket.AF_INET, inet6("::1"), errno.EAFNOSUPPORT),
    (socket.AF_INET, struct.pack("=H", 2) + bytes(13), errno.EINVAL),
    (socket.AF_INET6, inet6("::1")[:23], errno.EINVAL),
    (socket.AF_INET6, packed(socket.AF_INET, Inet(2, IPv4Address("1.2.3.4"), 1)), errno.EAFNOSUPPORT),
    (socket.AF_UNIX, packed(socket.AF_INET, Inet(2, IPv4Address("1.2.3.4"), 1)), errno.EINVAL),
    (socket.AF_UNIX, unix(b"x" * 109), errno.EINVAL),
    (socket.AF_NETLINK, struct.pack("=HH", 16, 0), errno.EINVAL),
]


@pytest.mark.parametrize(("family", "raw", "number"), REFUSED)
def test_what_the_kernel_would_not_take_is_refused_as_it_would(family: int, raw: bytes, number: int) -> None:
    with pytest.raises(AddressError) as raised:
        read_address(family, raw)
    assert raised.value.errno == number


def test_a_sockets_own_name_is_read() -> None:
    assert parse_name(("::ffff:127.0.0.1", 7, 0, 0)) == Inet(socket.AF_INET6, IPv4Address("127.0.0.1"), 7)
    assert parse_name(("fe80::1%eth0", 7, 0, 2)) == Inet(socket.AF_INET6, IPv6Address("fe80::1"), 7)
    with pytest.raises(TypeError):
        parse_name("/run/x")
