"""Capture of every connection, on the real kernel: with the rights of root and with those of a user namespace."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

import pytest

from agent.linux import namespaces, netlink, process, tproxy
from tests.conftest import require
from tests.linux.forked import outcome

PORT = 3129
PATIENCE = 60
IPV6_FREEBIND = 78  # linux/in6.h
V4, V6 = socket.AF_INET, socket.AF_INET6
RIGHTS = {"root": namespaces.NEWNET, "user": namespaces.NEWUSER | namespaces.NEWNET}


def jailed(rights: str, piece: Callable[[socket.socket, socket.socket], None]) -> int:
    """The outcome of `piece` in a namespace whose connections arrive at the two listeners (IPv4, IPv6) it is given."""
    require(process.Capability.SYS_ADMIN in process.capabilities(), "CAP_SYS_ADMIN")

    def child() -> None:
        namespaces.unshare(RIGHTS[rights])
        namespaces.bring_loopback_up()
        for family in (V4, V6):
            netlink.make_every_address_local(family)
        listeners = [tproxy.transparent_listener(family, PORT, 8) for family in (V4, V6)]
        for listener in listeners:
            listener.settimeout(PATIENCE)
        tproxy.capture_tcp(PORT, spare=(53,))
        piece(*listeners)

    return outcome(child)


def dial(family: int, address: tuple[str, int]) -> socket.socket:
    client = socket.socket(family)
    client.settimeout(PATIENCE)
    client.connect(address)
    return client


@pytest.mark.parametrize("rights", RIGHTS)
def test_a_connection_to_any_address_and_port_arrives_and_says_where_it_was_meant_for(rights: str) -> None:
    def piece(four: socket.socket, six: socket.socket) -> None:
        for listener, family, address in (
            (four, V4, ("192.0.2.1", 443)),
            (four, V4, ("10.0.0.1", 1)),
            (four, V4, ("169.254.169.254", 80)),
            (four, V4, ("198.51.100.7", 65535)),
            (four, V6, ("::ffff:192.0.2.2", 8443)),
            (six, V6, ("2001:db8::1", 22)),
        ):
            with dial(family, address) as client:
                accepted, _ = listener.accept()
                host, port = accepted.getsockname()[:2]
                assert (host, port) == (address[0].removeprefix("::ffff:"), address[1])
                client.sendall(b"to")
                assert accepted.recv(8) == b"to"
                accepted.sendall(b"fro")
                assert client.recv(8) == b"fro"

    assert jailed(rights, piece) == 0


@pytest.mark.parametrize("rights", RIGHTS)
def test_loopback_and_spared_ports_are_left_alone(rights: str) -> None:
    def piece(four: socket.socket, six: socket.socket) -> None:
        with socket.create_server(("", 8000)) as own, socket.create_server(("", 53)) as names:
            for server, address in ((own, ("127.0.0.1", 8000)), (own, ("127.9.9.9", 8000)), (names, ("192.0.2.1", 53))):
                with dial(V4, address):
                    assert server.accept()[0].getsockname() == address
        with socket.create_server(("::1", 8000), family=V6) as own, dial(V6, ("::1", 8000)):
            own.accept()
        four.setblocking(False)
        six.setblocking(False)
        for listener in (four, six):
            with pytest.raises(BlockingIOError):
                listener.accept()
        dial(V4, ("127.0.0.1", 9))

    assert jailed(rights, piece) == errno.ECONNREFUSED


@pytest.mark.parametrize("rights", RIGHTS)
def test_a_socket_bound_to_the_destination_takes_no_connection_away(rights: str) -> None:
    def piece(four: socket.socket, six: socket.socket) -> None:
        cases = ((four, V4, "192.0.2.1", 8441), (four, V4, "0.0.0.0", 8442), (six, V6, "2001:db8::1", 8443))
        for listener, family, mine, port in cases:
            with socket.socket(family) as thief:
                for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                    thief.setsockopt(socket.SOL_SOCKET, option, 1)
                if family == V6:  # bind(2) asks for an address of an interface, unless the program says otherwise
                    thief.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
                thief.bind((mine, port))
                thief.listen()
                thief.setblocking(False)
                target = "192.0.2.1" if family == V4 else "2001:db8::1"
                with dial(family, (target, port)):
                    assert listener.accept()[0].getsockname()[:2] == (target, port)
                    with pytest.raises(BlockingIOError):
                        thief.accept()

    assert jailed(rights, piece) == 0


def test_who_has_no_rights_there_can_neither_undo_nor_imitate_it() -> None:
    def piece(four: socket.socket, six: socket.socket) -> None:
        process.drop_capability_bounding_set()
        os.setresuid(65534, 65534, 65534)
        for attempt in (
            lambda: tproxy.capture_tcp(4444),
            lambda: netlink.make_every_address_local(V4),
            lambda: tproxy.transparent_listener(V4, 4444, 1),
            lambda: socket.create_server(("127.0.0.1", 443)),
        ):
            with pytest.raises(PermissionError):
                attempt()
        for reuse in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            with socket.socket() as thief:
                thief.setsockopt(socket.SOL_SOCKET, reuse, 1)
                with pytest.raises(OSError, match="in use"):
                    thief.bind(("127.0.0.1", PORT))
        with dial(V4, ("192.0.2.1", 4444)):
            assert four.accept()[0].getsockname() == ("192.0.2.1", 4444)

    assert jailed("root", piece) == 0
