"""A process under the filter that hands its sockets to the guard, with a real `Connector` behind it: for tests.

The egress process is a listener of the test's own, which reads the header in front of each connection.
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 - the session's side can import nothing any more
import os
import shutil
import socket
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.enforce.commands.supervisor import ExecSupervisor
from agent.enforce.egress.connect import Connector
from agent.enforce.egress.dialling import Doors
from agent.enforce.egress.on_behalf import OnBehalf
from agent.gate import Gate
from agent.policy.model import CommandSection, Layer, Policy
from agent.session import preamble
from agent.session.filter import FilterOptions
from tests.enforce.commands.filtered import GID, UID, Filtered, Finished
from tests.enforce.ring import Recorded, build_request

OPTIONS = FilterOptions(notify_exec=True, jail=False, shared_uid=False, notify_connect=True)
TOKEN = bytes(range(16))
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Forwarded:
    """A connection that arrived at the egress process's door: its header, and what followed it."""

    destination: tuple[str, int]
    source: tuple[str, int]
    pid: int | None
    token: bytes
    sock: socket.socket


def accept(listener: socket.socket) -> Forwarded:
    sock, _ = listener.accept()
    sock.settimeout(PATIENCE_S)
    data = _exactly(sock, 16)
    data += _exactly(sock, int.from_bytes(data[14:16]))
    found = preamble.read(data)
    assert found is not None
    head, _ = found
    return Forwarded(head.destination, head.source, head.pid, head.token, sock)


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        assert part, "the connection ended inside the header"
        data += part
    return data


class World:
    """One session's surroundings. `close` undoes everything. `reachable`: see `OnBehalf`."""

    def __init__(self) -> None:
        self.recorded = Recorded()
        self.forwarded = _listener()
        self.proxy = _listener()
        self.directory = Path(tempfile.mkdtemp(prefix="parhelia-connect-"))
        self.directory.chmod(0o755)
        self.tree = self.directory / "tree"
        self.tree.mkdir()
        os.chown(self.tree, UID, GID)
        self.reachable: tuple[str, ...] = ()
        self._open: list[tuple[Filtered, ExecSupervisor, Connector]] = []

    @property
    def forwarded_port(self) -> int:
        return int(self.forwarded.getsockname()[1])

    @property
    def proxy_port(self) -> int:
        return int(self.proxy.getsockname()[1])

    def start(
        self, act: Callable[[], None] | None = None, argv: tuple[str, ...] = ("/bin/true",), *, opened: bool = True
    ) -> Filtered:
        """A session that does `act`, or becomes `argv`. `opened`: the session has started, as the guard sees it."""
        before = None if act is None else _ending(act)
        session = Filtered(list(argv), cwd=self.tree, options=OPTIONS, before_exec=before)
        policy = Policy(layers=(Layer(source="test", commands=CommandSection()),), digest="d" * 64)
        gate = Gate(lambda: policy, self.recorded, "session:test")
        behalf = OnBehalf(UID, GID, writable=(str(self.tree),), reachable=self.reachable)
        doors = Doors(self.proxy_port, self.forwarded_port, TOKEN)
        connector = Connector(gate.deny, doors, behalf, session_uid=UID, session_gid=GID)
        supervisor = ExecSupervisor(
            session.listener,
            gate,
            build_request,
            session_uid=UID,
            session_gid=GID,
            actor="session:test",
            post=self.recorded.post,
            others=connector.handlers(),
        )
        supervisor.start()
        if opened:
            connector.open()
        self._open.append((session, supervisor, connector))
        session.go()
        return session

    def run(
        self, act: Callable[[], None] | None = None, argv: tuple[str, ...] = ("/bin/true",), *, opened: bool = True
    ) -> Finished:
        return self.start(act, argv, opened=opened).finish()

    @property
    def connector(self) -> Connector:
        """The last session's."""
        return self._open[-1][2]

    def stop_supervising(self) -> None:
        for _, supervisor, _ in self._open:
            supervisor.stop()

    def close(self) -> None:
        for session, supervisor, connector in self._open:
            supervisor.stop()
            session.close()
            connector.close()
        self.forwarded.close()
        self.proxy.close()
        shutil.rmtree(self.directory)


def say(*words: object) -> None:
    """One line of the session's output."""
    os.write(1, (" ".join(str(word) for word in words) + "\n").encode())


def outcome(call: Callable[[], object]) -> str:
    """``ok``, or the name of the errno."""
    try:
        call()
    except OSError as error:
        return os.strerror(error.errno or 0)
    return "ok"


def _ending(act: Callable[[], None]) -> Callable[[], None]:
    def piece() -> None:
        try:
            act()
        except BaseException:
            with contextlib.suppress(Exception):
                os.write(2, traceback.format_exc().encode())
            os._exit(99)
        os._exit(0)

    return piece


def _listener() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(PATIENCE_S)
    return listener
