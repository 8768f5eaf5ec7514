"""Connections and the processes behind them: real sockets of real processes."""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from agent.daemon.egress.attribution import Attribution, Connection, Found, plain_address
from agent.daemon.egress.socket_tables import SocketTables
from agent.linux import sock_diag

CLIENT = """
import socket, sys, time
held = socket.create_connection((sys.argv[1], int(sys.argv[2])))
print(held.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["asked", "listed"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kernel is asked for the one connection, or can't be and lists them all."""
    if request.param == "listed":
        monkeypatch.setattr(sock_diag, "open_link", _no_link)
    else:
        monkeypatch.setattr("agent.daemon.egress.socket_tables._listed_streams", lambda _wanted, _anchor: {})
    return str(request.param)


def _no_link() -> socket.socket:
    raise OSError(errno.EPROTONOSUPPORT, "no sock_diag here")


@pytest.fixture(params=["127.0.0.1", "::1", "::"])
def listener(request: pytest.FixtureRequest, way: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family, dualstack_ipv6=request.param == "::") as made:
        yield made


class Client:
    """A process with one connection, as another user where that is asked."""

    def __init__(self, listener: socket.socket, user: str | None = None, *extra: str) -> None:
        address, port = listener.getsockname()[:2]
        target = "127.0.0.1" if address == "::" else address  # one socket for both families sees the mapped form
        argv = ["/usr/bin/python3", "-c", CLIENT, target, str(port), *extra]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=user, cwd="/")
        self.accepted, peer = listener.accept()
        here = self.accepted.getsockname()
        self.connection = Connection((plain_address(peer[0]), peer[1]), (plain_address(here[0]), here[1]), 5)
        assert self.process.stdout is not None
        assert int(self.process.stdout.readline()) == peer[1]

    def end(self) -> None:
        self.accepted.close()
        self.process.communicate()


async def _told(attribution: Attribution, connection: Connection) -> Found:
    answer: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
    attribution.tell(connection.source, answer.set_result, udp=connection.udp)
    return await asyncio.wait_for(answer, 60)


def _run(ask: Callable[[Attribution], object], anchor: int, uid: int | None = None, gid: int | None = None) -> object:
    async def run() -> object:
        attribution = Attribution(
            lambda: anchor, uid, gid, {os.getuid(): "tester"} if uid is None else {uid: "session"}
        )
        try:
            return await ask(attribution)  # type: ignore[misc]
        finally:
            attribution.stop()

    return asyncio.run(run())


def test_the_process_behind_a_connection(listener: socket.socket) -> None:
    client = Client(listener, None, "--token=ghp_" + "a" * 36)

    async def ask(attribution: Attribution) -> Found:
        attribution.on_look = looked.append
        attribution.opened(client.connection)
        while not (found := await _told(attribution, client.connection)):
            attribution.opened(client.connection)  # a busy machine may take longer than an event waits
        return found

    looked: list[int] = []
    found = _run(ask, client.process.pid)
    client.end()
    assert set(looked) == {5}
    assert isinstance(found, dict)
    assert found["pid"] == client.process.pid
    assert found["ppid"] == os.getpid()
    assert found["user"] == "tester"
    assert str(found["exe"]).startswith("/usr/bin/python3")
    assert found["argv"][:2] == ["/usr/bin/python3", "-c"]
    assert "ghp_" + "a" * 36 not in str(found["argv"])


@pytest.mark.root
def test_another_users_process_is_looked_at_with_its_own_eyes(listener: socket.socket) -> None:
    account = pwd.getpwnam("session")
    client = Client(listener, "session")

    async def ask(attribution: Attribution) -> Found:
        attribution.opened(client.connection)
        while not (found := await _told(attribution, client.connection)):
            attribution.opened(client.connection)
        return found

    found = _run(ask, client.process.pid, account.pw_uid, account.pw_gid)
    client.end()
    assert isinstance(found, dict)
    assert (found["pid"], found["uid"], found["user"]) == (client.process.pid, account.pw_uid, "session")


def test_two_connections_asked_at_once_are_not_mixed_up(listener: socket.socket) -> None:
    clients = [Client(listener) for _ in range(2)]

    async def ask(attribution: Attribution) -> list[Found]:
        found: list[Found] = [{}, {}]
        while not all(found):
            for client in clients:
                attribution.opened(client.connection)
            found = [await _told(attribution, client.connection) for client in clients]
        return found

    found = _run(ask, clients[0].process.pid)
    for client in clients:
        client.end()
    assert isinstance(found, list)
    assert [each["pid"] for each in found] == [client.process.pid for client in clients]


ASKER = """
import socket, sys
held = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
if "shared" in sys.argv:
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("", int(sys.argv[4])))
if "connected" in sys.argv:
    held.connect((sys.argv[1], int(sys.argv[2])))
    held.send(b"x")
else:
    held.sendto(b"x", (sys.argv[1], int(sys.argv[2])))
sys.stdin.read()
"""


def _datagram_from(target: str, how: str, *more: str) -> tuple[subprocess.Popen[bytes], Connection]:
    """A process that has sent a datagram to `target`, and what the receiver knows of it."""
    family = socket.AF_INET6 if target == "::1" else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        port = receiver.getsockname()[1]
        argv = ["/usr/bin/python3", "-c", ASKER, target, str(port), how, *more]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, cwd="/")
        receiver.settimeout(60)
        _, source = receiver.recvfrom(1)
    return process, Connection((plain_address(source[0]), source[1]), ("127.0.0.1", port), 1, udp=True)


async def _look(attribution: Attribution, connection: Connection) -> Found:
    """What one look has found."""
    looked = asyncio.Event()
    attribution.on_look = lambda _: looked.set()
    attribution.opened(connection)
    await asyncio.wait_for(looked.wait(), 60)
    return await _told(attribution, connection)


@pytest.mark.parametrize("how", ["connected", "bound to no address"])
@pytest.mark.parametrize("target", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_the_process_behind_a_datagram(target: str, how: str) -> None:
    process, connection = _datagram_from(target, how)
    found = _run(lambda attribution: _look(attribution, connection), process.pid)
    process.communicate()
    assert isinstance(found, dict)
    assert found["pid"] == process.pid


def test_a_datagram_from_a_port_that_two_sockets_have_names_nobody() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("", 0))
        process, connection = _datagram_from("127.0.0.1", "shared", str(other.getsockname()[1]))
        assert connection.source[1] == other.getsockname()[1]
        assert _run(lambda attribution: _look(attribution, connection), process.pid) == {}
    assert isinstance(found := _run(lambda attribution: _look(attribution, connection), process.pid), dict)
    process.communicate()
    assert found["pid"] == process.pid


def test_a_stream_and_a_datagram_from_one_port_are_not_mixed_up(listener: socket.socket) -> None:
    client = Client(listener)

    async def ask(attribution: Attribution) -> Found:
        return await _look(attribution, replace(client.connection, udp=True))

    assert _run(ask, client.process.pid) == {}
    client.end()


def test_a_client_that_is_gone_leaves_no_name_and_no_error(listener: socket.socket) -> None:
    client = Client(listener)
    anchor = os.getpid()
    client.end()

    async def ask(attribution: Attribution) -> Found:
        attribution.opened(client.connection)
        return await _told(attribution, client.connection)

    assert _run(ask, anchor) == {}


def test_nobody_asked_is_answered_at_once() -> None:
    async def ask(attribution: Attribution) -> list[Found]:
        answers: list[Found] = []
        attribution.tell(("127.0.0.1", 1), answers.append)
        return answers

    assert _run(ask, os.getpid()) == [{}]


def test_who_still_waits_at_the_end_is_answered() -> None:
    async def ask(attribution: Attribution) -> list[Found]:
        answers: list[Found] = []
        attribution.opened(Connection(("127.0.0.1", 1), ("127.0.0.1", 2)))
        attribution.tell(("127.0.0.1", 1), answers.append)
        attribution.stop()
        return answers

    assert _run(ask, os.getpid()) == [{}]


def test_questions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.daemon.egress.attribution.MAX_WAITING", 1)

    async def ask(attribution: Attribution) -> list[Found]:
        answers: list[Found] = []
        attribution.opened(Connection(("127.0.0.1", 1), ("127.0.0.1", 2)))
        attribution.opened(Connection(("127.0.0.1", 3), ("127.0.0.1", 2)))
        attribution.tell(("127.0.0.1", 3), answers.append)
        return answers

    assert _run(ask, os.getpid()) == [{}]


ELSEWHERE = """
import socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
held = socket.create_connection(server.getsockname())
print(held.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.mark.root
@pytest.mark.usefixtures("way")
def test_a_connection_in_another_network_namespace_is_looked_for_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as own:
        ours, place = own.getsockname(), server.getsockname()
        argv = ["unshare", "--net", "/usr/bin/python3", "-c", ELSEWHERE, str(place[1])]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/") as process:
            assert process.stdout is not None
            theirs = ("127.0.0.1", int(process.stdout.readline()))
            tables, before = SocketTables(), os.stat("/proc/thread-self/ns/net").st_ino
            assert list(tables.streams({theirs: place, ours: place}, process.pid)) == [theirs]
            assert os.stat("/proc/thread-self/ns/net").st_ino == before
            assert tables.streams({theirs: place, ours: place}, os.getpid()) == {ours: os.fstat(own.fileno()).st_ino}
            process.communicate()


def test_the_other_end_may_have_been_rewritten_on_the_way() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as own:
        own.bind(("127.0.0.77", 0))  # whose port no connection of another test has
        own.connect(server.getsockname())
        source = own.getsockname()
        found = SocketTables().streams({source: ("192.0.2.1", 443)}, os.getpid())
        assert found == {source: os.fstat(own.fileno()).st_ino}
