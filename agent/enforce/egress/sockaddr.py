"""A socket address as a program hands it to the kernel, read strictly: bytes -> value.

Rules kept here: pure; what the kernel would not take raises `AddressError` with the kernel's errno; IPv4 in an IPv6
address (``::ffff:a.b.c.d``) is IPv4. Layouts: ip(7), ipv6(7), unix(7), netlink(7).
"""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

from agent.values import dataclass

MAX_LENGTH = 128
"""sizeof(struct sockaddr_storage): the kernel takes no longer one."""
_INET_LENGTH, _INET6_LENGTH, _NETLINK_LENGTH = 16, 24, 12  # struct sockaddr_in, SIN6_LEN_RFC2133, sockaddr_nl
_PATH_AT = 2  # offsetof(struct sockaddr_un, sun_path)
_UNIX_LENGTH = 110  # sizeof(struct sockaddr_un)


class AddressError(Exception):
    """The kernel would refuse this address; `errno` says how."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.errno = number


@dataclass(frozen=True, slots=True)
class Inet:
    """A TCP address. `address` is what it means; `family` is how it was written."""

    family: int
    address: IPv4Address | IPv6Address
    port: int

    @property
    def loopback(self) -> bool:
        return self.address.is_loopback

    @property
    def wildcard(self) -> bool:
        return self.address.is_unspecified


@dataclass(frozen=True, slots=True)
class Unix:
    """A UNIX socket's address: a path, an abstract name, or neither (the kernel then picks an abstract one)."""

    path: bytes = b""
    abstract: bytes = b""
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Netlink:
    """A netlink address: `port` 0 is the kernel."""

    port: int
    groups: int
    raw: bytes = b""


type Address = Inet | Unix | Netlink


def read_address(family: int, raw: bytes) -> Address:
    """What `raw` means for a socket of `family`. Raises AddressError."""
    if len(raw) < _PATH_AT or len(raw) > MAX_LENGTH:
        raise AddressError(errno.EINVAL)
    (given,) = struct.unpack_from("=H", raw)
    if given != family:
        raise AddressError(errno.EINVAL if family == socket.AF_UNIX else errno.EAFNOSUPPORT)
    match family:
        case socket.AF_INET if len(raw) >= _INET_LENGTH:
            (port,) = struct.unpack_from("!H", raw, 2)
            return Inet(family, IPv4Address(raw[4:8]), port)
        case socket.AF_INET6 if len(raw) >= _INET6_LENGTH:
            (port,) = struct.unpack_from("!H", raw, 2)
            address = IPv6Address(raw[8:24])
            return Inet(family, address.ipv4_mapped or address, port)
        case socket.AF_UNIX if len(raw) <= _UNIX_LENGTH:
            return _unix(raw)
        case socket.AF_NETLINK if len(raw) >= _NETLINK_LENGTH:
            _, _, port, groups = struct.unpack_from("=HHII", raw)
            return Netlink(port, groups, raw)
    raise AddressError(errno.EINVAL)


def _unix(raw: bytes) -> Unix:
    name = raw[_PATH_AT:]
    if not name:
        return Unix(raw=raw)
    if name[0] == 0:
        return Unix(abstract=name[1:], raw=raw)
    path = name.split(b"\0", 1)[0]
    return Unix(path=path, raw=raw)


def parse_name(name: object) -> Inet:
    """What Python's getsockname gives for a TCP socket, as an `Inet`."""
    if not isinstance(name, tuple):
        raise TypeError(f"{name!r} is no TCP address")
    text = str(name[0]).partition("%")[0]
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        return Inet(socket.AF_INET6, address.ipv4_mapped or address, int(name[1]))
    return Inet(socket.AF_INET, address, int(name[1]))


def spelled(family: int, address: IPv4Address | IPv6Address) -> str:
    """`address` as a socket of `family` takes it. Raises AddressError where it cannot (IPv6 through IPv4)."""
    if family == socket.AF_INET6:
        return str(address) if isinstance(address, IPv6Address) else f"::ffff:{address}"
    if isinstance(address, IPv6Address):
        raise AddressError(errno.EAFNOSUPPORT)
    return str(address)
