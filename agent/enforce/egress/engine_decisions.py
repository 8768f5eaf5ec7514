"""Every request of one intercepted connection: examined, decided, recorded, prepared or refused.

Rules kept here: what the engine itself refuses is a decision like any other, with rule and reason, recorded as the
gate's are; a request goes on only where a decision permits it; what goes upstream is spelled from the connection's
identity, not from the client's; bodies are streamed in both directions, never held, but for the short ones that are
searched for secrets. A secret in the wrong place is refused in observe mode too: what has left can't be called back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import count

from mitmproxy import http
from mitmproxy.net.http.http1.read import read_response_head

from agent.describe import describe
from agent.enforce.egress.answer import Answer, Form, render_answer
from agent.enforce.egress.credentials import CREDENTIAL_PINNED, dropped, pinned, plan
from agent.enforce.egress.engine_quota import Accounts, Terms, response_head, ticket_of
from agent.enforce.egress.engine_requests import (
    CUT,
    Head,
    Identity,
    Refusal,
    examine,
    is_websocket,
    printable,
    tokens,
)
from agent.enforce.egress.engine_scan import Search
from agent.enforce.egress.engine_secrets import SecretTraffic
from agent.enforce.egress.follow import Denied, again, post
from agent.enforce.egress.identity import observing
from agent.enforce.egress.quota import Excess, LimitExceeded
from agent.enforce.egress.scan import CREDENTIAL_IN_UPLOAD, UPLOAD_UNREADABLE
from agent.enforce.egress.secrets import Leak, Secrets, injectable
from agent.gate import Gate, Recorder
from agent.policy.decision import Decision, Severity, Verdict
from agent.policy.model import OnFailure, Policy
from agent.policy.request import EgressRequest, Origin, Stage
from agent.policy.rule_ids import AGENT_FAULT, AUDIT_UNAVAILABLE
from agent.policy.terms import terms

log = logging.getLogger(__name__)

MECHANISM = "engine"
FORBIDDEN = 403
SWITCHING_PROTOCOLS = 101
_PROXY_ONLY = ("proxy-connection", "proxy-authorization")
_NEXT_HOP = ("upgrade", "http2-settings", "te")
_WEBSOCKET = "parhelia_websocket"
# refusals that observe mode can let pass; the others have no meaning that could be carried out
_OBSERVABLE = frozenset(
    {"authority-mismatch", "method-refused", CREDENTIAL_PINNED, CREDENTIAL_IN_UPLOAD, UPLOAD_UNREADABLE}
)
_UPGRADE = Refusal(502, "upgrade-refused", "the server switches to another protocol, or takes an extension, unasked")
_UNRECORDED = Refusal(403, AUDIT_UNAVAILABLE, "the audit log could not take the record (audit.on_failure: deny)")


class Decisions:
    """Asks the gate for each request of the connection `identity` and carries the answer out on mitmproxy's flow."""

    def __init__(
        self,
        identity: Identity,
        policy: Callable[[], Policy],
        gate: Gate,
        recorder: Recorder,
        actor: str,
        *,
        secrets: Secrets | None = None,
        accounts: Accounts | None = None,
        account: str | None = None,
    ) -> None:
        self._identity = identity
        self._policy = policy
        self._gate = gate
        self._recorder = recorder
        self._actor = actor
        self._numbers = count(1)
        self._secrets = secrets or Secrets()
        self._traffic = SecretTraffic(identity, self._secrets, recorder, actor, self._cut)
        self._going: list[tuple[http.HTTPFlow, EgressRequest]] = []
        accounts = accounts or Accounts()
        self._terms = Terms(accounts.quota, accounts.get(account), self._exceeded)

    @property
    def _over_tls(self) -> bool:
        return self._identity.kind == "connect"

    @property
    def observing(self) -> bool:
        """True where the policy only records what it would refuse."""
        return observing(self._policy())

    async def request(self, flow: http.HTTPFlow) -> None:
        """Decide the request whose head is complete. On return the flow is prepared to go on, refused, or killed."""
        head = head_of(flow)
        question = self._question(f"{self._identity.request_id}-{next(self._numbers)}", head)
        refusal = examine(self._identity, head)
        if refusal is None and flow.error is not None:  # mitmproxy found it malformed and answers 400 by itself
            refusal = Refusal(400, "malformed-request", printable(flow.error.msg))
        if refusal is not None and self._stopped(flow, head, question, refusal):
            return
        entries = injectable(self._policy(), self._secrets, self._identity.host) if self._over_tls else ()
        injections = plan(head, entries, self._secrets)
        if isinstance(injections, Refusal):
            self._stopped(flow, head, question, injections)
            return
        decision = await self._gate.check_async(question)
        if not decision.permitted:
            self._refuse(flow, head, decision, FORBIDDEN, question.origin.request_id)
            return
        try:
            self._terms.ticket(flow, question, decision, observing=observing(self._policy()))
        except LimitExceeded as error:
            answer = _limit_decision(error.excess, decision.policy_digest)
            self._refuse(flow, head, answer, FORBIDDEN, question.origin.request_id)
            return
        self._going = [(known, asked) for known, asked in self._going if known.live]
        self._going.append((flow, question))
        bound = terms(decision)
        other = pinned(head, injections, entries, self._secrets, bound)
        if other is not None and self._stopped(flow, head, question, other):
            return
        try:
            await self._traffic.record(injections, decision, question.origin.request_id or "")
        except Exception:
            log.exception("an injection was not recorded")
            if self._policy().audit.on_failure is not OnFailure.CONTINUE:
                self._stopped(flow, head, question, _UNRECORDED)
                return
        search = Search(self._policy().patterns, head) if bound.scan else None
        spilled = None if search is None else search.head(head)
        if search is not None and spilled is not None:
            search.stop()
            if self._stopped(flow, head, question, spilled):
                return
        self._traffic.inject(flow, injections)
        for name in dropped(bound, self._secrets):
            flow.request.headers.pop(name, None)
        if refusal is None:
            self._spell_authority(flow.request, head)
        self._prepare(flow, head)
        self._traffic.watch_request(flow, search)

    def complete(self, flow: http.HTTPFlow) -> None:
        """The whole request is here; the end of it has not been sent. Raises Leak where part of it has.

        Trailers end here, as RFC 9110 6.5.1 allows: no rule has judged them, and servers exist that take them for
        header fields (another credential, a method's override).
        """
        if flow.response is not None:
            return
        refusal = self._traffic.request_complete(flow)
        flow.request.trailers = None
        if refusal is None:
            return
        if flow.request.stream is not False:
            if self._cut(flow, refusal):
                raise Leak(refusal.rule)
            return
        head = head_of(flow)
        question = self._question(f"{self._identity.request_id}-{next(self._numbers)}", head)
        self._stopped(flow, head, question, refusal)

    def redecide(self) -> bool:
        """Every request that goes on, by the policy in force; False where one no longer holds (it is recorded)."""
        policy, holds = self._policy(), True
        for flow, question in self._going:
            if not flow.live:
                continue
            decision = again(policy, question)
            if isinstance(decision, Denied):
                post(self._recorder, question, decision.decision, self._actor)
                holds = False
            elif (ticket := ticket_of(flow)) is not None:
                ticket.rebind(decision, observing=observing(policy))
        return holds

    def response(self, flow: http.HTTPFlow) -> None:
        """Stream it; a switch of protocols passes only where the decided request asked for WebSocket, without more."""
        response = flow.response
        if response is None:
            raise ValueError("a response hook without a response")
        if response.status_code == SWITCHING_PROTOCOLS:
            asked = flow.metadata.get(_WEBSOCKET) and "sec-websocket-extensions" not in response.headers
            if not asked or response.headers.get("upgrade", "").lower() != "websocket":
                self._cut(flow, _UPGRADE)
                flow.kill()  # type: ignore[no-untyped-call]
                return
            self._traffic.mask_head(flow, response)
            return
        try:
            response_head(flow, response)
        except LimitExceeded:
            flow.kill()  # type: ignore[no-untyped-call]
            return
        response.stream = True
        self._traffic.mask_response(flow, response)
        if self._identity.kind == "absolute":
            # the client's next request on this connection could be for another host: it opens a new one
            response.headers["connection"] = "close"

    def trailers(self, flow: http.HTTPFlow) -> None:
        """The whole answer is here; its trailers have not been passed on."""
        self._traffic.mask_trailers(flow)

    def refuse_connection(self, refusal: Refusal, sni: str | None = None) -> None:
        """Record why the whole connection is closed."""
        self._refused(self._question(self._identity.request_id, None, sni), refusal)

    def failed(self, what: str, error: Exception) -> None:
        """Record that the connection is cut because `what` raised; what is raised to refuse has been recorded."""
        if not isinstance(error, (Leak, LimitExceeded)):
            self.refuse_connection(Refusal(502, AGENT_FAULT, f"the agent could not go on: {what} failed"))

    def _question(self, request_id: str, head: Head | None, sni: str | None = None) -> EgressRequest:
        identity = self._identity
        return EgressRequest(
            host=identity.host,
            port=identity.port,
            today=datetime.now(UTC).date(),
            origin=Origin(
                mechanism=MECHANISM,
                source_ip=identity.source_ip,
                source_port=identity.source_port,
                request_id=request_id,
            ),
            protocol=identity.protocol,
            stage=Stage.REQUEST,
            addresses=identity.addresses,
            method=None if head is None else printable(head.method.decode("latin-1"), 32),
            path=None if head is None else head.path.decode("latin-1"),
            query=None if head is None else head.query.decode("latin-1"),
            headers=None if head is None else head.fields,
            sni=None if sni is None else printable(sni),
        )

    def _stopped(self, flow: http.HTTPFlow, head: Head, question: EgressRequest, refusal: Refusal) -> bool:
        """Refuse, record and answer; False where it is only observed."""
        decision = self._refused(question, refusal)
        if decision.permitted:
            return False
        self._refuse(flow, head, decision, refusal.status, question.origin.request_id)
        return True

    def _cut(self, flow: http.HTTPFlow, refusal: Refusal) -> bool:
        """Record what ends an exchange that has begun; whoever calls cuts it. False where it is only observed."""
        number = f"{self._identity.request_id}-{next(self._numbers)}"
        return not self._refused(self._question(number, head_of(flow)), refusal).permitted

    def _refused(self, question: EgressRequest, refusal: Refusal) -> Decision:
        decision = Decision(
            verdict=Verdict.DENY,
            rule=refusal.rule,
            reason=refusal.reason,
            policy_digest=self._policy().digest,
            instead=refusal.instead,
            severity=Severity.HIGH,
            enforced=refusal.rule not in _OBSERVABLE or not observing(self._policy()),
        )
        self._record(question, decision)
        return decision

    def _exceeded(self, question: EgressRequest, excess: Excess) -> None:
        self._record(question, _limit_decision(excess, self._policy().digest))

    def _record(self, question: EgressRequest, decision: Decision) -> None:
        try:
            event = describe(question, decision, self._actor)
            if event is not None:
                self._recorder.post(event)
        except Exception:  # as in the gate: a denial stands where it can't be recorded
            log.exception("denial %s stands, but its record was lost", decision.rule)

    def _refuse(self, flow: http.HTTPFlow, head: Head, decision: Decision, status: int, request_id: str | None) -> None:
        response = _answer(head, decision, status, request_id or "")
        if head.http2 or not (head.values(b"content-length") or head.values(b"transfer-encoding")):
            del response.headers["connection"]  # nothing of the request is left over: the connection can go on
        flow.request.headers.pop("expect", None)
        flow.request.stream = True  # a body that is still to come is thrown away, see DecidedStream
        flow.response = response

    def _spell_authority(self, request: http.Request, head: Head) -> None:
        """What goes upstream is the identity's spelling, in origin-form, whatever form came."""
        request.headers.pop("host", None)
        if head.http2:
            request.authority = self._identity.authority
        else:
            request.authority = ""
            request.headers.insert(0, "Host", self._identity.authority)

    def _prepare(self, flow: http.HTTPFlow, head: Head) -> None:
        request = flow.request
        headers = request.headers
        for name in _PROXY_ONLY:
            headers.pop(name, None)
        if is_websocket(head):
            flow.metadata |= {_WEBSOCKET: True, CUT: partial(self._cut, flow)}
            headers.pop("sec-websocket-extensions", None)  # no compression: a small frame stays a small message
            headers["connection"] = "Upgrade"
        elif not head.http2:
            for name in _NEXT_HOP:
                headers.pop(name, None)
            # no field is named here: who comes next would take it off, although a rule has judged it
            kept = [word for word in ("close", "keep-alive") if word in tokens(head.values(b"connection"))]
            headers.pop("connection", None)
            if kept:
                headers["connection"] = kept[0]
        request.stream = True


def _limit_decision(excess: Excess, digest: str) -> Decision:
    return Decision(Verdict.DENY, excess.rule, excess.reason, digest, instead=excess.instead, enforced=excess.enforced)


def _answer(head: Head, decision: Decision, status: int, request_id: str) -> http.Response:
    """The front's answer, as mitmproxy's value."""
    answer = Answer(status, decision.reason, decision.rule, decision.instead, request_id)
    accept = (value.decode("latin-1") for value in head.values(b"accept"))
    rendered, _, body = render_answer(answer, form=Form.wanted(accept)).partition(b"\r\n\r\n")
    response = read_response_head(rendered.split(b"\r\n"))
    response.data.content = b"" if head.method == b"HEAD" else body
    return response


def head_of(flow: http.HTTPFlow) -> Head:
    """The head as it was received (`Request.method` would be in upper case, `pretty_host` the client's word)."""
    data = flow.request.data
    return Head(
        method=data.method,
        target=data.path,
        authority=data.authority,
        headers=tuple(data.headers.fields),
        version=data.http_version,
        http2=flow.client_conn.alpn == b"h2",  # what was negotiated, not what the request says,
    )
