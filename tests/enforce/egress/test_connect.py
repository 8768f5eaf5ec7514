"""Connections, binds and listens of real processes under the session's real filter, decided by notification."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import select
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from agent.enforce.egress import dialling
from agent.linux import landlock, seccomp
from agent.linux.syscalls import syscall
from agent.record.event import EventType, Result
from tests.conftest import require
from tests.enforce.commands.filtered import UID
from tests.enforce.egress.connected import TOKEN, World, accept, outcome, say

EACCES, REFUSED = os.strerror(errno.EACCES), os.strerror(errno.ECONNREFUSED)
OUTSIDE = "192.0.2.7"  # TEST-NET-1, RFC 5737
OUTSIDE6 = "2001:db8::7"  # RFC 3849


@pytest.fixture(autouse=True)
def _needs() -> None:
    require(os.geteuid() == 0, "root, to give the session a uid of its own")
    require(seccomp.socket_making_available(), "seccomp user notification with ADDFD_FLAG_SEND")


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


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


# --- attacks


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


# --- UNIX sockets


def test_unix_sockets_of_the_session_work_and_show_its_user(world: World) -> None:
    def act() -> None:
        os.umask(0o027)
        for name in ("relative.sock", str(world.tree / "absolute.sock"), "\0abstract-of-the-test"):
            server, client = (socket.socket(socket.AF_UNIX) for _ in range(2))
            server.bind(name)
            server.listen()
            client.connect(name)
            accepted, _ = server.accept()
            client.sendall(b"x")
            seen = [struct.unpack("3i", end.getsockopt(1, 17, 12))[1:] for end in (client, accepted)]
            say(accepted.recv(1), server.getsockname(), *seen)
        say(oct(os.stat("relative.sock").st_mode), os.stat("relative.sock").st_uid)

    finished = world.run(act)
    assert finished.err == ""
    user = f"({UID}, {UID})"
    assert [line.split(" ", 1)[0] for line in finished.out.splitlines()] == ["b'x'"] * 3 + ["0o140750"]
    assert all(line.endswith(f"{user} {user}") for line in finished.out.splitlines()[:3])
    assert finished.out.splitlines()[3].endswith(f" {UID}")


def test_a_socket_outside_the_writable_trees_is_refused_by_any_path_and_said(world: World) -> None:
    outside = world.directory / "machine.sock"
    with socket.socket(socket.AF_UNIX) as machine:
        machine.bind(str(outside))
        outside.chmod(0o777)
        machine.listen()
        (world.tree / "link").symlink_to(outside)

        def act() -> None:
            for path in (str(outside), "../machine.sock", "link", f"/proc/self/root{outside}"):
                with socket.socket(socket.AF_UNIX) as sock:
                    say(outcome(lambda sock=sock, path=path: sock.connect(path)))

        assert world.run(act).out.splitlines() == [EACCES] * 4
        assert world.recorded.seen() == [(f"unix:{outside}", "unix-socket")] * 4
        machine.settimeout(0.1)
        with pytest.raises(TimeoutError):
            machine.accept()
        world.reachable = (str(outside),)

        def allowed() -> None:
            with socket.socket(socket.AF_UNIX) as sock:
                say(outcome(lambda: sock.connect("link")))

        assert world.run(allowed).out.strip() == "ok"


def test_the_process_behind_a_unix_connection_is_known_afterwards(world: World) -> None:
    path = str(world.directory / "agent.sock")
    world.reachable = (path,)
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(path)
        os.chmod(path, 0o666)
        agent.listen()

        def act() -> None:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
                say(os.getpid())

        finished = world.run(act)
        pid, uid, _ = struct.unpack("3i", agent.accept()[0].getsockopt(1, 17, 12))
    assert (world.connector.behind(pid), uid) == (int(finished.out), UID)
    assert world.connector.behind(1) == 1


def test_an_abstract_name_that_the_session_did_not_bind_is_refused_and_said(world: World) -> None:
    with socket.socket(socket.AF_UNIX) as machine:
        machine.bind("\0parhelia-of-the-machine")
        machine.listen()

        def act() -> None:
            with socket.socket(socket.AF_UNIX) as sock:
                say(outcome(lambda: sock.connect("\0parhelia-of-the-machine")))

        assert world.run(act).out.strip() == REFUSED
    assert world.recorded.seen() == [("unix:@parhelia-of-the-machine", "unix-socket")]


def test_no_socket_is_bound_outside_the_writable_trees(world: World) -> None:
    open_to_all = world.directory / "everybodys"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)

    def act() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            say(outcome(lambda: sock.bind(str(open_to_all / "s"))))
        with socket.socket(socket.AF_UNIX) as sock:
            say(outcome(lambda: sock.bind("/proc/self/cwd/../everybodys/s")))

    assert world.run(act).out.splitlines() == [EACCES] * 2
    assert list(open_to_all.iterdir()) == []
    assert {rule for _, rule in world.recorded.seen()} == {"unix-socket"}


def test_swapping_a_link_under_a_bind_leads_nowhere_else(world: World) -> None:
    """The directory is judged, then swapped for a link to one that everybody may write: Landlock has the last word."""
    require(landlock.abi() >= 1, "Landlock")
    open_to_all = world.directory / "everybodys"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)

    def act() -> None:
        os.mkdir("good")
        os.symlink("good", "here")
        stop = threading.Event()

        def swap() -> None:
            while not stop.is_set():
                for target in (str(open_to_all), "good"):
                    os.symlink(target, "next")
                    os.rename("next", "here")

        thread = threading.Thread(target=swap)
        thread.start()
        for count in range(60):
            with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
                sock.bind(f"here/{count}")
        stop.set()
        thread.join()
        say(len(os.listdir("good")) > 0)

    assert world.run(act).out.strip() == "True"
    assert list(open_to_all.iterdir()) == []
