"""The worker process: imports everything, makes the CA, drops its privileges, then serves handed-over connections.

Started by `agent.enforce.egress.handover.Engine` as ``python -I -m agent.enforce.egress.engine_worker --channel FD
[--uid N --gid N]`` while the egress process still has its privileges, because the interpreter, the packages and the CA
bundle may lie where only root can read. Rules kept here: nothing is imported after the drop (whatever tries is logged);
the process is undumpable, so that others of its user can't read the CA's key; the end of the channel ends it at once,
with all its connections; it listens to nothing.

Ends with 0 on `stop`, 1 where the channel ends or the start fails.
"""

from __future__ import annotations

# What asyncio, ssl and mitmproxy import on first use, here so that it is in before the drop: codecs, the resolver's
# IDNA, tracebacks of logged exceptions.
import argparse
import asyncio
import base64
import concurrent.futures.thread
import encodings.idna
import encodings.unicode_escape
import importlib.abc
import linecache
import logging
import os
import pickle
import resource
import signal
import socket
import stringprep
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import mitmproxy.contentviews
import mitmproxy.proxy.layers.http._upstream_proxy
from mitmproxy.options import Options

from agent.channel import Channel, ChannelClosed, Message
from agent.enforce.egress.ca import InterceptionCA
from agent.enforce.egress.engine import EngineConnection, VettedLoop, serving
from agent.enforce.egress.engine_decisions import Decisions
from agent.enforce.egress.engine_layers import blame
from agent.enforce.egress.engine_quota import Accounts
from agent.enforce.egress.engine_requests import Identity, Refusal
from agent.enforce.egress.engine_room import Room
from agent.enforce.egress.engine_tls import EngineTls, engine_options, warm
from agent.enforce.egress.garbage import collect_rarely
from agent.enforce.egress.limits import Limits
from agent.enforce.egress.recorder import ChannelRecorder
from agent.enforce.egress.secrets import Secrets
from agent.gate import Gate
from agent.linux import process
from agent.policy.addresses import canonical_address
from agent.policy.egress_match import intercepted
from agent.policy.model import Policy
from agent.policy.terms import session_limits
from agent.record.timings import Timings

log = logging.getLogger(__name__)

STATS_SECONDS = 1.0
FLUSH_SECONDS = 1.0
DESCRIPTORS_PER_CONNECTION = 4
MOST_CONNECTIONS = 1024
"""At once; each takes some 170 KB."""
IMPORTED_EARLY = (
    concurrent.futures.thread,
    encodings.idna,
    encodings.unicode_escape,
    linecache,
    mitmproxy.contentviews,
    mitmproxy.proxy.layers.http._upstream_proxy,
    stringprep,
    traceback,
)


class LateImports(importlib.abc.MetaPathFinder):
    """Finds nothing and says what was looked for: after the drop an import may fail on another machine."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        log.warning("late import of %s", fullname)


class Worker:
    """Takes connections from the channel and serves each in a task of its own."""

    def __init__(
        self,
        channel: Channel,
        policy: Policy,
        actor: str,
        *,
        engine_tls: EngineTls,
        options: Options,
        secrets: Secrets,
    ) -> None:
        self._channel = channel
        self._policy = policy
        self._actor = actor
        self._tls = engine_tls
        self._secrets = secrets
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._recorder = ChannelRecorder(channel, self._end)
        self._timings = Timings()
        self._gate = Gate(lambda: self._policy, self._recorder, actor, self._timings.observe)
        self._accounts = Accounts()
        self._serving: set[asyncio.Task[None]] = set()
        self._connections: dict[str, EngineConnection] = {}
        self._limit = _connection_limit()
        self._room = Room()
        self._limits = Limits()
        self._limits.follow(session_limits(policy), Limits())
        self._up = self._down = 0
        self._done: asyncio.Future[int] = self._loop.create_future()

    async def run(self, ca: InterceptionCA) -> int:
        """Serve until told to stop; the exit status."""
        self._loop.add_reader(self._channel.fileno(), self._readable)
        self._recorder.send({"type": "ready", "ca": ca.kept})
        self._loop.call_later(STATS_SECONDS, self._tick)
        return await self._done

    def _readable(self) -> None:
        try:
            messages = self._channel.feed()
        except ChannelClosed as error:
            self._end(str(error))
            return
        try:
            for message, fds in messages:
                self._dispatch(message, fds)
        except Exception as error:  # what was done by half, a change of policy say, holds for nobody
            self._end(f"a message could not be followed: {blame(error)}")

    def _dispatch(self, message: Message, fds: list[int]) -> None:
        match message["type"]:
            case "connection":
                self._take(message, fds)
            case "accepted":
                self._recorder.settle(int(message["n"]), None)
            case "refused":
                self._recorder.settle(int(message["n"]), str(message["error"]))
            case "spent":
                self._accounts.take(str(message["account"]), int(message["up"]), int(message["down"]))
            case "policy":
                self._follow(pickle.loads(base64.b64decode(message["policy"])))  # noqa: S301 (as at the start)
            case "cut":
                self._cut(str(message["id"]))
            case "stop":
                self._loop.create_task(self._stop())
            case unknown:
                self._end(f"unknown message {unknown!r}")

    def _take(self, message: Message, fds: list[int]) -> None:
        (fd,) = fds
        sock = socket.socket(fileno=fd)
        identity = Identity(
            host=str(message["host"]),
            port=int(message["port"]),
            addresses=tuple(canonical_address(text) or "" for text in message["addresses"]),
            kind=message["kind"],
            request_id=str(message["request_id"]),
            source_ip=message["source_ip"],
            source_port=message["source_port"],
        )
        if len(self._serving) >= self._limit:
            sock.close()
            reason = f"{self._limit} connections are open in the interception engine, the most there may be"
            self._decisions(identity, None).refuse_connection(Refusal(503, "limit-connections", reason))
            self._recorder.send({"type": "closed", "id": identity.request_id})
            return
        work = self._serve(
            sock, base64.b64decode(message["prefix"]), identity, message.get("account"), message.get("idle")
        )
        task = self._loop.create_task(work)
        if not task.done():  # an eager task may be
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(
        self, sock: socket.socket, prefix: bytes, identity: Identity, account: str | None, idle: int | None
    ) -> None:
        try:
            await self._converse(sock, prefix, identity, account, idle)
        finally:
            self._connections.pop(identity.request_id, None)
            self._recorder.send({"type": "closed", "id": identity.request_id})

    async def _converse(
        self, sock: socket.socket, prefix: bytes, identity: Identity, account: str | None, idle: int | None
    ) -> None:
        sock.setblocking(False)
        reader = asyncio.StreamReader()
        reader.feed_data(prefix)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, sock)
        except OSError:
            sock.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
        try:
            with serving(identity):
                connection = EngineConnection(
                    reader,
                    writer,
                    options=self._options,
                    identity=identity,
                    decisions=self._decisions(identity, account),
                    engine_tls=self._tls,
                    meter=self._meter,
                    limits=self._limits,
                    idle=idle,
                    room=self._room,
                )
                self._connections[identity.request_id] = connection
                await connection.handle_client()
        except Exception as error:
            log.error("connection %s ended by a fault: %s", identity.request_id, blame(error))
        finally:
            transport.abort()

    def _decisions(self, identity: Identity, account: str | None) -> Decisions:
        return Decisions(
            identity,
            lambda: self._policy,
            self._gate,
            self._recorder,
            self._actor,
            secrets=self._secrets,
            accounts=self._accounts,
            account=account,
        )

    def _follow(self, policy: Policy) -> None:
        self._policy = policy
        self._limits.follow(session_limits(policy), Limits())
        for connection in list(self._connections.values()):
            connection.redecide()

    def _cut(self, request_id: str) -> None:
        connection = self._connections.get(request_id)
        if connection is not None:
            connection.abort("it is no longer allowed")

    def _meter(self, up: int, down: int) -> None:
        self._up += up
        self._down += down

    def _tick(self) -> None:
        self._send_stats()
        self._loop.call_later(STATS_SECONDS, self._tick)

    def _send_stats(self) -> None:
        counts, seconds = self._timings.take()
        if self._up or self._down or any(counts):
            decisions = {"decisions": counts, "seconds": seconds}
            numbers = {"up": self._up, "down": self._down, "hosts": self._accounts.report()}
            self._recorder.send({"type": "stats", **numbers, **decisions})
            self._up = self._down = 0

    async def _stop(self) -> None:
        self._send_stats()
        await self._recorder.drain(FLUSH_SECONDS)
        if not self._done.done():
            self._done.set_result(0)

    def _end(self, reason: str) -> None:
        """Fail closed: nobody is there to record for."""
        log.error("the engine ends: %s", reason)
        logging.shutdown()
        os._exit(1)


def drop(uid: int | None, gid: int | None) -> None:
    """Become `uid`:`gid` for good, without capabilities, and unreadable to others of that user. Raises OSError."""
    process.set_no_new_privs()
    if os.geteuid() == 0:
        process.drop_capability_bounding_set()
    if gid is not None:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
    if uid is not None:
        os.setresuid(uid, uid, uid)
        if os.getresuid() != (uid, uid, uid):
            raise PermissionError(f"still {os.getresuid()} after the drop to {uid}")
    process.drop_capabilities()
    process.set_dumpable(False)
    process.set_pdeathsig(signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="engine_worker")
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="parhelia-engine: %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("mitmproxy").setLevel(logging.CRITICAL)  # its messages quote traffic; ours say what failed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the session's; our end is the channel's
    channel = Channel(socket.socket(fileno=given.channel))
    try:
        message, _ = channel.receive()
    except ChannelClosed as error:
        log.error("no work was given: %s", error)
        return 1
    policy: Policy = pickle.loads(base64.b64decode(message["policy"]))  # noqa: S301  # from the process that started us
    secrets = Secrets.parse(message["secrets"])
    options = engine_options(message["ca_file"], policy.trust)
    ca = InterceptionCA(intercepted(policy), kept=message["ca"], renew=message["renew"])
    engine_tls = EngineTls(ca)
    warm(engine_tls, options)
    collect_rarely()
    _raise_descriptor_limit()
    drop(given.uid, given.gid)
    sys.meta_path.insert(0, LateImports())
    channel.sock.setblocking(False)
    with asyncio.Runner(loop_factory=_make_loop) as runner:
        make = partial(Worker, channel, policy, message["actor"], engine_tls=engine_tls, options=options)
        return runner.run(_run(partial(make, secrets=secrets), ca))


async def _run(make: Callable[[], Worker], ca: InterceptionCA) -> int:
    status = await make().run(ca)
    logging.shutdown()
    os._exit(status)  # connections end with the process; nothing is waited for


def _make_loop() -> asyncio.AbstractEventLoop:
    loop = VettedLoop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _connection_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, min(MOST_CONNECTIONS, (soft - 64) // DESCRIPTORS_PER_CONNECTION))


if __name__ == "__main__":
    sys.exit(main())
