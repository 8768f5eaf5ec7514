"""The limits of the hosts that the engine's worker serves: their bytes, here and elsewhere, and each request's terms.

Rules kept here: a host's total is what this worker carried and what it was told that went by other ways (tunnels, plain
HTTP). Both sides tell each other once a second, so over a limit may go at most what the other side carries in about two
seconds; within one side nothing goes over. Bytes are those of requests and responses, without TLS, and are counted
before they are passed on.
"""

from __future__ import annotations

from mitmproxy import http

from agent.enforce.egress.accounts import Account
from agent.enforce.egress.quota import Quota, Report, Ticket
from agent.policy.decision import Decision
from agent.policy.hosts import is_wildcard
from agent.policy.request import EgressRequest
from agent.values import dataclass

_TICKET = "parhelia_ticket"
_FIELD_OVERHEAD = 4  # colon, space, CR, LF


@dataclass(frozen=True, slots=True)
class Terms:
    """How one connection's requests are bound: the account of its host, and who is told of an excess."""

    quota: Quota
    account: Account
    report: Report

    def ticket(self, flow: http.HTTPFlow, question: EgressRequest, decision: Decision, *, observing: bool) -> None:
        """Bind the request to what its rule says. Raises LimitExceeded where it is too much already."""
        ticket = Ticket(self.quota, self.account, question, self.report)
        ticket.bind(question, decision, observing=observing)
        length = _announced(flow.request)
        if length:
            ticket.check_body(length)
        ticket.down.check()
        ticket.up.check(max(length, 1))
        ticket.up.take(_size(flow.request))
        flow.metadata[_TICKET] = ticket  # not where it is refused: the refusal's own words are not the host's


class Accounts:
    """The accounts of this worker, by the names that the egress process gives them; those of wildcards come with the
    requests that their limits bind."""

    def __init__(self) -> None:
        self.quota = Quota()
        self._told: dict[str, tuple[int, int]] = {}
        self._reported: dict[str, tuple[int, int]] = {}
        self._accounts: dict[str, Account] = {}

    def get(self, name: str | None) -> Account:
        """None: one that nobody else knows."""
        if name is None:
            return Account()
        if is_wildcard(name):
            return self.quota.wildcard(name)
        return self._accounts.setdefault(name, Account(name))

    def take(self, name: str, up: int, down: int) -> None:
        """What went by other ways, in all."""
        account, before = self.get(name), self._told.get(name, (0, 0))
        account.up.total += up - before[0]
        account.down.total += down - before[1]
        self._told[name] = (up, down)

    def report(self) -> dict[str, list[int]]:
        """What this worker carried since the last report."""
        found = {}
        for name, account in (*self._accounts.items(), *self.quota.wildcards.items()):
            told, before = self._told.get(name, (0, 0)), self._reported.get(name, (0, 0))
            own = (account.up.total - told[0], account.down.total - told[1])
            if own != before:
                found[name] = [own[0] - before[0], own[1] - before[1]]
                self._reported[name] = own
        return found


def upload(flow: http.HTTPFlow, count: int) -> None:
    """Part of a request's body, or of a WebSocket. Raises LimitExceeded."""
    ticket = ticket_of(flow)
    if ticket is not None:
        ticket.up.take(count)
        ticket.add_body(count)


def download(flow: http.HTTPFlow, count: int) -> None:
    """Part of a response's body, or of a WebSocket. Raises LimitExceeded."""
    ticket = ticket_of(flow)
    if ticket is not None:
        ticket.down.take(count)


def response_head(flow: http.HTTPFlow, response: http.Response) -> None:
    """Raises LimitExceeded."""
    download(flow, _size(response))


def ticket_of(flow: http.HTTPFlow) -> Ticket | None:
    """None: the request was not allowed."""
    ticket = flow.metadata.get(_TICKET)
    return ticket if isinstance(ticket, Ticket) else None


def _announced(request: http.Request) -> int:
    """Bytes; 1 where there is a body whose length is not told, 0 where none is."""
    if "transfer-encoding" in request.headers:
        return 1
    length = request.headers.get("content-length", "0")
    return int(length) if length.isascii() and length.isdigit() else 1


def _size(message: http.Message) -> int:
    start = len(message.data.path) if isinstance(message, http.Request) else 0
    return start + sum(len(name) + len(value) + _FIELD_OVERHEAD for name, value in message.headers.fields)
