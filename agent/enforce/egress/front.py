"""The proxy's front: accepts on its doors and takes each connection through the judgement of its door.

Rules kept here: a door serves what it is for (`agent.session.doors`) and nothing else; what is malformed is refused and
recorded; how many connections there are is bounded. An exception nobody expected ends the connection as a denial
(`agent-fault`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from agent.enforce.egress.answer import Answer, render_answer
from agent.enforce.egress.answering import tell
from agent.enforce.egress.capture import Capture, DnsStreams, NamesOf
from agent.enforce.egress.client import Client
from agent.enforce.egress.head import HeadError
from agent.enforce.egress.identity import FAULT, Doorkeeper, Refusal
from agent.enforce.egress.limits import Limits
from agent.enforce.egress.passage import Passage, Ways
from agent.enforce.egress.proxying import Proxying
from agent.enforce.egress.quota import LimitExceeded
from agent.enforce.egress.sightings import Sightings
from agent.enforce.egress.socks import SocksError
from agent.enforce.egress.wire import Poller, Wire, prepare
from agent.policy.addresses import canonical_address
from agent.policy.hosts import HostError
from agent.policy.request import Origin
from agent.session.doors import Door
from agent.session.preamble import PreambleError

log = logging.getLogger(__name__)

type Serve = Callable[[Client], Awaitable[bool]]

_BATCH: Final = 64
_PAUSE_SECONDS: Final = 0.1
_TRANSIENT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_MECHANISM: Final = {Door.PROXY: "proxy", Door.CAPTURE: "capture", Door.FORWARDED: "connect"}


class Front:
    """Serves the proxy's listeners. Must be made inside the running loop. `sightings` None: nobody looks whose
    connections they are."""

    def __init__(
        self,
        poller: Poller,
        door: Doorkeeper,
        ways: Ways,
        limits: Limits,
        *,
        token: bytes,
        names_of: NamesOf | None = None,
        dns: DnsStreams | None = None,
        sightings: Sightings | None = None,
    ) -> None:
        self._sightings = sightings
        self._poller = poller
        self._door = door
        self._ways = ways
        self._limits = limits
        passage = Passage(poller, door, ways, limits)
        capture = Capture(door, passage, ways.forwarder, limits, names_of=names_of, dns=dns, token=token)
        self._serves: dict[Door, Serve] = {
            Door.PROXY: Proxying(door, passage, ways.forwarder, limits).serve,
            Door.CAPTURE: capture.captured,
            Door.FORWARDED: capture.forwarded,
        }
        self._listeners: dict[socket.socket, Door] = {}
        self._conversations: set[asyncio.Task[None]] = set()

    def listen(self, listener: socket.socket, door: Door) -> None:
        """Accept from a bound, listening socket. Raises ValueError for a door that is not the front's."""
        if door not in self._serves:
            raise ValueError(f"door {door} is not served by the front")
        if door is not Door.CAPTURE:  # that one lies in a network of its own, out of reach of what is dialled
            name = listener.getsockname()
            if isinstance(name, tuple):
                self._door.keep_from(str(name[0]), int(name[1]))
        listener.setblocking(False)
        self._listeners[listener] = door
        self._poller.loop.add_reader(listener.fileno(), self._accept, listener)

    def stop(self) -> None:
        """Accept nothing more, and end what is being judged."""
        for listener in self._listeners:
            self._poller.loop.remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()
        for conversation in list(self._conversations):
            conversation.cancel()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _TRANSIENT:
                    self._pause(listener)
                    return
                continue  # that connection went away (accept(2), ECONNABORTED and network errors)
            self._begin(sock, address, self._listeners[listener])

    def _pause(self, listener: socket.socket) -> None:
        self._poller.loop.remove_reader(listener.fileno())
        self._poller.loop.call_later(_PAUSE_SECONDS, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._poller.loop.add_reader(listener.fileno(), self._accept, listener)

    def _begin(self, sock: socket.socket, address: object, door: Door) -> None:
        sock.setblocking(False)
        if self._open() >= self._limits.connections:
            answer = self._door.too_many(_origin(door, address), self._limits.connections)
            if door is Door.PROXY:
                with contextlib.suppress(OSError):
                    sock.send(render_answer(answer))
            sock.close()
            return
        prepare(sock)
        client = Client(Wire(self._poller, sock), _origin(door, address))
        if self._sightings is not None and isinstance(address, tuple):
            client.number = self._sightings.opened(address[:2], sock.getsockname()[:2])
        serving = self._serve(client, self._serves[door])
        conversation = asyncio.Task(serving, loop=self._poller.loop, eager_start=True)
        if not conversation.done():
            self._conversations.add(conversation)
            conversation.add_done_callback(self._conversations.discard)

    def _open(self) -> int:
        engine = self._ways.engine
        return len(self._conversations) + self._ways.carrier.open + (0 if engine is None else engine.open)

    async def _serve(self, client: Client, serve: Serve) -> None:
        """The fail-closed wrapper of a connection."""
        handed_over = False
        try:
            handed_over = await serve(client)
        except Refusal as refusal:
            await self._refuse(client, refusal.answer)
        except LimitExceeded as error:
            await self._refuse(client, error.answer)
        except (HeadError, HostError, SocksError, PreambleError) as error:
            await self._refuse(client, self._door.malformed(client.origin, str(error)))
        except TimeoutError:
            await self._refuse(client, Answer(408, "the request took too long"))
        except OSError:
            pass  # the client went away
        except Exception:
            log.exception("a connection could not be judged; denied")
            self._door.record_fault(client.origin)
            await self._refuse(client, FAULT)
        finally:
            if not handed_over:
                client.wire.close()

    async def _refuse(self, client: Client, answer: Answer) -> None:
        if self._sightings is not None:
            await self._sightings.wait(client.number)
        await tell(client, answer)


def _origin(door: Door, address: object) -> Origin:
    if not isinstance(address, tuple):
        return Origin(_MECHANISM[door])
    source = str(address[0]).partition("%")[0]
    return Origin(_MECHANISM[door], source_ip=canonical_address(source) or source, source_port=int(address[1]))
