"""The doors of a jail, in real network namespaces."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.linux import namespaces, process, seccomp
from agent.session import filter, jail
from agent.session.doors import Capture, Door
from tests.conftest import require
from tests.linux.forked import outcome

PROXY_PORT = 3128
ALL = (Door.PROXY, Door.CAPTURE, Door.DNS_UDP, Door.DNS_TCP)
ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
PATIENCE = 60


def in_namespace(piece: Callable[[], None]) -> int:
    require(process.Capability.SYS_ADMIN in process.capabilities(), "CAP_SYS_ADMIN")

    def child() -> None:
        namespaces.unshare(namespaces.NEWNET)
        namespaces.bring_loopback_up()
        piece()

    return outcome(child)


def arrives(listener: socket.socket, address: str, port: int) -> None:
    """A client's first bytes come through `listener`, under the destination's name."""
    listener.settimeout(PATIENCE)
    with socket.socket(listener.family, listener.type) as client:
        client.settimeout(PATIENCE)
        client.connect((address, port))
        client.send(b"hello")
        if listener.type == socket.SOCK_DGRAM:
            assert listener.recv(16) == b"hello"
            return
        accepted, _ = listener.accept()
        assert accepted.getsockname()[:2] == (address, port)


def test_every_connection_and_every_question_to_a_name_server_arrives_at_its_door() -> None:
    def piece() -> None:
        opened = jail.open_doors(ALL, Capture.EVERY_PORT, PROXY_PORT)
        assert [door for door, _ in opened] == [
            *(Door.PROXY, Door.CAPTURE, Door.CAPTURE),
            *(Door.DNS_TCP, Door.DNS_UDP, Door.DNS_TCP, Door.DNS_UDP),
        ]
        for door, listener in opened:
            elsewhere = ELSEWHERE[listener.family]
            match door:
                case Door.PROXY:
                    arrives(listener, "127.0.0.1", PROXY_PORT)
                case Door.CAPTURE:
                    arrives(listener, elsewhere, 443)
                    arrives(listener, elsewhere, 54321)
                case _:
                    arrives(listener, elsewhere, 53)
                    arrives(listener, "127.0.0.53" if listener.family == socket.AF_INET else "::1", 53)

    assert in_namespace(piece) == 0


def test_without_capture_of_every_port_the_common_ones_are_listened_on() -> None:
    def piece() -> None:
        opened = jail.open_doors([Door.CAPTURE], Capture.COMMON_PORTS, PROXY_PORT)
        assert len(opened) == 2 * len(jail.COMMON_PORTS)
        for _, listener in opened:
            arrives(listener, ELSEWHERE[listener.family], listener.getsockname()[1])
        with socket.socket() as client:
            client.connect(("192.0.2.1", 8443))

    assert in_namespace(piece) == errno.ECONNREFUSED


def test_without_any_capture_there_is_no_way_anywhere() -> None:
    def piece() -> None:
        opened = jail.open_doors(ALL, Capture.NONE, PROXY_PORT)
        assert Door.CAPTURE not in {door for door, _ in opened}
        with socket.socket() as client:
            client.connect(("192.0.2.1", 443))

    assert in_namespace(piece) == errno.ENETUNREACH


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "192.0.2.1", "127.0.0.53"])
def test_no_door_can_be_shared_or_taken(kind: socket.SocketKind, address: str) -> None:
    """Even by who may use low ports."""

    def piece() -> None:
        opened = jail.open_doors(ALL, Capture.EVERY_PORT, PROXY_PORT)
        taken = {listener.getsockname()[1] for _, listener in opened if listener.type == kind}
        assert taken == ({53} if kind == socket.SOCK_DGRAM else {53, jail.CAPTURE_PORT, PROXY_PORT})
        for port in taken if address in ("127.0.0.1", "0.0.0.0") else {53}:
            for options in ((), (socket.SO_REUSEADDR,), (socket.SO_REUSEPORT,)):
                with socket.socket(socket.AF_INET, kind) as thief:
                    for option in options:
                        thief.setsockopt(socket.SOL_SOCKET, option, 1)
                    with pytest.raises(OSError, match="in use"):
                        thief.bind((address, port))

    assert in_namespace(piece) == 0


def test_a_jail_without_ipv6_has_the_other_doors() -> None:
    def piece() -> None:
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
        assert jail.families() == [socket.AF_INET]
        assert jail.best_capture() is Capture.EVERY_PORT
        opened = jail.open_doors(ALL, Capture.EVERY_PORT, PROXY_PORT)
        assert {listener.family for _, listener in opened} == {socket.AF_INET}
        with socket.socket(socket.AF_INET6) as client:
            assert client.connect_ex((ELSEWHERE[socket.AF_INET6], 443)) in (errno.ENETUNREACH, errno.EADDRNOTAVAIL)

    assert in_namespace(piece) == 0


def test_the_best_capture_is_found_by_trying() -> None:
    def without_rights() -> None:
        process.drop_capabilities()
        assert jail.best_capture() is Capture.NONE

    def with_rights() -> None:
        assert jail.best_capture() is Capture.EVERY_PORT

    assert in_namespace(with_rights) == 0
    assert in_namespace(without_rights) == 0


def test_a_door_that_cannot_be_opened_is_an_error_and_leaves_no_socket() -> None:
    def piece() -> None:
        with socket.create_server(("", 53)):
            before = os.listdir("/proc/self/fd")
            with pytest.raises(OSError, match="in use"):
                jail.open_doors(ALL, Capture.NONE, PROXY_PORT)
            assert os.listdir("/proc/self/fd") == before

    assert in_namespace(piece) == 0


def test_where_the_kernel_answers_no_nftables_the_common_ports_are_found() -> None:
    """Shown with the session's own filter, which lets netlink reach routes only."""

    def piece() -> None:
        process.set_no_new_privs()
        seccomp.install(filter.build(filter.FilterOptions(notify_exec=False, jail=True)))
        assert jail.best_capture() is Capture.COMMON_PORTS

    assert in_namespace(piece) == 0
