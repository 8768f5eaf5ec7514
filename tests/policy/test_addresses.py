"""Classes of addresses, over every form that can carry one."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.addresses import METADATA, address_class, canonical_address

CLASSES = [
    ("8.8.8.8", None),
    ("100.63.255.254", None),
    ("100.128.0.1", None),
    ("172.32.0.1", None),
    ("2606:4700:4700::1111", None),
    ("64:ff9b::808:808", None),
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "unspecified"),
    ("10.255.0.1", "private"),
    ("172.16.0.1", "private"),
    ("192.168.1.1", "private"),
    ("100.64.0.1", "cgnat"),
    ("100.127.255.255", "cgnat"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("169.254.1.1", "link-local"),
    ("192.0.0.8", "reserved"),
    ("192.0.2.1", "documentation"),
    ("198.51.100.1", "documentation"),
    ("203.0.113.1", "documentation"),
    ("198.18.0.1", "benchmarking"),
    ("224.0.0.1", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "broadcast"),
    ("169.254.169.254", "metadata"),
    ("169.254.170.2", "metadata"),
    ("100.100.100.200", "metadata"),
    ("168.63.129.16", "metadata"),
    ("192.0.0.192", "metadata"),
    ("fd00:ec2::254", "metadata"),
    ("fd20:ce::254", "metadata"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("fe80::1", "link-local"),
    ("fc00::1", "private"),
    ("fd12:3456::1", "private"),
    ("fec0::1", "private"),
    ("ff02::1", "multicast"),
    ("2001:db8::1", "documentation"),
    ("3fff::1", "documentation"),
    ("2001:2::1", "benchmarking"),
    ("2001:10::1", "reserved"),
    ("100::1", "reserved"),
    ("64:ff9c::1", "reserved"),
    ("4000::1", "reserved"),
    # forms with an IPv4 address inside
    ("::ffff:127.0.0.1", "loopback"),
    ("::ffff:a9fe:a9fe", "metadata"),
    ("::ffff:8.8.8.8", None),
    ("::7f00:1", "loopback"),
    ("::8.8.8.8", "reserved"),
    ("::ffff:0:a00:1", "private"),
    ("64:ff9b::a9fe:a9fe", "metadata"),
    ("64:ff9b::a00:1", "private"),
    ("64:ff9b:1::a00:1", "private"),
    ("64:ff9b:1::808:808", "reserved"),
    ("2002:7f00:1::1", "loopback"),
    ("2002:a9fe:a9fe::", "metadata"),
    ("2002:808:808::1", "reserved"),
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "documentation"),
    ("2001:0:7f00:1:0:0:f7f7:f7f7", "loopback"),
    ("2001::f7f7:f7f7", "unspecified"),
    ("2607:f8b0::5efe:7f00:1", "loopback"),
    ("2607:f8b0::200:5efe:a00:1", "private"),
    # no addresses
    ("", "invalid"),
    ("example.com", "invalid"),
    ("1.2.3", "invalid"),
    ("01.2.3.4", "invalid"),
    ("1.2.3.4%eth0", "invalid"),
    ("fe80::1%eth0", "invalid"),
    ("10.0.0.0/8", "invalid"),
    ("١.2.3.4", "invalid"),
]


@pytest.mark.parametrize(("text", "expected"), CLASSES)
@pytest.mark.row(17, 18, 21)
def test_an_address_has_the_class_of_what_it_reaches(text: str, expected: str | None) -> None:
    assert address_class(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::FFFF:7F00:1", "127.0.0.1"),
        ("2001:0DB8:0::1", "2001:db8::1"),
        ("1.2.3.4", "1.2.3.4"),
        ("0177.0.0.1", None),
        ("[::1]", None),
        ("fe80::1%1", None),
        ("", None),
    ],
)
def test_every_address_has_one_spelling(text: str, expected: str | None) -> None:
    assert canonical_address(text) == expected


def test_every_metadata_address_is_named_as_one() -> None:
    assert {address_class(str(address)) for address in METADATA} == {"metadata"}


@given(st.ip_addresses(v=4))
def test_wrapping_an_address_never_makes_it_more_public(address: IPv4Address) -> None:
    plain = address_class(str(address))
    number = int(address)
    wrapped = (
        IPv6Address(0xFFFF << 32 | number),
        IPv6Address(number),
        IPv6Address(0x64FF9B << 96 | number),
        IPv6Address(0x2002 << 112 | number << 80 | 1),
        IPv6Address(0x20010000 << 96 | 0x08080808 << 64 | number ^ 0xFFFFFFFF),
    )
    for form in wrapped:
        if plain is not None:
            assert address_class(str(form)) is not None, form


@given(st.ip_addresses())
def test_what_python_calls_private_is_never_public_here(address: IPv4Address | IPv6Address) -> None:
    if address_class(str(address)) is None and canonical_address(str(address)) == str(address):
        assert address.is_global


@given(st.text(max_size=60))
def test_no_text_makes_the_classifier_fail_or_turns_public_by_accident(text: str) -> None:
    if canonical_address(text) is None:
        assert address_class(text) == "invalid"
