"""Secrets in intercepted traffic: injected, kept in, and masked on their way back; and uploads that are searched.

Rules kept here: an injection is recorded before the request goes on, and a request whose injection can't be recorded
does not; what is searched is the head, the body, the trailers and every WebSocket message and control frame; a short
body is searched before anything of it is sent, a longer one as it flows, and its connection is cut when a secret turns
up (the secret never leaves whole); after an injection the upstream is asked for plain bytes, all at once, and what it
sends back is masked in its own length, so that no framing changes; an answer that can't be searched is not passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from mitmproxy import http

from agent.enforce.egress.credentials import Injection, leak
from agent.enforce.egress.engine_requests import Identity, Refusal
from agent.enforce.egress.engine_scan import Search
from agent.enforce.egress.secrets import Leak, Secrets
from agent.gate import Recorder
from agent.policy.decision import Decision
from agent.record.event import Action, Event, EventType, ResourceType, Result

HELD_BODY: Final = 64 * 1024
"""Bytes. A body of up to this many, whose length is given, is searched before it is sent."""
_MOST_HELD: Final = 16
INJECTED: Final = "parhelia_injected"
SEARCH: Final = "parhelia_search"
FAILED: Final = "parhelia_failed"
CONTROL: Final = "parhelia_control"
ANSWER_UNREADABLE: Final = "answer-unreadable"
_PLAIN: Final = frozenset({"", "identity"})


class SecretTraffic:
    """What happens to secrets in the flows of one connection. `leaked(flow, refusal)` records a leak in a stream;
    False where it is only observed."""

    def __init__(
        self,
        identity: Identity,
        secrets: Secrets,
        recorder: Recorder,
        actor: str,
        leaked: Callable[[http.HTTPFlow, Refusal], bool],
    ) -> None:
        self._identity = identity
        self._secrets = secrets
        self._recorder = recorder
        self._actor = actor
        self._leaked = leaked
        self._holding: set[str] = set()

    async def record(self, injections: Sequence[Injection], decision: Decision, request_id: str) -> None:
        """Say what is about to be put in. Raises RecordError (or what the recorder raises) where it isn't taken."""
        for injection in injections:
            pending = self._recorder.accept(self._event(injection, decision, request_id))
            if pending is not None:
                await pending

    def inject(self, flow: http.HTTPFlow, injections: Sequence[Injection]) -> None:
        """Put the values in."""
        fields = list(flow.request.headers.fields)
        for injection in injections:
            fields[injection.index] = (fields[injection.index][0], injection.value)
        flow.request.headers.fields = tuple(fields)
        if injections:
            flow.metadata[INJECTED] = True
            for name in ("range", "if-range"):  # a value that comes back in pieces is never seen whole
                flow.request.headers.pop(name, None)
            flow.request.headers["accept-encoding"] = "identity"

    def watch_request(self, flow: http.HTTPFlow, search: Search | None) -> None:
        """Search what is still to come of the request; for credentials of known shapes too where `search` is given."""
        if not self._secrets and search is None:
            return
        flow.metadata[SEARCH] = search
        length = flow.request.headers.get("content-length", "")
        if length.isdecimal() and int(length) <= HELD_BODY and len(self._holding) < _MOST_HELD:
            self._holding.add(flow.id)
            flow.request.stream = False
        else:
            flow.request.stream = self._watched(flow, search)
        outgoing, incoming = self._secrets.watch(), self._secrets.masked()

        def frame(payload: bytes, from_client: bool) -> bytes:
            """A message or the payload of a control frame: whole, nothing is held back between two of them."""
            if from_client:
                self._search(flow, None if search is None else search.text(payload, "a WebSocket frame"), search)
            elif not flow.metadata.get(INJECTED):
                return payload
            with self._recorded(flow, "a WebSocket frame"):
                return (outgoing if from_client else incoming).feed(payload, last=True)

        flow.metadata[CONTROL] = frame

    def request_complete(self, flow: http.HTTPFlow) -> Refusal | None:
        """The body (where it was held) and the trailers are here; nothing of them has been sent."""
        search: Search | None = flow.metadata.get(SEARCH)
        if not self._secrets and search is None:
            return None
        self._holding.discard(flow.id)
        held = flow.request.raw_content or b""
        found = self._secrets.find(held)
        if found is not None:
            return leak(found, "the body")
        refusal = (search.body(held) or search.end()) if search is not None and held else None
        if refusal is not None:
            return refusal
        for name, value in flow.request.trailers.fields if flow.request.trailers else ():
            refusal = None if search is None else search.text(name + b": " + value, "a trailer")
            if refusal is not None:
                return refusal
            found = self._secrets.find(name) or self._secrets.find(value)
            if found is not None:
                return leak(found, "a trailer")
        return None

    def mask_response(self, flow: http.HTTPFlow, response: http.Response) -> None:
        """Mask the head, and what is still to come. Raises Leak where a value can't be masked."""
        if not flow.metadata.get(INJECTED):
            return
        coding = response.headers.get("transfer-encoding", "").strip().lower().removesuffix("chunked")
        if coding or response.headers.get("content-encoding", "").strip().lower() not in _PLAIN:
            reason = "the answer is compressed although plain bytes were asked for: it can't be searched"
            flow.metadata[FAILED] = reason
            self._leaked(flow, Refusal(502, ANSWER_UNREADABLE, reason))
            return
        self.mask_head(flow, response)
        masked = self._secrets.masked()

        def stream(data: bytes) -> Iterable[bytes]:
            with self._recorded(flow, "the answer's body"):
                return _pieces(masked.feed(data, last=not data))

        response.stream = stream

    def mask_head(self, flow: http.HTTPFlow, response: http.Response) -> None:
        """Mask the head alone. Raises Leak where a value can't be masked."""
        if not flow.metadata.get(INJECTED):
            return
        with self._recorded(flow, "the answer's head"):
            response.headers.fields = self._masked(response.headers)
            response.data.reason = self._secrets.mask(response.data.reason)

    def mask_trailers(self, flow: http.HTTPFlow) -> None:
        """The answer's trailers, which come last. Raises Leak."""
        trailers = None if flow.response is None else flow.response.trailers
        if trailers and flow.metadata.get(INJECTED):
            with self._recorded(flow, "the answer's trailers"):
                trailers.fields = self._masked(trailers)

    def _masked(self, fields: http.Headers) -> tuple[tuple[bytes, bytes], ...]:
        return tuple((self._secrets.mask(name), self._secrets.mask(value)) for name, value in fields.fields)

    @contextmanager
    def _recorded(self, flow: http.HTTPFlow, where: str) -> Iterator[None]:
        """A Leak inside ends the connection; it is said before."""
        try:
            yield
        except Leak as found:
            self._leaked(flow, leak(found.name, where))
            raise

    def _search(self, flow: http.HTTPFlow, refusal: Refusal | None, search: Search | None) -> None:
        """Raises Leak where what was found is refused, once it is recorded."""
        if refusal is None or search is None:
            return
        search.stop()
        if self._leaked(flow, refusal):
            raise Leak(refusal.rule)

    def _watched(self, flow: http.HTTPFlow, search: Search | None) -> Callable[[bytes], Iterable[bytes]]:
        watch = self._secrets.watch()

        def stream(data: bytes) -> Iterable[bytes]:
            if search is not None:
                self._search(flow, search.body(data) if data else search.end(), search)
            with self._recorded(flow, "the body"):
                return _pieces(watch.feed(data, last=not data))

        return stream

    def _event(self, injection: Injection, decision: Decision, request_id: str) -> Event:
        return Event(
            type=EventType.SECRET_INJECT,
            actor=self._actor,
            action=Action.READ,
            resource=injection.secret,
            resource_type=ResourceType.SECRET,
            result=Result.SUCCESS,
            source_ip=self._identity.source_ip,
            details={
                "secret_name": injection.secret,
                "host": self._identity.host,
                "port": self._identity.port,
                "source_port": self._identity.source_port,
                "header": injection.header,
                "request_id": request_id,
                "mechanism": "engine",
                "rule": decision.rule,
                "policy_digest": decision.policy_digest,
            },
        )


def _pieces(data: bytes) -> Iterable[bytes]:
    """mitmproxy would end a chunked body at an empty piece."""
    return [data] if data else []
