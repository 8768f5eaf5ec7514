"""Connections, binds and listens of real processes under the session's real filter, decided by notification."""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import struct

import pytest

from agent.linux.syscalls import syscall
from agent.record.event import EventType, Result
from tests.enforce.commands.filtered import UID
from tests.enforce.egress.connected import TOKEN, World, accept, outcome, say

EACCES, REFUSED = os.strerror(errno.EACCES), os.strerror(errno.ECONNREFUSED)
OUTSIDE = "192.0.2.7"  # TEST-NET-1, RFC 5737
OUTSIDE6 = "2001:db8::7"  # RFC 3849


def test_a_connection_to_outside_reaches_the_egress_process_with_its_destination(world: World) -> None:
    def act() -> None:
        with socket.socket() as sock:
            sock.connect((OUTSIDE, 443))
            say(os.getpid(), *sock.getsockname())
            sock.sendall(b"hello")
            say(sock.recv(10))

    session = world.start(act)
    arrived = accept(world.forwarded)
    assert (arrived.destination, arrived.token) == ((OUTSIDE, 443), TOKEN)
    assert arrived.sock.recv(10) == b"hello"
    arrived.sock.sendall(b"world")
    finished = session.finish()
    pid, host, port = finished.out.splitlines()[0].split()
    assert (arrived.pid, arrived.source) == (int(pid), (host, int(port)))
    assert finished.out.splitlines()[1] == "b'world'"
    assert world.recorded.events == [], "the egress process decides, and records"


@pytest.mark.parametrize(
    ("family", "written", "meant"),
    [
        (socket.AF_INET, OUTSIDE, OUTSIDE),
        (socket.AF_INET6, OUTSIDE6, OUTSIDE6),
        (socket.AF_INET6, f"::ffff:{OUTSIDE}", OUTSIDE),
        (socket.AF_INET, "127.0.0.11", "127.0.0.11"),
        (socket.AF_INET, "0.0.0.0", "127.0.0.1"),
        (socket.AF_INET6, "::", "::1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::ffff:0.0.0.0", "127.0.0.1"),
    ],
)
def test_every_form_of_address_arrives_as_what_it_means(world: World, family: int, written: str, meant: str) -> None:
    def act() -> None:
        with socket.socket(family) as sock:
            sock.connect((written, 53))
            sock.recv(1)

    session = world.start(act)
    arrived = accept(world.forwarded)
    assert arrived.destination == (meant, 53)
    arrived.sock.close()
    assert session.finish().status == 0


def test_a_service_on_loopback_that_is_not_the_sessions_is_outside(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sidecar:
        port = sidecar.getsockname()[1]
        sidecar.settimeout(0.2)

        def act() -> None:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.recv(1)

        session = world.start(act)
        arrived = accept(world.forwarded)
        assert arrived.destination == ("127.0.0.1", port)
        arrived.sock.close()
        assert session.finish().status == 0
        with pytest.raises(TimeoutError):
            sidecar.accept()


def test_the_proxy_is_reached_without_a_header(world: World) -> None:
    port = world.proxy_port

    def act() -> None:
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::ffff:127.0.0.1")):
            with socket.socket(family) as sock:
                sock.connect((host, port))
                sock.sendall(b"CONNECT")

    session = world.start(act)
    for _ in range(2):
        sock, _ = world.proxy.accept()
        assert sock.recv(7) == b"CONNECT"
    assert session.finish().status == 0


def test_the_door_for_forwarded_connections_is_closed_to_the_session_and_said(world: World) -> None:
    port = world.forwarded_port

    def act() -> None:
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::ffff:127.0.0.1")):
            with socket.socket(family) as sock:
                say(outcome(lambda sock=sock, host=host: sock.connect((host, port))))

    assert world.run(act).out.splitlines() == [EACCES, EACCES]
    first, _ = world.recorded.events
    assert world.recorded.seen() == [(f"127.0.0.1:{port}", "connect-agent")] * 2
    assert (first.type, first.result) == (EventType.NETWORK_EGRESS_BLOCKED, Result.DENIED)
    assert first.details["mechanism"] == "connect"
    assert first.details["uid"] == UID
    assert first.details["argv"]


def test_the_sessions_own_servers_are_reached_and_are_on_loopback_only(world: World) -> None:
    def act() -> None:
        for family, wanted, host in (
            (socket.AF_INET, "0.0.0.0", "127.0.0.1"),
            (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
            (socket.AF_INET6, "::", "::1"),
            (socket.AF_INET6, "::", "127.0.0.1"),
            (socket.AF_INET6, "::1", "::1"),
        ):
            server = socket.socket(family)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((wanted, 0))
            server.listen()
            port = server.getsockname()[1]
            with socket.create_connection((host, port)) as client:
                accepted, _ = server.accept()
                client.sendall(b"x")
                say(server.getsockname()[0], accepted.recv(1))

    finished = world.run(act)
    assert finished.err == ""
    names = [line.split()[0] for line in finished.out.splitlines()]
    assert names == ["127.0.0.1", "127.0.0.1", "::ffff:127.0.0.1", "::ffff:127.0.0.1", "::1"]


def test_listening_without_a_bind_is_on_loopback(world: World) -> None:
    def act() -> None:
        for family in (socket.AF_INET, socket.AF_INET6):
            with socket.socket(family) as server:
                server.listen()
                say(server.getsockname()[0])

    assert world.run(act).out.splitlines() == ["127.0.0.1", "::ffff:127.0.0.1"]


def test_no_address_but_loopback_can_be_bound_and_it_is_said(world: World) -> None:
    def act() -> None:
        with socket.socket() as sock:
            say(outcome(lambda: sock.bind((OUTSIDE, 8080))))
        with socket.socket() as sock:
            sock.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
            say(outcome(lambda: sock.bind((OUTSIDE, 8080))))

    assert world.run(act).out.splitlines() == [os.strerror(errno.EADDRNOTAVAIL)] * 2
    assert world.recorded.seen() == [(f"{OUTSIDE}:8080", "listen-outside")] * 2


def test_a_port_that_was_only_looked_for_can_be_bound_again(world: World) -> None:
    def act() -> None:
        for _ in range(3):
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
                port = sock.getsockname()[1]
            with socket.socket() as again:
                again.bind(("127.0.0.1", port))
                again.listen()
                say(outcome(lambda again=again: again.getsockname()))

    assert world.run(act).out.splitlines() == ["ok"] * 3


def test_a_port_that_is_in_use_is_in_use(world: World) -> None:
    def act() -> None:
        one, two = socket.socket(), socket.socket()
        one.bind(("127.0.0.1", 0))
        say(outcome(lambda: two.bind(one.getsockname())))
        one.listen()
        say(outcome(lambda: two.bind(one.getsockname())))

    assert world.run(act).out.splitlines() == [os.strerror(errno.EADDRINUSE)] * 2


def test_a_server_that_ended_is_gone(world: World) -> None:
    def act() -> None:
        server = socket.create_server(("127.0.0.1", 0))
        name = server.getsockname()
        server.close()
        with socket.socket() as sock:
            sock.connect(name)
            say(sock.recv(1))

    session = world.start(act)
    accept(world.forwarded).sock.close()  # nobody of the session's listens: outside, and for the policy to decide
    assert session.finish().out == "b''\n"


def test_the_sockets_own_options_flags_and_copies_are_kept(world: World) -> None:
    def act() -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        copy = os.dup(sock.fileno())
        epoll = select.epoll()
        epoll.register(sock.fileno(), select.EPOLLOUT | select.EPOLLIN | select.EPOLLET)
        while epoll.poll(0):  # an unconnected socket hangs up
            pass
        code = sock.connect_ex((OUTSIDE, 80))
        say(code in (0, errno.EINPROGRESS), bool(epoll.poll(5)))
        say(os.get_inheritable(sock.fileno()), os.get_blocking(copy), sock.getsockopt(socket.SOL_SOCKET, 9))
        os.write(copy, b"through the copy")
        say(struct.unpack("ll", sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16)))

    session = world.start(act)
    assert accept(world.forwarded).sock.recv(30) == b"through the copy"
    assert session.finish().out.splitlines() == ["True True", "False False 1", "(0, 0)"]


def test_errors_are_those_of_the_kernel(world: World) -> None:
    def act() -> None:
        sock, pipe = socket.socket(), os.pipe()[0]
        good = struct.pack("=H", 2) + b"\0\x50" + bytes([192, 0, 2, 7]) + bytes(8)
        say(outcome(lambda: syscall("connect", 999, good, 16)))
        say(outcome(lambda: syscall("connect", pipe, good, 16)))
        say(outcome(lambda: syscall("connect", sock.fileno(), 8, 16)))
        say(outcome(lambda: syscall("connect", sock.fileno(), good, 7)))
        say(outcome(lambda: syscall("connect", sock.fileno(), good, -1)))
        say(outcome(lambda: syscall("connect", sock.fileno(), struct.pack("=H", 10) + bytes(26), 28)))
        say(outcome(lambda: syscall("socket", 2, 1 | 0x10000, 0)))

    names = ["EBADF", "ENOTSOCK", "EACCES", "EINVAL", "EINVAL", "EAFNOSUPPORT", "EINVAL"]
    assert world.run(act).out.splitlines() == [os.strerror(getattr(errno, name)) for name in names]


def test_a_descriptor_limit_is_the_sessions_own(world: World) -> None:
    def act() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))
        say(outcome(lambda: [socket.socket() for _ in range(16)]))

    assert world.run(act).out.strip() == os.strerror(errno.EMFILE)


def test_before_the_session_starts_nothing_connects(world: World) -> None:
    def act() -> None:
        with socket.socket() as sock:
            say(outcome(lambda: sock.connect((OUTSIDE, 80))))

    assert world.run(act, opened=False).out.strip() == EACCES
    assert world.recorded.events == []
