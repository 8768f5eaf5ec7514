"""Netlink messages on the real kernel, each in a network namespace of its own."""

from __future__ import annotations

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.linux import namespaces, netlink, process
from tests.conftest import require
from tests.linux.forked import outcome

ELSEWHERE = {socket.AF_INET: ("192.0.2.1", 8080), socket.AF_INET6: ("2001:db8::1", 8080)}


def need_admin() -> None:
    require(process.Capability.SYS_ADMIN in process.capabilities(), "CAP_SYS_ADMIN")


@pytest.mark.parametrize("family", ELSEWHERE)
def test_every_address_is_local_once_it_is_routed_so(family: socket.AddressFamily) -> None:
    need_admin()

    def dial(routed: bool) -> None:
        namespaces.unshare(namespaces.NEWNET)
        namespaces.bring_loopback_up()
        if routed:
            netlink.make_every_address_local(family)
        with socket.socket(family) as server, socket.socket(family) as client:
            server.bind(("", ELSEWHERE[family][1]))
            server.listen()
            client.settimeout(60)
            client.connect(ELSEWHERE[family])
            accepted, client_place = server.accept()
            assert accepted.getsockname()[:2] == ELSEWHERE[family]
            assert client_place[0] == {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}[family]

    assert outcome(lambda: dial(routed=False)) == errno.ENETUNREACH
    assert outcome(lambda: dial(routed=True)) == 0


def test_where_nobody_listens_the_refusal_comes_at_once() -> None:
    need_admin()

    def dial(kind: socket.SocketKind) -> None:
        namespaces.unshare(namespaces.NEWNET)
        namespaces.bring_loopback_up()
        netlink.make_every_address_local(socket.AF_INET)
        with socket.socket(socket.AF_INET, kind) as client:
            client.settimeout(60)
            client.connect(("192.0.2.1", 443))
            client.send(b"x")
            client.recv(1)

    assert outcome(lambda: dial(socket.SOCK_STREAM)) == errno.ECONNREFUSED
    assert outcome(lambda: dial(socket.SOCK_DGRAM)) == errno.ECONNREFUSED


def test_without_the_capability_nothing_changes_and_the_errno_is_the_kernels() -> None:
    need_admin()

    def piece() -> None:
        namespaces.unshare(namespaces.NEWNET)
        namespaces.bring_loopback_up()
        process.drop_capabilities()
        netlink.make_every_address_local(socket.AF_INET)

    assert outcome(piece) == errno.EPERM


@given(st.binary(max_size=200), st.integers(0, 0x7FFF))
def test_an_attribute_says_its_length_and_is_padded(value: bytes, kind: int) -> None:
    made = netlink.attribute(kind, value)
    length, told = struct.unpack_from("=HH", made)
    assert (length, told, made[4:length]) == (4 + len(value), kind, value)
    assert len(made) % 4 == 0
    assert set(made[length:]) <= {0}
