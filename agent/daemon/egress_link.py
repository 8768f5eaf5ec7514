"""The guard's end of the channel to the egress process.

The egress process parses hostile bytes, so it is trusted with little: one dispatch table of messages it may send,
events of the network kind and injections of the secrets it was given, and always in the session's name. Anything else
is a fault, and a fault ends the session. The values of secrets go to it in the start message and are in nothing else.
What it can't know is added here: the process behind each connection (`agent.daemon.attribution`).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import pickle
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from secrets import token_bytes
from typing import Any

from agent.channel import Channel, ChannelClosed, Message
from agent.daemon.attribution import Attribution, Connection, Found, plain_address
from agent.daemon.socket_tables import Endpoint
from agent.daemon.spec import User
from agent.enforce.egress.secrets import Secrets
from agent.policy.model import Policy
from agent.record.event import Event, EventType, RecordError, event_of
from agent.record.ledger import Ledger
from agent.record.metrics import Metrics
from agent.session.doors import Door
from agent.session.preamble import TOKEN_BYTES

log = logging.getLogger(__name__)

SEND_SECONDS = 2
ALLOWED_TYPES = frozenset({EventType.NETWORK_EGRESS, EventType.NETWORK_EGRESS_BLOCKED, EventType.SECRET_INJECT})


class EgressFault(Exception):
    """The egress process is gone or does what it must not."""


class EgressLink:
    """Starts the egress process's work, takes its events and numbers. `on_fault` is called once when it fails."""

    def __init__(
        self,
        channel: Channel,
        ledger: Ledger,
        metrics: Metrics,
        actor: str,
        *,
        on_fault: Callable[[str], None],
        attribution: Attribution,
    ) -> None:
        self._channel = channel
        self._ledger = ledger
        self._metrics = metrics
        self._actor = actor
        self._on_fault = on_fault
        self._attribution = attribution
        attribution.on_look = self._looked
        self._ca: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stopping = False
        self._secrets = Secrets()
        self.token = token_bytes(TOKEN_BYTES)
        """What makes the preamble of a forwarded connection true (agent.session.preamble)."""
        self.bytes_up = 0
        self.bytes_down = 0
        timeout = struct.pack("ll", SEND_SECONDS, 0)
        channel.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        asyncio.get_running_loop().add_reader(channel.fileno(), self._readable)

    async def start(self, policy: Policy, user: User | None, ca_file: str | None, secrets: Secrets) -> str | None:
        """Hand over the policy; returns the interception CA's certificate (PEM), None where none is needed."""
        self._secrets = secrets
        self._send(
            {
                "type": "start",
                # pickle goes one way only: from the guard (root) to the process with fewer rights
                "policy": base64.b64encode(pickle.dumps(policy)).decode(),
                "actor": self._actor,
                "uid": None if user is None else user.uid,
                "gid": None if user is None else user.gid,
                "ca_file": ca_file,
                "secrets": secrets.dump(),
                "token": self.token.hex(),
            }
        )
        return await self._ca

    def follow(self, policy: Policy) -> None:
        """Another policy is in force. Raises EgressFault."""
        self._send({"type": "policy", "policy": base64.b64encode(pickle.dumps(policy)).decode()})

    async def listen(self, doors: list[Door], listeners: list[int]) -> None:
        """Hand over listening sockets, each with what it is for, and wait until they are served."""
        self._send({"type": "listen", "doors": [str(door) for door in doors]}, listeners)
        await self._ready

    async def stop(self, seconds: float) -> None:
        """Ask for the last numbers and the end."""
        if not self._stopping:
            self._stopping = True
            try:
                self._send({"type": "stop"})
            except EgressFault:
                return
        try:
            await asyncio.wait_for(asyncio.shield(self._gone), seconds)
        except TimeoutError:
            log.warning("the egress process did not stop in time")

    def _send(self, message: Message, fds: list[int] | None = None) -> None:
        try:
            self._channel.send(message, fds or [])
        except ChannelClosed as error:
            self._fault(f"egress channel: {error}")
            raise EgressFault(str(error)) from error

    def _readable(self) -> None:
        try:
            for message, fds in self._channel.feed():
                if fds:
                    raise EgressFault("descriptors from the egress process")
                self._dispatch(message)
        except (ChannelClosed, EgressFault, KeyError, TypeError, ValueError) as error:
            self._fault(f"{type(error).__name__}: {error}")

    def _dispatch(self, message: Message) -> None:
        match message["type"]:
            case "event":
                self._event(int(message["n"]), bool(message["accept"]), message["event"])
            case "opened":
                ends = _endpoint(message["source"]), _endpoint(message["destination"])
                self._attribution.opened(Connection(*ends, int(message["n"]), bool(message["udp"])))
            case "stats":
                self._stats(message)
            case "policy":
                log.info("policy %s is followed, %d connections cut", str(message["digest"])[:12], int(message["cut"]))
            case "ca":
                if not self._ca.done():
                    self._ca.set_result(message["pem"])
            case "ready":
                if not self._ready.done():
                    self._ready.set_result(None)
            case unknown:
                raise EgressFault(f"message {unknown!r} is not allowed")

    def _event(self, number: int, wanted: bool, fields: dict[str, Any]) -> None:
        event = event_of(fields)
        if event.type not in ALLOWED_TYPES or event.actor != self._actor:
            raise EgressFault(f"event {event.type} by {event.actor} is not the egress process's to send")
        if event.type is EventType.SECRET_INJECT and event.resource not in self._secrets:
            raise EgressFault("an injection of a secret that the egress process was not given")
        source = (event.source_ip, event.details.get("source_port"))
        if not isinstance(source[0], str) or not isinstance(source[1], int):
            self._record(number, wanted, event, {})
            return
        udp = event.details.get("transport") == "udp"
        self._attribution.tell((source[0], source[1]), partial(self._record, number, wanted, event), udp=udp)

    def _looked(self, through: int) -> None:
        if not self._gone.done() and not self._stopping:
            with suppress(EgressFault):  # told to whom it matters, and the session ends
                self._send({"type": "seen", "through": through})

    def _record(self, number: int, wanted: bool, event: Event, found: Found) -> None:
        event = replace(event, details={**found, **event.details})
        if not wanted:
            try:
                self._ledger.post(event)
            except RecordError:
                log.warning("a denial could not be recorded; the loss is counted")
            return
        try:
            self._ledger.accept(event)
        except RecordError as error:
            self._send({"type": "refused", "n": number, "error": str(error)})
        else:
            self._send({"type": "accepted", "n": number})

    def _stats(self, message: Message) -> None:
        up, down, connections = (int(message[name]) for name in ("up", "down", "connections"))
        counts, seconds = [int(number) for number in message["decisions"]], float(message["seconds"])
        if min(up, down, connections, seconds, *counts) < 0:
            raise EgressFault("a count that goes down")
        self.bytes_up += up
        self.bytes_down += down
        self._metrics.add_egress_bytes(up, down, connections)
        self._metrics.add_decisions("egress", counts, seconds)

    def _fault(self, reason: str) -> None:
        if self._gone.done():
            return
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._gone.set_result(None)
        for waiting in (self._ca, self._ready):
            if not waiting.done():
                waiting.set_exception(EgressFault(reason))
                waiting.exception()
        if not self._stopping:
            self._on_fault(reason)


def _endpoint(given: list[Any]) -> Endpoint:
    """Raises ValueError, TypeError where it is none."""
    address, port = given
    return plain_address(str(address)), int(port)
