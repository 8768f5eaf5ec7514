"""The egress process as a process: rights, start, end, and what it does when its guard is gone."""

from __future__ import annotations

import base64
import contextlib
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.channel import Channel, ChannelClosed, pair
from tests.conftest import require
from tests.enforce.egress.proxy import (
    SECONDS,
    TOKEN,
    client_hello,
    eventually,
    policy,
    read_all,
    read_exactly,
    rule,
    running,
    upstream,
)

NOBODY = 65534
NAMES = {"api.good.test": [["127.0.0.1"]], "xn--bcher-kva.good.test": [["127.0.0.1"]]}


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_it_becomes_its_own_user_for_good_and_still_serves(tmp_path: Path) -> None:
    require(os.geteuid() == 0, "needs root to drop rights")
    with (
        upstream() as server,
        running(policy(rule("localhost", server.port)), {}, tmp_path, module=True, user=(NOBODY, NOBODY)) as proxy,
    ):
        status = status_of(proxy.process.pid)
        assert status["Uid"].split() == [str(NOBODY)] * 4
        assert status["Gid"].split() == [str(NOBODY)] * 4
        assert status["Groups"] == ""
        assert status["NoNewPrivs"] == "1"
        for which in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"):
            assert int(status[which], 16) == 0, which
        hello = client_hello("localhost")
        with proxy.tunnel("localhost", server.port) as sock:  # the resolver's own modules are loaded after the drop
            sock.sendall(hello)
            assert read_exactly(sock, len(hello)) == hello


def test_international_names_work_after_the_rights_are_gone(tmp_path: Path) -> None:
    require(os.geteuid() == 0, "needs root to drop rights")
    name = "xn--bcher-kva.good.test"
    with (
        upstream() as server,
        running(policy(rule("*.good.test", server.port)), NAMES, tmp_path, user=(NOBODY, NOBODY)) as proxy,
        proxy.tunnel(name, server.port) as sock,
    ):
        hello = client_hello(name)
        sock.sendall(hello)
        assert read_exactly(sock, len(hello)) == hello


def test_the_session_s_user_cannot_read_or_trace_it(tmp_path: Path) -> None:
    require(os.geteuid() == 0, "needs root to drop rights")
    with running(policy(), {}, tmp_path, user=(NOBODY, NOBODY)) as proxy:
        owner = Path(f"/proc/{proxy.process.pid}/environ").stat().st_uid
        assert owner == 0, "a process that can be dumped belongs to its own user in /proc"


def test_the_machine_s_own_names_are_used_and_judged(tmp_path: Path) -> None:
    with upstream() as server, running(policy(rule("localhost", server.port)), {}, tmp_path, module=True) as proxy:
        hello = client_hello("localhost")
        with proxy.tunnel("localhost", server.port) as sock:
            sock.sendall(hello)
            assert read_exactly(sock, len(hello)) == hello
    with running(policy(rule("localhost", 443, addresses=())), {}, tmp_path, module=True) as proxy:
        answer = proxy.ask(b"CONNECT localhost:443 HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b"loopback" in answer


def test_no_engine_is_started_where_no_rule_looks_into_tls(tmp_path: Path) -> None:
    with running(policy(rule("a.test")), {}, tmp_path, module=True) as proxy:
        children = Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children").read_text()
        assert children == ""
        assert proxy.messages[:2] == ["ca", "ready"]


def test_when_the_guard_is_gone_every_tunnel_and_the_process_end_at_once(tmp_path: Path) -> None:
    with upstream() as server, running(policy(rule("api.good.test", server.port)), NAMES, tmp_path) as proxy:
        hello = client_hello("api.good.test")
        with proxy.tunnel("api.good.test", server.port) as sock:
            sock.sendall(hello)
            read_exactly(sock, len(hello))
            proxy.channel.sock.shutdown(socket.SHUT_RDWR)
            assert read_all(sock) == b""
        assert proxy.process.wait(SECONDS) == 1
        with pytest.raises(ConnectionRefusedError):
            proxy.connect()


@pytest.mark.row(40)
def test_killing_it_leaves_no_way_out(tmp_path: Path) -> None:
    with upstream() as server, running(policy(rule("api.good.test", server.port)), NAMES, tmp_path) as proxy:
        proxy.process.kill()
        proxy.process.wait(SECONDS)
        with pytest.raises(ConnectionRefusedError):
            proxy.connect()
        assert server.conversations == []


def test_stop_ends_everything_after_the_last_numbers(tmp_path: Path) -> None:
    with upstream() as server, running(policy(rule("api.good.test", server.port)), NAMES, tmp_path) as proxy:
        hello = client_hello("api.good.test")
        with proxy.tunnel("api.good.test", server.port) as sock:
            sock.sendall(hello)
            read_exactly(sock, len(hello))
            proxy.channel.send({"type": "stop"})
            assert proxy.process.wait(SECONDS) == 0
        eventually(lambda: sum(stats["up"] for stats in proxy.stats) == len(hello))
        assert sum(stats["down"] for stats in proxy.stats) == len(hello)
        assert sum(stats["connections"] for stats in proxy.stats) == 1


class Bare:
    """The process with a channel and nothing said yet."""

    def __init__(self) -> None:
        ours, theirs = pair()
        argv = [sys.executable, "-m", "agent.enforce.egress.main", "--channel", str(theirs.fileno())]
        self.process = subprocess.Popen(argv, pass_fds=(theirs.fileno(),), stderr=subprocess.DEVNULL)
        theirs.close()
        self.channel = Channel(ours)

    def start(self, blob: bytes, **other: object) -> None:
        message: dict[str, object] = {
            "type": "start",
            "policy": base64.b64encode(blob).decode(),
            "actor": "session:t",
            "uid": None,
            "gid": None,
            "ca_file": None,
            "secrets": [],
            "token": TOKEN.hex(),
            "ca": None,
            "renew": False,
            "accounts": {},
        }
        self.channel.send({name: value for name, value in (message | other).items() if value != "left out"})

    def holds(self, sock: socket.socket) -> bool:
        """Has it received this socket?"""
        wanted = os.fstat(sock.fileno()).st_ino
        held = Path(f"/proc/{self.process.pid}/fd").iterdir()
        with contextlib.suppress(FileNotFoundError):  # it closes some meanwhile
            return any(each.stat().st_ino == wanted for each in held)
        return False

    def end(self) -> int:
        """The exit status, after the channel's end is read."""
        try:
            with pytest.raises(ChannelClosed):
                while True:
                    self.channel.receive()
            return self.process.wait(SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            self.channel.close()


@pytest.mark.parametrize(
    "message",
    [
        {"type": "unheard-of"},
        {"type": "accepted", "n": 7},
        {"type": "listen", "doors": ["proxy"]},
        {"type": "listen", "doors": ["backdoor"]},
        {"no": "type"},
    ],
)
def test_a_message_it_does_not_know_is_the_end(message: dict[str, object]) -> None:
    bare = Bare()
    bare.channel.send(message)
    assert bare.end() == 1


@pytest.mark.parametrize("blob", [b"", b"not a pickle", pickle.dumps("not a policy")])
def test_without_a_policy_it_never_serves(blob: bytes) -> None:
    bare = Bare()
    bare.start(blob)
    assert bare.end() == 1


@pytest.mark.parametrize("token", ["left out", "", "no hexadecimal", None])
def test_without_the_run_s_token_it_never_serves(token: object) -> None:
    """A forwarded connection that shows no token would be the guard's own."""
    bare = Bare()
    bare.start(pickle.dumps(policy()), token=token)
    assert bare.end() == 1


@pytest.mark.row(40)
def test_before_it_is_ready_nothing_is_accepted() -> None:
    bare = Bare()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bare.channel.send({"type": "listen", "doors": ["proxy"]}, [listener.fileno()])
        with socket.create_connection(listener.getsockname(), timeout=SECONDS) as sock:
            sock.sendall(b"CONNECT evil.test:443 HTTP/1.1\r\n\r\n")
            eventually(lambda: bare.holds(listener))
            sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                sock.recv(1)
            sock.settimeout(SECONDS)
            bare.start(pickle.dumps(policy()))
            assert sock.recv(100).startswith(b"HTTP/1.1 403 ")
    bare.channel.send({"type": "stop"})
    assert bare.end() == 0


def test_a_second_start_is_refused() -> None:
    bare = Bare()
    bare.start(pickle.dumps(policy()))
    bare.start(pickle.dumps(policy()))
    assert bare.end() == 1


def test_a_guard_that_gives_up_before_the_start_is_no_error_of_the_egress_process() -> None:
    near, far = pair()
    arguments = [sys.executable, "-m", "agent.enforce.egress.main", "--channel", str(far.fileno())]
    with near, far, subprocess.Popen(arguments, pass_fds=[far.fileno()], stderr=subprocess.PIPE, text=True) as process:
        near.close()
        assert process.communicate(timeout=SECONDS)[1] == ""
        assert process.returncode == 1
