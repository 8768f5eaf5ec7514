"""The control socket: who is served, who is recorded, and that hostile callers hold nobody but themselves."""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
import stat
import struct
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.base.names import control_link, control_socket
from agent.daemon.control.callers import Caller, Callers
from agent.daemon.control.events import ControlEvents
from agent.daemon.control.link import ControlLink
from agent.daemon.control.server import MAX_CONNECTIONS, ControlServer, Verb
from agent.daemon.control.wire import Message, encode
from agent.policy.control_roles import Role
from agent.record.ledger import Ledger
from agent.record.metrics import Metrics
from tests.conftest import require
from tests.daemon.control.test_callers import DAEMON, spec
from tests.escape.runtime import read_log
from tests.policy.given import policy

POLICY = "control: {viewer: [daemon]}"
ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect("control.sock")
    try: sock.sendall(bytes.fromhex(sys.argv[1]))
    except BrokenPipeError: pass  # refused unread
    sys.stdout.buffer.write(sock.recv(65536)[4:])
"""


@dataclass
class Served:
    """A server, what it was asked, and what is on record."""

    socket: Path
    log: Path
    ledger: Ledger
    metrics: Metrics
    asked: list[tuple[str, Message]] = field(default_factory=list)

    def events(self, kind: str) -> list[dict[str, Any]]:
        self.ledger.flush()
        return [event for event in read_log(self.log) if event["details"]["event_type"] == kind]

    def counted(self, name: str) -> str:
        return next(line for line in self.metrics.render().decode().splitlines() if line.startswith(name))


def serve(tmp_path: Path, test: Callable[[Served], Awaitable[None]], seconds: float = 60.0) -> None:
    """Run the test beside a server with two verbs, whose session is the account `bin`; a request has `seconds`."""
    require(os.geteuid() == 0, "callers of other accounts need root")
    tmp_path.chmod(0o711)
    given = replace(spec(), run_root=str(tmp_path), run_dir=str(tmp_path / "s-b"))
    (tmp_path / "s-b").mkdir(mode=0o711)

    async def body() -> None:
        metrics = Metrics(version="t")
        ledger = Ledger(tmp_path / "log", session_id="s", boot="b", metrics=metrics)
        ledger.start()
        served = Served(control_socket(given.run_dir), tmp_path / "log", ledger, metrics)

        async def answer(caller: Caller, message: Message, link: ControlLink) -> Message:
            served.asked.append((caller.actor, message))
            if message.get("fail"):
                raise RuntimeError("broken")
            return {"exit": 0, "fds": len(link.fds)}

        verbs = {"status": Verb(Role.VIEWER, answer), "reload": Verb(Role.ADMIN, answer)}
        callers = Callers(given, lambda: policy(POLICY))
        server = ControlServer(given, callers, ControlEvents(ledger, "s"), verbs, request_seconds=seconds)
        await server.start()
        try:
            await test(served)
        finally:
            await server.stop()
            ledger.close()
        assert not control_link(given.run_root).is_symlink()
        assert not served.socket.exists()

    asyncio.run(body())


def as_account(served: Served, account: str, script: str, *words: str) -> bytes:
    """What a Python script writes that runs as this account in the socket's directory, which is entered before: those
    above are root's."""
    group = "nogroup" if account == "nobody" else account
    argv = ["/usr/bin/python3", "-I", "-c", script, *words]
    done = subprocess.run(
        argv, user=account, group=group, extra_groups=[], cwd=served.socket.parent, stdout=subprocess.PIPE,
        timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


def ask(served: Served, message: Message, account: str = "root") -> Message:
    """Ask as another account, in a process of its own."""
    found = json.loads(as_account(served, account, ASK, encode(message).hex()))
    assert isinstance(found, dict)
    return found


async def raw(served: Served, data: bytes, *, end: bool = False) -> bytes:
    """What comes back for these bytes, sent as root."""
    reader, writer = await asyncio.open_unix_connection(str(served.socket))
    writer.write(data)
    if end:
        writer.write_eof()
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    return answer[4:]


async def until_open(count: int) -> None:
    """Wait until no more descriptors are open here than `count`."""
    async with asyncio.timeout(20):
        while len(os.listdir("/proc/self/fd")) != count:
            await asyncio.sleep(0.01)


def test_root_and_a_named_account_are_served_by_their_roles(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        assert stat.S_IMODE(served.socket.stat().st_mode) == 0o666
        assert (await asyncio.to_thread(ask, served, {"verb": "reload"}))["exit"] == 0
        assert (await asyncio.to_thread(ask, served, {"verb": "status"}, "daemon"))["exit"] == 0
        refused = await asyncio.to_thread(ask, served, {"verb": "reload"}, "daemon")
        assert (refused["exit"], refused["error"]) == (3, "reload needs the role admin, and daemon is viewer")
        assert [actor for actor, _ in served.asked] == ["user:root", "user:daemon"]
        (event,) = served.events("permission.denied")
        assert (event["actor"], event["result"], event["resource"]) == ("user:daemon", "denied", "reload")
        details = event["details"]
        assert (details["rule"], details["role"], details["uid"]) == ("control-role", "viewer", DAEMON.pw_uid)
        assert served.counted('parhelia_security_denied_total{event_type="permission.denied"}').endswith(" 1.0")

    serve(tmp_path, test)


@pytest.mark.parametrize("account", ["nobody", "bin", "mail"])
def test_strangers_the_session_and_the_egress_process_are_refused_unread(tmp_path: Path, account: str) -> None:
    async def test(served: Served) -> None:
        answer = await asyncio.to_thread(ask, served, {"verb": "status"}, account)
        assert answer["exit"] == 3
        assert served.asked == []
        (event,) = served.events("auth.failure")
        assert (event["actor"], event["result"]) == (f"user:{account}", "denied")
        assert (event["details"]["reason"], event["details"]["mechanism"]) == ("unknown_caller", "control")
        assert served.counted('parhelia_auth_failures_total{reason="unknown_caller"}').endswith(" 1.0")

    serve(tmp_path, test)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("!I", 1 << 31),
        encode({"verb": "shutdown"}),
        encode({"verb": ["status"]}),
        encode({}),
        encode({"verb": "status"})[:-1],
    ],
)
def test_what_is_no_request_is_recorded_and_answered(tmp_path: Path, data: bytes) -> None:
    async def test(served: Served) -> None:
        answer = json.loads(await raw(served, data))
        assert answer["exit"] == 2
        assert answer["error"].startswith("the request is malformed: ")
        (event,) = served.events("auth.failure")
        assert event["details"]["reason"] == "malformed_request"
        assert event["details"]["fault"] == answer["error"].removeprefix("the request is malformed: ")

    serve(tmp_path, test, seconds=0.5)


def test_a_caller_that_ends_before_it_asks_leaves_nothing(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        assert await raw(served, b"", end=True) == b""
        assert served.events("auth.failure") == []

    serve(tmp_path, test)


def test_a_verb_that_fails_is_answered(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        assert json.loads(await raw(served, encode({"verb": "status", "fail": True})))["exit"] == 7

    serve(tmp_path, test)


def test_callers_that_say_nothing_hold_only_themselves(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        silent = [await asyncio.open_unix_connection(str(served.socket)) for _ in range(MAX_CONNECTIONS)]
        one_too_many, told = await asyncio.open_unix_connection(str(served.socket))
        assert await one_too_many.read() == b""
        assert served.asked == []
        told.close()
        for reader, writer in silent:
            async with asyncio.timeout(60):
                assert b"did not arrive in time" in await reader.read()
            writer.close()
        assert json.loads(await raw(served, encode({"verb": "status"})))["exit"] == 0

    serve(tmp_path, test, seconds=3.0)


@pytest.mark.parametrize(("count", "fine"), [(3, True), (4, False), (40, False)])
def test_descriptors_are_taken_up_to_three_and_none_stays_open(tmp_path: Path, count: int, fine: bool) -> None:
    async def test(served: Served) -> None:
        before = len(os.listdir("/proc/self/fd"))
        with socket.socket(socket.AF_UNIX) as sock, open(os.devnull) as null:
            sock.connect(str(served.socket))
            rights = array.array("i", [null.fileno()] * count)
            sock.sendmsg([encode({"verb": "status"})], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            answer = json.loads((await asyncio.get_running_loop().run_in_executor(None, sock.recv, 65536))[4:])
        assert answer.get("fds") == count if fine else answer["exit"] == 2
        await until_open(before)

    serve(tmp_path, test)


def test_descriptors_that_come_in_many_pieces_are_too_many_as_well(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        before = len(os.listdir("/proc/self/fd"))
        data = encode({"verb": "status"})
        with socket.socket(socket.AF_UNIX) as sock, open(os.devnull) as null:
            sock.connect(str(served.socket))
            rights = array.array("i", [null.fileno()])
            for index in range(5):
                sock.sendmsg([data[index : index + 1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            answer = json.loads((await asyncio.get_running_loop().run_in_executor(None, sock.recv, 65536))[4:])
        assert "descriptors" in answer["error"]
        await until_open(before)

    serve(tmp_path, test)


def test_a_flood_of_strangers_is_few_lines_and_an_exact_count(tmp_path: Path) -> None:
    flood = """
import socket
for _ in range(200):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("control.sock")
        sock.recv(4096)
"""

    async def test(served: Served) -> None:
        await asyncio.to_thread(as_account, served, "nobody", flood)
        events = served.events("auth.failure")
        assert sum(event["details"].get("count", 1) for event in events) == 200
        assert len(events) < 40
        assert served.counted('parhelia_auth_failures_total{reason="unknown_caller"}').endswith(" 200.0")

    serve(tmp_path, test)
