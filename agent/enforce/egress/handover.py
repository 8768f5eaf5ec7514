"""The egress process's side of the interception engine: starts the worker, hands it sockets, ends with it.

Rules kept here: the worker is started before this process drops its privileges (the interpreter may lie where only root
can read) and drops its own, to the same user, once everything is imported; it makes the interception CA, whose key the
guard keeps for a successor; a socket is handed over together with the one identity that was decided (host, port,
resolved addresses) and is then no longer ours; a worker that dies, or says something it may not, is the end of the
egress process (`on_death`): nothing is ever forwarded uninspected in its place. The worker's events go through our
recorder, in the session's name only.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

from agent.channel import ChannelClosed, Message, pair
from agent.enforce.egress.accounts import Account
from agent.enforce.egress.engine_link import Link, LinkBusy
from agent.enforce.egress.quota import Quota, Ticket
from agent.enforce.egress.secrets import Secrets
from agent.gate import Recorder
from agent.policy.hosts import is_wildcard
from agent.policy.model import Policy
from agent.record.event import Event, EventType, event_of
from agent.record.timings import Timings

log = logging.getLogger(__name__)

START_SECONDS = 60.0
STOP_SECONDS = 2.0
_WORKER_EVENTS = frozenset({EventType.NETWORK_EGRESS, EventType.NETWORK_EGRESS_BLOCKED, EventType.SECRET_INJECT})


class HandOverError(Exception):
    """The engine could not take this connection, or could not start; the connection must be refused."""


class Engine:
    """The worker as the front sees it.

    `uid`/`gid`: whom the worker becomes (None: stays). `ca_file`: the PEM bundle that upstreams are verified against
    (None: the system's). `python`: the interpreter (default: this one). `on_death(reason)` is called once when the
    worker is gone unasked, `on_stats(up, down)` with byte counts since the last call. Both run on the loop. `secrets`
    go to the worker in the start message and nowhere else. What it decides is added to `timings`. `ca`: what is kept
    of the interception CA that the worker continues (or follows with another, to `renew` it); None: it makes one. The
    worker's own is here once it serves.
    """

    def __init__(
        self,
        policy: Policy,
        actor: str,
        recorder: Recorder,
        *,
        python: str | None = None,
        ca_file: str | None = None,
        uid: int | None = None,
        gid: int | None = None,
        on_death: Callable[[str], None] | None = None,
        on_stats: Callable[[int, int], None] | None = None,
        secrets: Secrets | None = None,
        timings: Timings | None = None,
        ca: Mapping[str, str] | None = None,
        renew: bool = False,
    ) -> None:
        self._policy = policy
        self._actor = actor
        self._recorder = recorder
        self._python = python or sys.executable
        self._ca_file = ca_file
        self._identity = (uid, gid)
        self._on_death = on_death
        self._on_stats = on_stats
        self._secrets = secrets or Secrets()
        self._timings = timings or Timings()
        self.ca = ca
        self._renew = renew
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._link: Link | None = None
        self._ready: asyncio.Future[dict[str, str]] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._stopping = False
        self._accepting: set[asyncio.Task[None]] = set()
        self._tickets: dict[str, Ticket] = {}
        self._accounts: dict[str, Account] = {}  # by name: those of hosts that the worker was given
        self._wildcards = wildcards(policy)
        self._quota: Quota | None = None  # that of the tickets
        self._reported: dict[str, tuple[int, int]] = {}  # bytes that the worker carried
        self._spent: dict[str, tuple[int, int]] = {}  # bytes of other ways that it was told of

    @property
    def pid(self) -> int | None:
        """The worker's process id, None before `spawn`."""
        return None if self._process is None else self._process.pid

    @property
    def open(self) -> int:
        """How many connections the worker serves."""
        return len(self._tickets)

    def spawn(self) -> None:
        """Start the worker process; must come before this process drops its privileges. `start` does it if need be."""
        if self._process is not None:
            return
        uid, gid = self._identity
        ours, theirs = pair()
        with theirs:
            argv = [self._python, "-I", "-m", "agent.enforce.egress.engine_worker", "--channel", str(theirs.fileno())]
            argv += [] if uid is None else ["--uid", str(uid)]
            argv += [] if gid is None else ["--gid", str(gid)]
            # -I and a fresh environment: mitmproxy writes TLS secrets to $SSLKEYLOGFILE, OpenSSL reads $OPENSSL_CONF
            self._process = subprocess.Popen(
                argv,
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        self._sock = ours

    async def start(self) -> str:
        """Wait until the worker serves; returns the interception CA's certificate (PEM). Raises HandOverError."""
        self.spawn()
        sock = self._sock
        if sock is None or self._link is not None:
            raise HandOverError("the engine is started already")
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        self._gone = loop.create_future()
        self._link = Link(sock, self._on_message, self._on_close)
        start = {
            "type": "start",
            # one way only, from the process that started the worker
            "policy": _packed(self._policy),
            "actor": self._actor,
            "ca_file": self._ca_file,
            "secrets": self._secrets.dump(),
            "ca": self.ca,
            "renew": self._renew,
        }
        try:
            self._link.send(start)
            self.ca = await asyncio.wait_for(self._ready, START_SECONDS)
        except (ChannelClosed, TimeoutError) as error:
            await self.stop()
            raise HandOverError(f"the interception engine did not start: {error}") from error
        return self.ca["certificate"]

    def hand_over(
        self,
        sock: socket.socket,
        prefix: bytes,
        *,
        host: str,
        port: int,
        addresses: tuple[str, ...],
        kind: Literal["connect", "absolute"],
        request_id: str,
        source_ip: str | None,
        ticket: Ticket | None = None,
        source_port: int | None = None,
    ) -> None:
        """Give an accepted connection to the worker; `sock` is closed here in any case.

        `kind` "connect": the 200 has been sent, `prefix` is what was read of the ClientHello. "absolute": `prefix`
        starts with the whole request head. The ticket is kept until the connection has ended. Raises HandOverError
        where the worker can't take it; the ticket is closed then.
        """
        message: Message = {
            "type": "connection",
            "host": host,
            "port": port,
            "addresses": list(addresses),
            "kind": kind,
            "request_id": request_id,
            "source_ip": source_ip,
            "source_port": source_port,
            "prefix": base64.b64encode(prefix).decode("ascii"),
        }
        if self._link is None:
            sock.close()
            raise HandOverError("the interception engine is not running")
        try:
            if ticket is not None:
                self._quota = ticket.quota
                self._accounts[ticket.account.name] = ticket.account
                for account in ticket.accounts:
                    self._tell_spent(account)
                message |= {"account": ticket.account.name, "idle": ticket.idle}
            self._link.send(message, [sock.detach()])
        except (ChannelClosed, LinkBusy) as error:
            sock.close()
            raise HandOverError(str(error)) from error
        if ticket is not None:
            self._tickets[request_id] = ticket
            ticket.on_cut(partial(self._cut, request_id))

    def tell_spent(self) -> None:
        """What went to the worker's hosts by other ways than the worker, since it counts against the same limits."""
        for account in {account for ticket in self._tickets.values() for account in ticket.accounts}:
            with contextlib.suppress(ChannelClosed, LinkBusy):
                self._tell_spent(account)

    def _tell_spent(self, account: Account) -> None:
        """Raises ChannelClosed, LinkBusy."""
        own_up, own_down = self._reported.get(account.name, (0, 0))
        spent = (account.up.total - own_up, account.down.total - own_down)
        if self._link is not None and self._spent.get(account.name, (0, 0)) != spent:
            self._link.send({"type": "spent", "account": account.name, "up": spent[0], "down": spent[1]})
            self._spent[account.name] = spent

    def _take_spent(self, hosts: dict[str, list[int]]) -> None:
        """What the worker carried since its last report. Raises HandOverError, KeyError for an account that is neither
        of a host that it was given nor of a wildcard of the policy."""
        for name, (up, down) in hosts.items():
            if min(up, down) < 0:
                raise HandOverError("bytes that go back")
            account = self._account(name)
            account.up.total += up
            account.down.total += down
            before = self._reported.get(name, (0, 0))
            self._reported[name] = (before[0] + up, before[1] + down)

    def _account(self, name: str) -> Account:
        if name in self._wildcards and self._quota is not None:
            return self._quota.wildcard(name)
        return self._accounts[name]

    def follow(self, policy: Policy) -> None:
        """Another policy is in force; the worker decides what it serves again."""
        self._policy = policy
        self._wildcards |= wildcards(policy)
        if self._link is not None:
            with contextlib.suppress(ChannelClosed):  # then the worker is gone, and that is the end
                self._link.send({"type": "policy", "policy": _packed(policy)}, urgent=True)

    def _cut(self, request_id: str) -> None:
        if self._link is not None:
            with contextlib.suppress(ChannelClosed):
                self._link.send({"type": "cut", "id": request_id}, urgent=True)

    async def stop(self) -> None:
        """End the worker and wait for it."""
        self._stopping = True
        if self._link is not None and not self._link.closed:
            with contextlib.suppress(ChannelClosed, LinkBusy):
                self._link.send({"type": "stop"}, urgent=True)
            if self._gone is not None:
                await asyncio.wait([self._gone], timeout=STOP_SECONDS)
            self._link.close()
        elif self._sock is not None:
            self._sock.close()
        if self._process is not None:
            await _reap(self._process)

    def _on_close(self, reason: str) -> None:
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(ChannelClosed(reason))
        if self._stopping:
            return
        if self._process is not None:
            _kill(self._process)
        if self._on_death is not None:
            self._on_death(f"interception engine: {reason}")

    def _on_message(self, message: Message, fds: list[int]) -> None:
        try:
            self._dispatch(message, fds)
        except Exception as error:  # the worker reads hostile bytes: whatever its words do here, it has said its last
            log.error("the engine worker sent what it may not: %s", error)
            for fd in fds:
                os.close(fd)
            if self._link is not None:
                self._link.close(f"malformed message from the worker: {error}")

    def _dispatch(self, message: Message, fds: list[int]) -> None:
        if fds:
            raise HandOverError("descriptors from the worker")
        match message["type"]:
            case "ready":
                if self._ready is not None and not self._ready.done():
                    self._ready.set_result({name: str(message["ca"][name]) for name in ("certificate", "key", "chain")})
            case "event":
                self._event(int(message["n"]), message["accept"] is True, event_of(message["event"]))
            case "stats":
                up, down = int(message["up"]), int(message["down"])
                self._take_spent(message["hosts"])
                self._timings.add([int(number) for number in message["decisions"]], float(message["seconds"]))
                if self._on_stats is not None:
                    self._on_stats(up, down)
            case "closed":
                ticket = self._tickets.pop(str(message["id"]), None)
                if ticket is not None:
                    ticket.close()
            case unknown:
                raise HandOverError(f"message {unknown!r}")

    def _event(self, number: int, wanted: bool, event: Event) -> None:
        if event.type not in _WORKER_EVENTS or event.actor != self._actor:
            raise HandOverError(f"event {event.type} by {event.actor}")
        if wanted:
            task = asyncio.get_running_loop().create_task(self._accept(number, event))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)
            return
        try:
            self._recorder.post(event)
        except Exception:  # the denial stands; the recorder counts what it lost
            log.exception("a denial of the engine was not recorded")

    async def _accept(self, number: int, event: Event) -> None:
        answer: Message = {"type": "accepted", "n": number}
        try:
            pending = self._recorder.accept(event)
            if pending is not None:
                await pending
        except Exception as error:  # fail closed: the worker turns a refusal into a denial
            log.exception("an event of the engine was not accepted")
            answer = {"type": "refused", "n": number, "error": str(error)}
        if self._link is not None:
            with contextlib.suppress(ChannelClosed):
                self._link.send(answer, urgent=True)


def wildcards(policy: Policy) -> set[str]:
    """The wildcards of the policy's allow rules."""
    rules = (rule for layer in policy.layers if layer.egress is not None for rule in layer.egress.allow)
    return {rule.pattern for rule in rules if is_wildcard(rule.pattern)}


def _packed(policy: Policy) -> str:
    return base64.b64encode(pickle.dumps(policy)).decode("ascii")


async def _reap(process: subprocess.Popen[bytes]) -> None:
    """Wait for the worker, which ends by itself when its channel closes; kill it where it does not."""
    for _ in range(2):
        deadline = asyncio.get_running_loop().time() + STOP_SECONDS
        while process.poll() is None and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110  # no SIGCHLD here
            await asyncio.sleep(0.01)
        if process.poll() is not None:
            return
        _kill(process)
    log.error("the engine worker %d does not end", process.pid)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """While it is still root and we are not any more, it ends when it finds its channel closed."""
    with contextlib.suppress(PermissionError):
        process.kill()
