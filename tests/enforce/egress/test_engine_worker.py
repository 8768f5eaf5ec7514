"""The worker as a process: its privileges, its imports, its death."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
from http.client import HTTPException
from pathlib import Path

import pytest

from agent.channel import Channel, Message, pair
from agent.enforce.egress import engine_worker
from agent.enforce.egress.ca import InterceptionCA
from agent.enforce.egress.engine_tls import EngineTls, engine_options
from agent.enforce.egress.engine_worker import Worker
from agent.enforce.egress.secrets import Secrets
from tests.conftest import require
from tests.enforce.egress import engine_upstream
from tests.enforce.egress.engine_front import (
    ACTOR,
    HOST,
    METHODS,
    PATHS,
    PATIENCE,
    Front,
    Target,
    policy_of,
    tls_rule,
    until,
)
from tests.enforce.egress.engine_upstream import Authority, Http1Upstream
from tests.enforce.egress.test_engine_layers import websocket


def test_the_worker_has_no_privileges_and_its_memory_is_closed_to_its_own_user(front: Front) -> None:
    require(os.geteuid() == 0, "dropping privileges needs root")
    pid = front.engine.pid
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["Uid"].split() == ["65534"] * 4
    assert status["Gid"].split() == ["65534"] * 4
    assert status["Groups"].strip() == ""
    assert {status[key].strip() for key in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"].strip() == "1"
    readable = subprocess.run(
        ["cat", f"/proc/{pid}/environ"], user=65534, group=65534, extra_groups=[], capture_output=True, check=False
    )
    assert (readable.returncode, readable.stdout) == (1, b"")


def test_nothing_is_imported_after_the_drop_and_nothing_is_logged(
    authority: Authority, upstream: Http1Upstream, capfd: pytest.CaptureFixture[str]
) -> None:
    front = Front(policy_of(tls_rule(HOST, upstream.port, methods=METHODS, paths=PATHS)), authority.file)
    try:
        front.target = Target(HOST, upstream.port)
        front.get("GET", "/simple/x")
        front.get("GET", "/admin", Accept="application/json")
        front.get("POST", "/simple/x", b"abc")
        sock, _, _ = websocket(front, "/ws/x")
        sock.close()
        front.curl("--http2", f"https://{HOST}:{upstream.port}/simple/x")
        front.target.addresses = ("127.0.0.13",)
        front.get("GET", "/simple/x")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            front.tls("evil.test")
    finally:
        front.close()
    assert "late import" not in capfd.readouterr().err


def test_a_worker_that_is_killed_takes_its_connections_with_it_and_is_reported(
    authority: Authority, upstream: Http1Upstream
) -> None:
    front = Front(policy_of(tls_rule(HOST, upstream.port, paths=("/**",))), authority.file)
    try:
        front.target = Target(HOST, upstream.port)
        engine_upstream.RELEASE.clear()
        client = front.client()
        client.request("GET", "/events")
        response = client.getresponse()
        assert response.read1(100).startswith(b"data: first")
        assert front.engine.pid is not None
        os.kill(front.engine.pid, signal.SIGKILL)
        with pytest.raises((OSError, HTTPException)):
            response.read()
        until(lambda: bool(front.deaths), "the report of the death")
        assert front.deaths[0].startswith("interception engine: ")
        upstream.reset()
        with front.connect() as sock:
            assert sock.recv(1) == b""
        until(lambda: front.failure is not None, "the refusal of a hand-over")
        assert upstream.connections == 0
    finally:
        engine_upstream.RELEASE.set()
        front.close()
    assert len(front.deaths) == 1


@pytest.mark.row(40)
def test_a_worker_that_cannot_follow_a_new_policy_ends_with_its_connections(
    authority: Authority, upstream: Http1Upstream
) -> None:
    front = Front(policy_of(tls_rule(HOST, upstream.port, paths=("/**",))), authority.file)
    try:
        front.target = Target(HOST, upstream.port)
        client = front.client()
        client.request("GET", "/simple/x")
        assert client.getresponse().read()
        assert front.engine._link is not None
        front.loop.call_soon_threadsafe(front.engine._link.send, {"type": "policy", "policy": "AAAA"})
        until(lambda: bool(front.deaths), "the report of the death")
        with pytest.raises((OSError, HTTPException)):
            client.request("GET", "/simple/x")
            client.getresponse()
    finally:
        front.close()


def test_a_connection_past_the_most_is_closed_and_recorded(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_worker, "_connection_limit", lambda: 0)
    told = asyncio.run(asyncio.wait_for(told_of_one_more(authority), PATIENCE))
    assert told["closed"]["id"] == "c9"
    assert told["event"]["event"]["details"]["rule"] == "limit-connections"


async def told_of_one_more(authority: Authority) -> dict[str, Message]:
    ours, theirs = pair()
    ours.setblocking(False)
    theirs.setblocking(False)
    guard = Channel(ours)
    given = policy_of(tls_rule(HOST, 443, paths=("/**",)))
    made = EngineTls(InterceptionCA((HOST,)))
    options = engine_options(str(authority.file))
    worker = Worker(Channel(theirs), given, ACTOR, engine_tls=made, options=options, secrets=Secrets())
    mine, handed_over = socket.socketpair()
    where = {"host": HOST, "port": 443, "addresses": ["127.0.0.1"], "kind": "connect", "prefix": ""}
    who = {"request_id": "c9", "source_ip": "192.0.2.7", "source_port": 7}
    worker._take({"type": "connection", **where, **who}, [handed_over.detach()])
    with ours, theirs, mine:
        assert mine.recv(1) == b""
        said: list[Message] = []
        while len(said) < 2:
            await asyncio.sleep(0)  # what is posted is sent in the loop's next turn
            said += [message for message, _ in guard.feed()]
    return {str(message["type"]): message for message in said}
