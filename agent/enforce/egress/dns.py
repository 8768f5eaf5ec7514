"""The session's name server: A and AAAA for names that the policy allows, REFUSED for everything else.

Rules kept here: a message is read by `agent.enforce.egress.question` before the library sees it; a name is decided
before it is looked up, so a refused one causes no query upstream; its addresses are judged before they are told, and
are those that a dial of the name uses (`Resolver`); an answer is told to be good for no longer than the resolver keeps
it; no other types (no HTTPS or SVCB, hence no Encrypted Client Hello keys), no delegation. The machine's own name leads
to the session's loopback and is asked of nobody. An exception nobody expected is a denial (`agent-fault`).

How many questions are under way, how many TCP connections are open and how long one may be silent is bounded; what is
over the bounds is refused and on record. An answer over UDP leaves from the address that was asked: in the jail every
address is local, and a program may ask any name server it knows.

Sources: RFC 1035, RFC 6891 (EDNS), RFC 7766 (TCP), RFC 8914 (why a name is refused), ip(7) (IP_PKTINFO), ipv6(7).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from dns.edns import EDECode

from agent.enforce.egress.dns_message import Reply, parse, render, type_name
from agent.enforce.egress.identity import observing
from agent.enforce.egress.question import (
    AAAA,
    MAX_QUERY,
    NOERROR,
    NXDOMAIN,
    REFUSED,
    SERVFAIL,
    A,
    Question,
    QuestionError,
    bare_answer,
    read_question,
)
from agent.enforce.egress.resolve import Failure, Resolution, ResolveError, Resolver, wildcard_of
from agent.enforce.egress.secrets import SECRET_LEAK, Secrets, leak_reason
from agent.enforce.egress.sightings import Sightings
from agent.enforce.egress.wire import Poller, Wire, prepare
from agent.gate import Gate
from agent.policy.decision import Decision, Severity, Verdict
from agent.policy.model import Policy
from agent.policy.request import EgressRequest, Origin, Protocol, Stage
from agent.policy.rule_ids import AGENT_FAULT
from agent.policy.words import shown
from agent.values import dataclass, replace

log = logging.getLogger(__name__)

PORT: Final = 53
QUESTIONS: Final = 256
CONNECTIONS: Final = 64
IDLE_SECONDS: Final = 10.0
_BATCH: Final = 64
_V4_INFO: Final = struct.Struct("@i4s4s")  # struct in_pktinfo: interface, local address, destination (ip(7))
_V6_INFO: Final = struct.Struct("@16sI")  # struct in6_pktinfo: destination, interface (ipv6(7), RFC 3542 6)
_IPV6_FREEBIND: Final = 78  # linux/in6.h: answer from an address that is local by route only
_ANCILLARY: Final = socket.CMSG_SPACE(_V4_INFO.size) + socket.CMSG_SPACE(_V6_INFO.size)
_TYPES: Final = {A: socket.AF_INET, AAAA: socket.AF_INET6}
_LOOPBACK: Final = {socket.AF_INET: ("127.0.0.1",), socket.AF_INET6: ("::1",)}

type Ancillary = list[tuple[int, int, bytes]]


@dataclass(frozen=True, slots=True)
class _Asker:
    """Who sent a datagram, and from which address they expect an answer. `number`: as which the guard was told."""

    sock: socket.socket
    source: tuple[str, int]
    back: Ancillary
    number: int

    def tell(self, answer: bytes) -> None:
        """An answer that cannot be sent is lost, as datagrams are; its client asks again."""
        with contextlib.suppress(OSError):
            self.sock.sendmsg([answer], self.back, 0, self.source)


class NameServer:
    """Serves the session's questions. Must be made inside the running loop. `sightings` None: nobody looks whose
    questions they are."""

    def __init__(
        self,
        poller: Poller,
        policy: Callable[[], Policy],
        gate: Gate,
        resolver: Resolver,
        secrets: Secrets,
        *,
        sightings: Sightings | None = None,
    ) -> None:
        self._sightings = sightings
        self._poller = poller
        self._policy = policy
        self._gate = gate
        self._resolver = resolver
        self._secrets = secrets
        self._here = frozenset({"localhost", socket.gethostname().lower()})
        self._listeners: list[socket.socket] = []
        self._underway: set[asyncio.Task[None]] = set()
        self._late: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()

    def listen_udp(self, sock: socket.socket) -> None:
        """Answer the datagrams of a bound socket. Raises OSError."""
        ask_for_destination(sock)
        self._listen(sock, self._read_datagrams)

    def listen_tcp(self, listener: socket.socket) -> None:
        """Accept from a bound, listening socket."""
        self._listen(listener, self._accept)

    def _listen(self, sock: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        sock.setblocking(False)
        self._listeners.append(sock)
        self._poller.loop.add_reader(sock.fileno(), serve, sock)

    def stop(self) -> None:
        """Answer nothing more."""
        for sock in self._listeners:
            self._poller.loop.remove_reader(sock.fileno())
            sock.close()
        self._listeners.clear()
        for task in [*self._underway, *self._late, *self._connections]:
            task.cancel()

    async def answer(self, data: bytes, origin: Origin, *, tcp: bool = False) -> bytes | None:
        """The whole answer to a whole message, None where none is given. Never raises: the fail-closed wrapper."""
        try:
            question = read_question(data)
            asked = parse(data)
            qtype = ("qtype", type_name(question.rdtype))
            reply = await self._judge(question, replace(origin, extra=(*origin.extra, qtype)))
            return render(asked, question, reply, tcp=tcp)
        except QuestionError as error:
            self._record(_unknown(origin), "malformed-request", shown(str(error)))
            return error.answer
        except Exception:
            log.exception("a DNS question could not be judged; refused")
            self._record(_unknown(origin), AGENT_FAULT, "the agent could not decide; see its log")
            return bare_answer(data, REFUSED)  # read_question lets nothing shorter than a header get this far

    async def serve_tcp_connection(self, wire: Wire, prefix: bytes, origin: Origin, number: int = 0) -> None:
        """Answer the questions of a connection, one after the other, until it ends; `prefix`: what was read already,
        `number`: as which the guard was told of it.

        The caller closes the wire. Raises OSError where the client goes away or is silent for too long.
        """
        origin = replace(origin, mechanism="dns")
        buffered = bytearray(prefix)
        while True:
            wire.limit(IDLE_SECONDS)
            data = await self._read_message(wire, buffered, origin)
            wire.limit(None)
            answer = None if data is None else await self.answer(data, origin, tcp=True)
            if self._sightings is not None and (buffered if data is None else answer is None or _refuses(answer)):
                await self._sightings.wait(number)
            if answer is None:
                return
            wire.limit(IDLE_SECONDS)
            await wire.send(struct.pack(">H", len(answer)) + answer)

    async def _judge(self, question: Question, origin: Origin) -> Reply:
        asked = EgressRequest(question.host, PORT, datetime.now(UTC).date(), origin, Protocol.TCP, Stage.LOOKUP)
        leaked = self._secrets.find_in_host(question.host) or self._secrets.find_in_host(question.written)
        if leaked is not None:
            decision = self._record(asked, SECRET_LEAK, leak_reason(leaked, "the name that is looked up"))
            return _refusal(decision, EDECode.BLOCKED)
        family = _TYPES.get(question.rdtype)
        if question.host in self._here:
            return Reply(NOERROR, _LOOPBACK[family] if family is not None else ())
        decision = await self._gate.check_async(asked)
        if not decision.permitted:
            return _refusal(decision, EDECode.BLOCKED)
        if family is None:
            reason = f"only addresses are answered (A, AAAA), not DNS type {question.rdtype}"
            return _refusal(self._record(asked, "dns-type", reason), EDECode.NOT_SUPPORTED)
        try:
            found, seconds = await self._resolver.answer(question.host, wildcard_of(decision))
        except ResolveError as error:
            if error.failure is Failure.BOUND:
                return _refusal(self._record(asked, "dns-bound", str(error)), EDECode.PROHIBITED)
            return _failure(error)
        refused = await self._judge_addresses(replace(asked, addresses=found.addresses), found, decision)
        if refused is not None:
            return _refusal(refused, EDECode.BLOCKED)
        self._resolver.pin(question.host, found)
        version = ":" if family == socket.AF_INET6 else "."
        return Reply(NOERROR, tuple(address for address in found.addresses if version in address), seconds)

    async def _judge_addresses(self, request: EgressRequest, found: Resolution, named: Decision) -> Decision | None:
        """The refusal, None where there is none."""
        if named.verdict is not Verdict.ALLOW:  # only observed, and on record as such
            return None
        if found.own and not observing(self._policy()):
            return self._record(request, "own-address", f"{request.host} is this machine ({found.own[0]})")
        decision = await self._gate.check_async(request)
        return None if decision.permitted else decision

    def _record(self, request: EgressRequest, rule: str, reason: str) -> Decision:
        """A refusal by a rule of the name server's own."""
        digest = self._policy().digest
        return self._gate.deny(request, Decision(Verdict.DENY, rule, reason, digest, severity=Severity.HIGH))

    def _read_datagrams(self, sock: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                data, ancillary, _, source = sock.recvmsg(MAX_QUERY + 1, _ANCILLARY)
            except OSError:  # nothing more waits, or the kernel's word about an earlier answer (ip(7))
                return
            origin = Origin("dns", source_ip=str(source[0]), source_port=int(source[1]), extra=(("transport", "udp"),))
            asker = _Asker(sock, source, to_sender(ancillary), self._opened(sock, source, udp=True))
            task = asyncio.Task(self._answer_datagram(data, asker, origin), loop=self._poller.loop, eager_start=True)
            if not task.done() and len(self._underway) >= QUESTIONS:  # what need not wait is answered all the same
                task.cancel()
                self._record(_unknown(origin), "dns-bound", f"more than {QUESTIONS} DNS questions are under way")
                asker.tell(bare_answer(data, REFUSED))
            else:
                _keep(task, self._underway)

    async def _answer_datagram(self, data: bytes, asker: _Asker, origin: Origin) -> None:
        answer = await self.answer(data, origin)
        if answer is None:
            return
        if self._sightings is not None and _refuses(answer) and len(self._late) < QUESTIONS:
            work = self._answer_late(self._sightings.wait(asker.number), asker, answer)
            _keep(asyncio.Task(work, loop=self._poller.loop, eager_start=True), self._late)
        else:
            asker.tell(answer)

    async def _answer_late(self, seen: Awaitable[None], asker: _Asker, answer: bytes) -> None:
        await seen
        asker.tell(answer)

    def _opened(self, sock: socket.socket, source: tuple[str, int], *, udp: bool = False) -> int:
        return 0 if self._sightings is None else self._sightings.opened(source[:2], sock.getsockname()[:2], udp=udp)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                sock, source = listener.accept()
            except OSError:  # nothing more waits, that one went away, or no descriptor is left: level-triggered
                return
            origin = Origin("dns", source_ip=str(source[0]), source_port=int(source[1]))
            if len(self._connections) >= CONNECTIONS:
                self._record(_unknown(origin), "dns-bound", f"more than {CONNECTIONS} DNS connections are open")
                sock.close()
                continue
            sock.setblocking(False)
            prepare(sock)
            number = self._opened(sock, source)
            work = self._serve(Wire(self._poller, sock), origin, number)
            _keep(asyncio.Task(work, loop=self._poller.loop, eager_start=True), self._connections)

    async def _serve(self, wire: Wire, origin: Origin, number: int) -> None:
        try:
            with contextlib.suppress(OSError):
                await self.serve_tcp_connection(wire, b"", origin, number)
        finally:
            wire.close()

    async def _read_message(self, wire: Wire, buffered: bytearray, origin: Origin) -> bytes | None:
        """The next message, its length in front (RFC 1035 4.2.2), None at the end."""
        while True:
            length = int.from_bytes(buffered[:2]) if len(buffered) >= 2 else None
            if length is not None and length > MAX_QUERY:
                self._record(_unknown(origin), "malformed-request", "the DNS message is too long")
                return None
            if length is not None and len(buffered) >= 2 + length:
                message = bytes(buffered[2 : 2 + length])
                del buffered[: 2 + length]
                return message
            data = await wire.recv()
            if not data:
                return None
            buffered += data


def ask_for_destination(sock: socket.socket) -> None:
    """Have each datagram say which address it was sent to. Raises OSError."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        with contextlib.suppress(OSError):  # gVisor has neither the option nor addresses that no interface has
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_PKTINFO, 1)


def to_sender(ancillary: Ancillary) -> Ancillary:
    """What makes an answer leave from the address that the datagram was sent to."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, socket.IP_PKTINFO) and len(data) >= _V4_INFO.size:
            _, _, destination = _V4_INFO.unpack_from(data)
            return [(level, kind, _V4_INFO.pack(0, destination, bytes(4)))]
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) and len(data) >= _V6_INFO.size:
            destination, interface = _V6_INFO.unpack_from(data)
            link_local = destination[0] == 0xFE and destination[1] & 0xC0 == 0x80
            return [(level, kind, _V6_INFO.pack(destination, interface if link_local else 0))]
    return []


def _refuses(answer: bytes) -> bool:
    """Whether it is on record as a refusal, by its RCODE (RFC 1035 4.1.1)."""
    return answer[3] & 15 not in (NOERROR, NXDOMAIN, SERVFAIL)


def _keep(task: asyncio.Task[None], among: set[asyncio.Task[None]]) -> None:
    if not task.done():
        among.add(task)
        task.add_done_callback(among.discard)


def _unknown(origin: Origin) -> EgressRequest:
    """Stands for a question whose name is not known or not read."""
    return EgressRequest("unknown", PORT, datetime.now(UTC).date(), origin, Protocol.TCP, Stage.LOOKUP)


def _refusal(decision: Decision, info: EDECode) -> Reply:
    return Reply(REFUSED, info=info, reason=f"{decision.rule}: {decision.reason}")


def _failure(error: ResolveError) -> Reply:
    """What the resolver could not tell, told as it is."""
    match error.failure:
        case Failure.NO_NAME:
            return Reply(NXDOMAIN)
        case Failure.NO_ADDRESS:
            return Reply(NOERROR)
        case Failure.TIMED_OUT:
            return Reply(SERVFAIL, info=EDECode.NO_REACHABLE_AUTHORITY, reason=str(error))
        case _:
            return Reply(SERVFAIL, info=EDECode.NETWORK_ERROR, reason=str(error))
