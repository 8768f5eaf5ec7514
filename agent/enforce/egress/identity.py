"""Who a connection goes to: one identity, decided before a byte of it leaves.

Rules kept here: host and port are normalised once and never taken from anywhere else afterwards; the name is decided
before it is looked up, all addresses before one is dialled, and what is dialled is what was decided; CONNECT target,
Host header and TLS server name must agree, and what disagrees is refused under a rule id of its own and recorded. The
policy's observe mode holds for those rules as well.
"""

from __future__ import annotations

import logging
import os
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NoReturn

from agent.describe import describe
from agent.enforce.egress.answer import Answer
from agent.enforce.egress.client import Place
from agent.enforce.egress.hello import ClientHello, HelloError, too_old
from agent.enforce.egress.quota import LIMIT_CONNECTIONS, Excess, LimitExceeded, Quota, Ticket
from agent.enforce.egress.resolve import Failure, ResolveError, Resolver, is_own, wildcard_of
from agent.enforce.egress.secrets import LEAK_INSTEAD, SECRET_LEAK, Secrets, leak_reason
from agent.gate import Gate, Recorder
from agent.policy.addresses import address_class, canonical_address
from agent.policy.decision import Decision, Severity, Verdict
from agent.policy.egress_match import intercepted
from agent.policy.hosts import HostError, host_and_port, normalise_host
from agent.policy.model import EgressSection, Mode, Pattern, Policy
from agent.policy.request import EgressRequest, Origin, Protocol, Stage
from agent.policy.rule_ids import AGENT_FAULT
from agent.policy.terms import session_limits
from agent.policy.words import shown
from agent.record.event import RecordError
from agent.values import dataclass, replace

log = logging.getLogger(__name__)

FAULT: Final = Answer(403, "the agent could not decide; see its log", AGENT_FAULT)
_AUTHORITY: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
RAW_INSTEAD: Final = "other protocols need 'protocol: tcp' in the policy"
TUNNELS: Final = (Protocol.TLS, Protocol.TCP)
_ids: Final = random.Random(os.urandom(32))  # noqa: S311  (names, not secrets)


class Refusal(Exception):
    """The connection goes no further; `answer` is what its client is told."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.reason)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Admission:
    """A connection that may be dialled, and nothing but `request.addresses`. Whoever has it closes the ticket."""

    request: EgressRequest
    decision: Decision
    ticket: Ticket


def parse_authority(text: str, default_port: int | None = None) -> tuple[str, int]:
    """``host:port`` as (normalised host, port). Raises HostError. None: the port must be given."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        raise HostError("the authority is not host:port")
    host, port = match.groups()
    if port is None and default_port is None:
        raise HostError("the port is missing")
    number = default_port or 0 if port is None else int(port)
    if not 0 < number < 65536:
        raise HostError("the port is out of range")
    return normalise_host(host), number


def speaks(policy: Policy, host: str, port: int, protocol: Protocol) -> bool:
    """True where every layer's allow list has a rule for this protocol at this place (it may still be denied)."""
    sections = _listing(policy)
    for section in sections:
        for rule in section.allows.about(host):
            if rule.protocol is protocol and (rule.ports is None or port in rule.ports):
                break
        else:
            return False
    return bool(sections)


def spoken(policy: Policy, host: str, port: int, among: tuple[Protocol, ...] = TUNNELS) -> Protocol:
    """What a connection to `host`:`port` is asked as. All layers must agree; else TLS, and `decide` says no."""
    for protocol in among:
        if speaks(policy, host, port, protocol):
            return protocol
    return Protocol.TLS


def serves(policy: Policy, port: int) -> bool:
    """True where every layer's allow list has a rule for something on this port."""
    sections = _listing(policy)
    return bool(sections) and all(
        any(rule.ports is None or port in rule.ports for rule in section.allow) for section in sections
    )


def speaks_tls(request: EgressRequest, decision: Decision) -> bool:
    """False where bytes are raw by rule, or are let through only because the section observes."""
    allowed = decision.verdict is Verdict.ALLOW or bool(decision.grants)
    return request.protocol is Protocol.TLS and allowed


def _listing(policy: Policy) -> list[EgressSection]:
    return [layer.egress for layer in policy.layers if layer.egress is not None and layer.egress.allow_given]


def observing(policy: Policy) -> bool:
    """True where no layer enforces egress."""
    modes = [layer.egress.mode for layer in policy.layers if layer.egress is not None]
    return bool(modes) and all(mode is Mode.OBSERVE for mode in modes)


def needs_engine(policy: Policy) -> bool:
    """True where the policy looks into the TLS of any host."""
    return bool(intercepted(policy))


def new_request_id() -> str:
    """Unique, not secret."""
    return f"{_ids.getrandbits(64):016x}"


class Doorkeeper:
    """Takes a connection through its decisions."""

    def __init__(
        self,
        policy: Callable[[], Policy],
        gate: Gate,
        recorder: Recorder,
        resolver: Resolver,
        actor: str,
        *,
        secrets: Secrets | None = None,
        quota: Quota | None = None,
    ) -> None:
        self.quota = quota or Quota()
        self._own: set[tuple[str, int]] = set()
        self._policy = policy
        self._gate = gate
        self._recorder = recorder
        self._resolver = resolver
        self._actor = actor
        self.secrets = secrets or Secrets()

    def speaks(self, host: str, port: int, protocol: Protocol) -> bool:
        """True where the policy in force has this protocol at this place (it may still be denied)."""
        return speaks(self._policy(), host, port, protocol)

    def serves(self, port: int) -> bool:
        """True where the policy in force has anything on this port."""
        return serves(self._policy(), port)

    def request(
        self,
        host: str,
        port: int,
        origin: Origin,
        protocol: Protocol | None,
        among: tuple[Protocol, ...] = TUNNELS,
    ) -> EgressRequest:
        """The question about a new connection. `protocol` None: the client does not say, the rules do (`spoken`)."""
        return EgressRequest(
            host=host,
            port=port,
            today=datetime.now(UTC).date(),
            origin=origin.numbered(new_request_id()),
            protocol=protocol or spoken(self._policy(), host, port, among),
        )

    def record_fault(self, origin: Origin) -> None:
        """A connection was refused because judging it failed; whom it was for may be unknown."""
        decision = Decision(Verdict.DENY, FAULT.rule, FAULT.reason, "", severity=Severity.HIGH)
        self._record(_unknown(origin), decision)

    def malformed(self, origin: Origin, reason: str) -> Answer:
        """A request that cannot be read is refused, and on record; whom it was for cannot be known."""
        reason = shown(reason)
        self._record(_unknown(origin), Decision(Verdict.DENY, "malformed-request", reason, self._policy().digest))
        return Answer(400, reason, "malformed-request")

    async def admit(self, request: EgressRequest, hello: ClientHello | None = None) -> Admission:
        """Decide the name, look it up, decide its addresses. `hello`: what the client has said already; it is compared
        before anything is looked up or recorded as allowed. Raises Refusal."""
        leaked = self.secrets.find_in_host(request.host)
        if leaked is not None:
            self.leak(request, leaked, "the name of the host")
        named = await self.check(request)
        if hello is not None and speaks_tls(request, named):
            self.check_hello(request, hello)
        try:
            found = await self._resolver.resolve(request.host, wildcard_of(named))
        except ResolveError as error:
            if error.failure is Failure.BOUND:
                self.refuse(request, "dns-bound", str(error))
            if named.verdict is Verdict.DENY:  # observed only, and there will be no next stage to say so
                self._record(request, named)
            raise Refusal(_upstream(error.timed_out, str(error), request)) from error
        request = replace(request, stage=Stage.CONNECT, addresses=found.addresses)
        if found.own:
            self.refuse(request, "own-address", f"{request.host} is this machine ({found.own[0]})")
        if any(self._is_own(address, request.port) for address in found.addresses):
            here = host_and_port(request.host, request.port)
            raise self.refusal(request, "own-address", f"{here} is the agent's own listener")
        return self._open(request, await self.check(request))

    def _open(self, request: EgressRequest, decision: Decision) -> Admission:
        """Nothing is awaited since the gate answered: the policy in force is the one that decided. Raises Refusal."""
        policy = self._policy()
        try:
            ticket = self.quota.open(
                request, decision, session_limits(policy), self._exceeded, observing=observing(policy)
            )
        except LimitExceeded as error:
            raise Refusal(error.answer) from error
        return Admission(request, decision, ticket)

    def bind(self, ticket: Ticket, request: EgressRequest, decision: Decision, body: int) -> None:
        """One more request on a connection. `body`: its length, negative where it is not announced. Raises Refusal."""
        try:
            ticket.bind(request, decision, observing=observing(self._policy()))
            if body:
                ticket.check_body(max(body, 1))
            ticket.up.check(max(body, 1))
            ticket.down.check()
        except LimitExceeded as error:
            raise Refusal(error.answer) from error

    def _exceeded(self, request: EgressRequest, excess: Excess) -> None:
        decision = Decision(
            verdict=Verdict.DENY,
            rule=excess.rule,
            reason=excess.reason,
            policy_digest=self._policy().digest,
            instead=excess.instead,
            enforced=excess.enforced,
        )
        self._record(request, decision)

    def too_many(self, origin: Origin, most: int) -> Answer:
        """A connection that is refused before it was read: there are `most` already."""
        excess = Excess(LIMIT_CONNECTIONS, f"{most} connections of the session are open", "close some")
        self._exceeded(_unknown(origin), excess)
        return Answer(403, excess.reason, excess.rule, excess.instead)

    def keep_from(self, address: str, port: int) -> None:
        """Nothing is ever dialled that is this listener of ours: what comes in there is trusted further."""
        self._own.add((canonical_address(address.partition("%")[0]) or address, port))

    def _is_own(self, address: str, port: int) -> bool:
        if (address, port) in self._own:
            return True
        anywhere = any((wildcard, port) in self._own for wildcard in ("0.0.0.0", "::"))  # noqa: S104  # compared only
        return anywhere and (address_class(address) == "loopback" or is_own(address))

    async def check(self, request: EgressRequest) -> Decision:
        """Ask the gate. Raises Refusal (403) where it is not permitted."""
        decision = await self._gate.check_async(request)
        if not decision.permitted:
            raise Refusal(_denied(request, decision))
        return decision

    def refuse(self, request: EgressRequest, rule: str, reason: str, instead: str = "", status: int = 403) -> None:
        """Refuse by a rule of the proxy's own: record it and raise Refusal; in observe mode only record it."""
        if not observing(self._policy()):
            raise self.refusal(request, rule, reason, instead, status)
        self._record(request, replace(self._denial(rule, reason, instead), enforced=False))

    def refusal(self, request: EgressRequest, rule: str, reason: str, instead: str = "", status: int = 403) -> Refusal:
        """Record a refusal that holds in every mode; the caller raises what this returns."""
        self._record(request, self._denial(rule, reason, instead))
        return Refusal(Answer(status, reason, rule, instead, request.origin.request_id or ""))

    def _denial(self, rule: str, reason: str, instead: str) -> Decision:
        digest = self._policy().digest
        return Decision(Verdict.DENY, rule, reason, digest, instead=instead, severity=Severity.HIGH)

    def leak(self, request: EgressRequest, secret: str, where: str) -> NoReturn:
        """Refuse a secret in the wrong place, in observe mode too: what has left can't be called back."""
        raise self.refusal(request, SECRET_LEAK, leak_reason(secret, where), LEAK_INSTEAD)

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """What the policy in force has searched uploads for."""
        return self._policy().patterns

    def _record(self, request: EgressRequest, decision: Decision) -> None:
        if not decision.enforced:  # the name's own observation waits for the next stage; this one has no other place
            request = replace(request, stage=Stage.CONNECT)
        event = describe(request, decision, self._actor)
        try:
            if event is not None:
                self._recorder.post(event)
        except RecordError:
            log.exception("a refusal stands, but its record was lost")

    def check_host_header(self, request: EgressRequest, header: str | None, default_port: int) -> None:
        """A Host header must name the same place as the request. Raises HostError, Refusal (421)."""
        if header is None:
            return
        host, port = parse_authority(header, default_port)
        if (host, port) != (request.host, request.port):
            asked, named = host_and_port(request.host, request.port), host_and_port(host, port)
            reason = f"the request is for {asked}, its Host header says {named}"
            self.refuse(request, "host-mismatch", reason, status=421)

    def check_place(self, request: EgressRequest, place: Place | None) -> None:
        """A request inside a connection that was opened to `place` must be for it. Raises Refusal (421)."""
        if place is None or (request.port == place.port and place.host in (None, request.host)):
            return
        where = host_and_port(place.host, place.port) if place.host else f"port {place.port}"
        reason = f"the request is for {host_and_port(request.host, request.port)}, the connection was opened to {where}"
        self.refuse(request, "host-mismatch", reason, "open a connection of its own for each host", status=421)

    def check_hello(self, request: EgressRequest, hello: ClientHello) -> None:
        """The TLS name must be the decided host, readable and alone. Raises Refusal."""
        if hello.sni == request.host and not hello.encrypted and not too_old(hello):
            return  # nearly always; each of the others has its own answer
        request = replace(request, sni=hello.sni)
        if hello.encrypted:
            self.refuse(
                request,
                "ech-refused",
                "Encrypted Client Hello hides which host is meant",
                "switch off ECH in the client",
            )
        if too_old(hello):
            self.refuse(request, "tls-too-old", "the client offers no TLS 1.2 or newer")
        if hello.sni is None:
            if canonical_address(request.host) is None:
                self.refuse(request, "sni-missing", "the TLS ClientHello names no host", "use a client that sends SNI")
            return
        try:
            name = normalise_host(hello.sni)
        except HostError as error:
            self.refuse(request, "sni-mismatch", f"the TLS server name is malformed: {error.message}", status=421)
            return
        if name != request.host:
            self.refuse(
                request,
                "sni-mismatch",
                f"the connection was opened to {request.host}, the TLS server name is {name}",
                status=421,
            )

    def refuse_hello(self, request: EgressRequest, error: HelloError) -> None:
        """What came was no ClientHello. Raises Refusal."""
        self.refuse(
            request,
            error.rule,
            error.reason,
            RAW_INSTEAD if error.rule == "tls-required" else "",
        )


def _denied(request: EgressRequest, decision: Decision) -> Answer:
    return Answer(403, decision.reason, decision.rule, decision.instead, request.origin.request_id or "")


def _upstream(timed_out: bool, reason: str, request: EgressRequest) -> Answer:
    return Answer(504 if timed_out else 502, reason, request_id=request.origin.request_id or "")


def _unknown(origin: Origin) -> EgressRequest:
    return EgressRequest("unknown", 0, datetime.now(UTC).date(), origin)
