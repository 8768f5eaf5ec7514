"""Attacks on connections without a network namespace: swaps, options, other kinds of socket, a guard that is gone."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import threading

import pytest

from agent.enforce.egress import dialling
from agent.linux.syscalls import syscall
from tests.enforce.commands.filtered import UID
from tests.enforce.egress.connected import World, accept, outcome, say
from tests.enforce.egress.test_connect import EACCES, OUTSIDE, REFUSED


def test_swapping_the_descriptor_and_the_address_leads_nowhere_else(world: World) -> None:
    """A sibling thread swaps descriptor and sockaddr all the time: whatever was read, nothing connects by itself."""
    with socket.create_server(("127.0.0.1", 0)) as sidecar:
        port = sidecar.getsockname()[1]
        sidecar.settimeout(0.2)
        proxy = world.proxy_port

        def act() -> None:
            good = struct.pack("=H", 2) + struct.pack("!H", proxy) + bytes([127, 0, 0, 1]) + bytes(8)
            bad = struct.pack("=H", 2) + struct.pack("!H", port) + bytes([127, 0, 0, 1]) + bytes(8)
            address = ctypes.create_string_buffer(good, 16)
            stop = threading.Event()

            def swap() -> None:
                while not stop.is_set():
                    ctypes.memmove(address, bad, 16)
                    ctypes.memmove(address, good, 16)

            thread = threading.Thread(target=swap)
            thread.start()
            done = 0
            for _ in range(200):
                inet, other = socket.socket(), socket.socket()
                with contextlib.suppress(OSError):
                    syscall("connect", inet.fileno(), address, 16)
                    os.dup2(other.fileno(), inet.fileno())
                    done += 1
                inet.close()
                other.close()
            stop.set()
            thread.join()
            say(done > 0)

        session = world.start(act)
        drained = threading.Event()
        threads = [
            threading.Thread(target=_drain, args=(listener, drained)) for listener in (world.forwarded, world.proxy)
        ]
        for thread in threads:
            thread.start()
        finished = session.finish()
        drained.set()
        for thread in threads:
            thread.join()
        assert finished.out == "True\n"
        with pytest.raises(TimeoutError):
            sidecar.accept()


def _drain(listener: socket.socket, until: threading.Event) -> None:
    listener.settimeout(0.05)
    while not until.is_set():
        with contextlib.suppress(TimeoutError):
            listener.accept()[0].close()


@pytest.mark.parametrize(
    ("level", "option", "value"),
    [
        (socket.SOL_SOCKET, 25, b"lo"),  # SO_BINDTODEVICE
        (socket.SOL_SOCKET, 62, b"\1\0\0\0"),  # SO_BINDTOIFINDEX
        (0, 4, bytes([131, 7, 4, 192, 0, 2, 7, 0])),  # IP_OPTIONS: loose source route by 192.0.2.7 (RFC 791)
        (6, 30, b"\1\0\0\0"),  # TCP_FASTOPEN_CONNECT
        (41, 57, bytes([0, 2, 4, 0]) + bytes(4) + bytes(16)),  # IPV6_RTHDR: a segment routing header (RFC 8754)
    ],
)
def test_no_socket_option_leads_a_connection_to_another_host(
    world: World, level: int, option: int, value: bytes
) -> None:
    def act() -> None:
        with socket.socket(socket.AF_INET6 if level == 41 else socket.AF_INET) as sock:
            say(outcome(lambda: sock.setsockopt(level, option, value)))

    assert world.run(act).out.strip() == os.strerror(errno.EPERM)


def test_fast_open_is_refused(world: World) -> None:
    def act() -> None:
        with socket.socket() as sock:
            say(outcome(lambda: sock.sendto(b"x", 0x20000000, (OUTSIDE, 80))))

    assert world.run(act).out.strip() == EACCES


def test_a_connected_socket_cannot_be_led_elsewhere(world: World) -> None:
    def act() -> None:
        with socket.socket() as sock:
            sock.connect((OUTSIDE, 80))
            say(outcome(lambda: sock.connect((OUTSIDE, 81))))
            say(outcome(lambda: syscall("connect", sock.fileno(), bytes(16), 16)))
            say(outcome(lambda: sock.connect((OUTSIDE, 81))))

    session = world.start(act)
    arrived = accept(world.forwarded)
    name = os.strerror(errno.EISCONN)
    assert session.finish().out.splitlines() == [name] * 3
    assert arrived.destination == (OUTSIDE, 80)


def test_a_socket_that_came_from_elsewhere_cannot_be_connected_and_it_is_said(world: World) -> None:
    foreign = socket.socket()
    number = foreign.fileno()

    def act() -> None:
        sock = socket.socket(fileno=number)
        say(outcome(lambda: sock.connect((OUTSIDE, 80))))
        say(outcome(lambda: sock.bind(("0.0.0.0", 0))), outcome(sock.listen))

    assert world.run(act).out.splitlines() == [EACCES, f"{EACCES} {EACCES}"]
    assert world.recorded.seen() == [("?", "socket-unknown")] * 3
    foreign.close()


def test_two_servers_on_one_port_are_not_the_sessions_own(world: World) -> None:
    """SO_REUSEPORT: a service of the session's own user outside shares its port, so the kernel may choose either."""
    sidecar = socket.socket()
    os.setresuid(-1, UID, -1)
    try:
        sidecar.close()
        sidecar = socket.socket()
        sidecar.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sidecar.bind(("127.0.0.1", 0))
    finally:
        os.setresuid(-1, 0, -1)
    sidecar.listen()
    port = sidecar.getsockname()[1]

    def act() -> None:
        with socket.socket() as server, socket.socket() as client:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            server.bind(("127.0.0.1", port))
            server.listen()
            say("listening")
            client.connect(("127.0.0.1", port))
            client.recv(1)

    session = world.start(act)
    arrived = accept(world.forwarded)
    assert arrived.destination == ("127.0.0.1", port)
    arrived.sock.close()
    assert session.finish().out == "listening\n"
    sidecar.close()


def test_ports_of_the_machine_are_not_the_sessions(world: World) -> None:
    def act() -> None:
        with socket.socket() as sock:
            say(outcome(lambda: sock.bind(("127.0.0.1", 7))))

    expected = "ok" if dialling.unprivileged_from() <= 7 else EACCES
    assert world.run(act).out.strip() == expected


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_RAW])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_no_other_kind_of_socket_is_made(world: World, family: int, kind: int) -> None:
    def act() -> None:
        say(outcome(lambda: socket.socket(family, kind)))
        if family == socket.AF_UNIX:
            say(outcome(lambda: socket.socketpair(family, kind)))

    assert set(world.run(act).out.splitlines()) == {EACCES}


def test_interfaces_can_be_listed(world: World) -> None:
    def act() -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
            sock.bind((0, 0))
            sock.send(struct.pack("=IHHIIB3x", 20, 18, 0x301, 1, 0, 0))  # RTM_GETLINK, rtnetlink(7)
            say(len(sock.recv(65536)) > 20)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
            say(outcome(lambda: sock.connect((4242, 0))), outcome(lambda: sock.connect((0, 0))))

    assert world.run(act).out.splitlines() == ["True", f"{os.strerror(errno.EPERM)} ok"]


def test_a_full_door_refuses_and_the_socket_stays_usable(world: World) -> None:
    world.forwarded.listen(0)
    fillers = [socket.socket() for _ in range(3)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.1", world.forwarded_port))

    def act() -> None:
        with socket.socket() as sock:
            say(outcome(lambda: sock.connect((OUTSIDE, 80))))
            say(sock.getsockname())

    assert world.run(act).out.splitlines()[0] == REFUSED
    for filler in fillers:
        filler.close()


def test_when_the_guard_is_gone_nothing_is_made(world: World) -> None:
    ours, theirs = socket.socketpair()

    def act() -> None:
        sock = socket.socket()
        theirs.send(b"r")
        theirs.recv(1)
        say(outcome(lambda: sock.connect((OUTSIDE, 80))))
        say(outcome(socket.socket))

    session = world.start(act)
    ours.recv(1)
    world.stop_supervising()
    ours.send(b"g")
    assert session.finish().out.splitlines() == [os.strerror(errno.ENOSYS)] * 2
