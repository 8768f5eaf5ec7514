"""What listens where, asked of the kernel: the same as /proc says, and the descriptor's own inode."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address

import pytest

from agent.enforce.egress.own_sockets import listeners_in_proc
from agent.linux.sock_diag import connection, listeners, open_link


@pytest.mark.parametrize(
    ("family", "bound", "shown"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0", "0.0.0.0"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::ffff:127.0.0.1", "127.0.0.1"),
    ],
)
def test_a_listener_is_found_by_its_port_with_inode_and_address(family: int, bound: str, shown: str) -> None:
    with socket.socket(family) as server, socket.socket() as idle:
        server.bind((bound, 0))
        idle.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        expected = [(os.fstat(server.fileno()).st_ino, ip_address(shown))]
        assert listeners(port) == listeners_in_proc(port) == expected
        assert listeners(idle.getsockname()[1]) == [], "bound is not listening"
    assert listeners(port) == []


def test_every_listener_of_a_shared_port_is_found() -> None:
    servers = [socket.socket() for _ in range(40)]
    for server in servers:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", servers[0].getsockname()[1]))
        server.listen()
    found = listeners(servers[0].getsockname()[1])
    assert {inode for inode, _ in found} == {os.fstat(server.fileno()).st_ino for server in servers}
    for server in servers:
        server.close()


@pytest.mark.parametrize("target", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_a_connection_is_found_by_its_ends_as_each_side_has_it_and_a_listener_is_none(target: str) -> None:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server, open_link() as link:
        port = server.getsockname()[1]
        with socket.socket(family) as client:
            client.connect((target, port))
            accepted = server.accept()[0]
            ends = (target.removeprefix("::ffff:"), client.getsockname()[1]), (target.removeprefix("::ffff:"), port)
            assert connection(link, *ends) == os.fstat(client.fileno()).st_ino
            assert connection(link, *reversed(ends)) == os.fstat(accepted.fileno()).st_ino
            stranger = (ends[0][0], 1)
            assert connection(link, ends[1], stranger) == 0, "the kernel's answer is the listener"
            accepted.close()
        assert connection(link, *ends) == 0


@pytest.mark.parametrize("end", [("nowhere", 1), ("127.0.0.1", 70000)])
def test_what_is_no_end_is_an_error(end: tuple[str, int]) -> None:
    with open_link() as link, pytest.raises((ValueError, OverflowError)):
        connection(link, end, ("127.0.0.1", 1))
