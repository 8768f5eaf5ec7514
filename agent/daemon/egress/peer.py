"""One egress process as the guard sees it over its channel; `agent.daemon.egress.link` has one after the other.

The egress process parses hostile bytes, so it is trusted with little: one dispatch table of messages it may send,
events of the network kind and injections of the secrets it was given, and always in the session's name. Anything else
is a fault. The end of its channel is none: what was sent before it is taken first, to the last byte. An answer goes to
the process that asked, never to its successor. What it can't know is added here: the process behind each connection
(`agent.daemon.egress.attribution`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from agent.channel import Channel, ChannelClosed, Message, messages
from agent.daemon.egress.attribution import Attribution, Connection, Found, plain_address
from agent.daemon.egress.socket_tables import Endpoint
from agent.enforce.egress.quota import MAX_HOSTS
from agent.enforce.egress.secrets import Secrets
from agent.record.event import Event, EventType, RecordError, event_of
from agent.record.ledger import Ledger
from agent.record.metrics import Metrics
from agent.values import dataclass, field, replace

log = logging.getLogger(__name__)

SEND_SECONDS: Final = 2
MAX_ACCOUNTS: Final = 2 * MAX_HOSTS
MAX_LAST_WORDS: Final = 64 << 20
ALLOWED_TYPES: Final = frozenset({EventType.NETWORK_EGRESS, EventType.NETWORK_EGRESS_BLOCKED, EventType.SECRET_INJECT})


class EgressFault(Exception):
    """The egress process is gone or does what it must not."""


@dataclass(slots=True)
class Counted:
    """What the session's egress processes have counted, all together: bytes, and the accounts that limits are held
    against, by name: bytes up, bytes down, connections begun in the minute before, seconds when that was said (of the
    loop's clock)."""

    up: int = 0
    down: int = 0
    accounts: dict[str, tuple[int, int, int, float]] = field(default_factory=dict)


class EgressPeer:
    """`on_fault` is called once where it does what it must not, `on_gone` once where its channel ends; not after
    `expect_end`. `base`: how many connections its predecessors have numbered. `secrets`: those it was given."""

    def __init__(
        self,
        channel: Channel,
        ledger: Ledger,
        metrics: Metrics,
        attribution: Attribution,
        counted: Counted,
        *,
        actor: str,
        secrets: Secrets,
        base: int,
        on_fault: Callable[[str], None],
        on_gone: Callable[[str], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self._channel = channel
        self._ledger = ledger
        self._metrics = metrics
        self._attribution = attribution
        self._counted = counted
        self._actor = actor
        self.secrets = secrets
        self._base = self.numbered = base
        self._on_fault = on_fault
        self._on_gone = on_gone
        self._stopping = False
        self._waiting: set[int] = set()  # denials that are not recorded yet
        self._highest = self._taken = 0
        self._telling = False
        self.certified: asyncio.Future[Mapping[str, str] | None] = loop.create_future()
        """Its interception CA: certificate, key and chain (PEM); None where it needs none."""
        self.ready: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self._following: deque[asyncio.Future[int]] = deque()
        attribution.on_look = self._looked
        timeout = struct.pack("ll", SEND_SECONDS, 0)
        channel.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        loop.add_reader(channel.fileno(), self._readable)

    def send(self, message: Message, fds: list[int] | None = None) -> None:
        """Raises EgressFault, and says so, where it takes nothing any more."""
        try:
            self._channel.send(message, fds or [])
        except ChannelClosed as error:
            self._end(f"egress channel: {error}", self._on_gone)
            raise EgressFault(str(error)) from error

    def follow(self, policy: str) -> asyncio.Future[int]:
        """Tell it of another policy, as it travels. The result: how many connections it has cut, once it decides by
        that; 0 where it is gone, and all of them with it. Raises EgressFault."""
        self.send({"type": "policy", "policy": policy})
        followed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._following.append(followed)
        return followed

    def expect_end(self) -> None:
        """Its end is nobody's loss from here on."""
        self._stopping = True

    def drain(self) -> None:
        """It is dead: take what it had still sent, and the end."""
        looking = select.poll()
        looking.register(self._channel.fileno(), select.POLLIN)
        while not self.gone.done() and looking.poll(0):
            self._readable()
        self._end("it was replaced", self._on_gone)

    def _readable(self) -> None:
        try:
            messages = self._channel.feed()
        except ChannelClosed as error:
            self._end(str(error), self._on_gone)
            return
        try:
            for message, fds in messages:
                if fds:
                    _close(fds)
                    raise EgressFault("descriptors from the egress process")
                self._dispatch(message)
        except (EgressFault, KeyError, TypeError, ValueError) as error:
            self._end(f"{type(error).__name__}: {error}", self._on_fault)

    def _dispatch(self, message: Message) -> None:
        match message["type"]:
            case "event":
                self._event(int(message["n"]), bool(message["accept"]), message["event"])
            case "opened":
                ends = _endpoint(message["source"]), _endpoint(message["destination"])
                self.numbered = self._base + int(message["n"])
                self._attribution.opened(Connection(*ends, self.numbered, bool(message["udp"])))
            case "stats":
                self._stats(message)
            case "policy":
                self._followed(int(message["cut"]))
            case "ca":
                if not self.certified.done():
                    self.certified.set_result(_ca(message["ca"]))
            case "ready":
                if not self.ready.done():
                    self.ready.set_result(None)
            case unknown:
                raise EgressFault(f"message {unknown!r} is not allowed")

    def _followed(self, cut: int) -> None:
        if not self._following:
            raise EgressFault("it follows a policy that it was not told of")
        told = self._following.popleft()
        if not told.done():
            told.set_result(cut)

    def _event(self, number: int, wanted: bool, fields: dict[str, Any]) -> None:
        event = event_of(fields)
        if event.type not in ALLOWED_TYPES or event.actor != self._actor:
            raise EgressFault(f"event {event.type} by {event.actor} is not the egress process's to send")
        if event.type is EventType.SECRET_INJECT and event.resource not in self.secrets:
            raise EgressFault("an injection of a secret that the egress process was not given")
        self._highest = max(self._highest, number)
        if not wanted:
            self._waiting.add(number)
        source = (event.source_ip, event.details.get("source_port"))
        if not isinstance(source[0], str) or not isinstance(source[1], int):
            self._record(number, wanted, event, {})
            return
        udp = event.details.get("transport") == "udp"
        self._attribution.tell((source[0], source[1]), partial(self._record, number, wanted, event), udp=udp)

    def _looked(self, through: int) -> None:
        if through > self._base and not self._stopping:
            self._answer({"type": "seen", "through": through - self._base})

    def _record(self, number: int, wanted: bool, event: Event, found: Found) -> None:
        event = replace(event, details={**found, **event.details})
        if not wanted:
            try:
                self._ledger.post(event)
            except RecordError:
                log.warning("a denial could not be recorded; the loss is counted")
            self._recorded(number)
            return
        try:
            self._ledger.accept(event)
        except RecordError as error:
            self._answer({"type": "refused", "n": number, "error": str(error)})
        else:
            self._answer({"type": "accepted", "n": number})

    def _recorded(self, number: int) -> None:
        """Say so, once for all that is in one turn of the loop."""
        self._waiting.discard(number)
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell_taken)

    def _tell_taken(self) -> None:
        self._telling = False
        through = min(self._waiting) - 1 if self._waiting else self._highest
        if through > self._taken and not self._stopping:
            self._taken = through
            self._answer({"type": "taken", "through": through})

    def _answer(self, message: Message) -> None:
        if not self.gone.done():
            with suppress(EgressFault):  # it is gone, and that is known to whom it matters
                self.send(message)

    def _stats(self, message: Message) -> None:
        up, down, connections = (int(message[name]) for name in ("up", "down", "connections"))
        counts, seconds = [int(number) for number in message["decisions"]], float(message["seconds"])
        if min(up, down, connections, seconds, *counts) < 0:
            raise EgressFault("a count that goes down")
        self._accounts(message["accounts"])
        self._counted.up += up
        self._counted.down += down
        self._metrics.add_egress_bytes(up, down, connections)
        self._metrics.add_decisions("egress", counts, seconds)

    def _accounts(self, told: Mapping[str, list[int]]) -> None:
        accounts, now = self._counted.accounts, asyncio.get_running_loop().time()
        for name, (up, down, recent) in told.items():
            before = accounts.get(name, (0, 0, 0, 0.0))
            if recent < 0 or up < before[0] or down < before[1]:
                raise EgressFault("an account that goes down")
            accounts[str(name)] = (int(up), int(down), int(recent), now)
        if len(accounts) > MAX_ACCOUNTS:
            raise EgressFault("too many accounts")

    def _end(self, reason: str, tell: Callable[[str], None]) -> None:
        if self.gone.done():
            return
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self.gone.set_result(None)
        for waiting in (self.certified, self.ready):
            if not waiting.done():
                waiting.set_exception(EgressFault(reason))
                waiting.exception()
        while self._following:
            self._followed(0)
        if not self._stopping:
            tell(reason)


def record_last_words(descriptor: int, ledger: Ledger, actor: str) -> int:
    """Record what an egress process left that its guard did not live to take; how many events. Raises RecordError, and
    what is raised where it is no row of such events."""
    with open(descriptor, "rb") as file:
        file.seek(0)
        data = file.read(MAX_LAST_WORDS)
    found = 0
    for message in messages(data):
        event = event_of(message["event"])
        if event.type not in ALLOWED_TYPES or event.actor != actor or message["accept"]:
            raise EgressFault(f"event {event.type} by {event.actor} is not the egress process's to leave")
        ledger.post(event)
        found += 1
    return found


def _ca(given: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if given is None else {name: str(given[name]) for name in ("certificate", "key", "chain")}


def _endpoint(given: list[Any]) -> Endpoint:
    """Raises ValueError, TypeError where it is none."""
    address, port = given
    return plain_address(str(address)), int(port)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
