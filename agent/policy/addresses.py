"""What kind of place an IP address is: public, or a class that must be granted by range.

Rules kept here: forms that carry an IPv4 address inside an IPv6 one are decoded first, so that no spelling of a
forbidden address is a public one; what is not certainly public is not public (the whole of IPv6 outside 2000::/3);
text that is no address has the class ``invalid`` and never None.

Sources: the IANA special-purpose registries for IPv4 and IPv6 (RFC 6890 and its successors), RFC 4291 (mapped,
compatible), RFC 6052 and 8215 (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo), RFC 5214 (ISATAP), and the metadata
addresses that the clouds document for their instances.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

METADATA: Final = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Azure, Google, Oracle, DigitalOcean, OpenStack, Hetzner, IBM and most others
        "169.254.169.253",  # AWS: resolver
        "169.254.170.2",  # AWS: ECS task credentials
        "169.254.170.23",  # AWS: EKS pod identity
        "169.254.0.23",  # Tencent
        "169.254.42.42",  # Scaleway
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure: wire server
        "192.0.0.192",  # Oracle classic
        "fd00:ec2::254",  # AWS
        "fd00:ec2::253",  # AWS: resolver
        "fd00:ec2::23",  # AWS: EKS pod identity
        "fd20:ce::254",  # Google
        "fd00:c1::a9fe:a9fe",  # Oracle
        "fd00:42::42",  # Scaleway
        "fd00:a9fe:a9fe::1",  # Akamai
        "fe80::a9fe:a9fe",  # OpenStack
    )
)
"""Addresses that hand credentials or configuration to whoever asks from inside a cloud machine."""

_V4: Final = tuple(
    (IPv4Network(network), name)
    for network, name in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "cgnat"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
    )
)

_V6: Final = tuple(
    (IPv6Network(network), name)
    for network, name in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fc00::/7", "private"),
        ("fec0::/10", "private"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
        ("2001:db8::/32", "documentation"),
        ("3fff::/20", "documentation"),
        ("2001:2::/48", "benchmarking"),
        ("2001::/23", "reserved"),
    )
)

_REMEMBERED: Final = 2048  # answers of pure functions: every connection asks several times about the same few addresses
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_COMPATIBLE: Final = IPv6Network("::/96")
_TRANSLATED: Final = IPv6Network("::ffff:0:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL: Final = IPv6Network("64:ff9b:1::/48")
_6TO4: Final = IPv6Network("2002::/16")
_TEREDO: Final = IPv6Network("2001::/32")
_ISATAP: Final = (0x00005EFE, 0x02005EFE)


@lru_cache(maxsize=_REMEMBERED)
def canonical_address(text: str) -> str | None:
    """The one spelling of an address (RFC 5952; v4-mapped becomes the IPv4 address), None where `text` is none.

    Strict: dotted quads of decimal numbers without leading zeros, IPv6 without brackets or zone. The looser forms that
    URLs allow are `agent.policy.hosts`' business.
    """
    address = _parse(text)
    return None if address is None else str(address)


@lru_cache(maxsize=_REMEMBERED)
def address_class(text: str) -> str | None:
    """None where the address is public, else the name of its class (``metadata``, ``loopback``, ``private``, …).

    An IPv6 form with an IPv4 address inside has that address's class. 6to4 and Teredo relays, and the forms that were
    never routed, are ``reserved`` even around a public address; NAT64 (64:ff9b::/96) around a public one is public.
    """
    address = _parse(text)
    if address is None:
        return "invalid"
    if address in METADATA:
        return "metadata"
    if isinstance(address, IPv4Address):
        return _v4_class(address)
    return _v6_class(address)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    if not text.isascii() or "%" in text or "/" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _v4_class(address: IPv4Address) -> str | None:
    if address in METADATA:
        return "metadata"
    return next((name for network, name in _V4 if address in network), None)


def _v6_class(address: IPv6Address) -> str | None:
    found = next((name for network, name in _V6[:2] if address in network), None)
    if found is not None:
        return found
    number = int(address)
    low = IPv4Address(number & 0xFFFFFFFF)
    if address in _NAT64:
        return _v4_class(low)
    if address in _COMPATIBLE or address in _TRANSLATED or address in _NAT64_LOCAL:
        return _v4_class(low) or "reserved"
    if address in _6TO4:
        return _v4_class(IPv4Address(number >> 80 & 0xFFFFFFFF)) or "reserved"
    if address in _TEREDO:
        client, server = IPv4Address(number & 0xFFFFFFFF ^ 0xFFFFFFFF), IPv4Address(number >> 64 & 0xFFFFFFFF)
        return _v4_class(client) or _v4_class(server) or "reserved"
    found = next((name for network, name in _V6 if address in network), None)
    if found is None and address not in _GLOBAL_UNICAST:
        return "reserved"
    if found is None and number >> 32 & 0xFFFFFFFF in _ISATAP:
        return _v4_class(low)
    return found
