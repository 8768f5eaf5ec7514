"""What allowed connections are bound to: rates, connections at once, bytes, time; and the list of all that are open.

Rules kept here: a limit that is hit is a refusal with a rule id, a reason that holds the numbers, and a record; bytes
are counted before they are passed on, so none over the limit leaves; totals of a host last as long as the session and
are never forgotten; what is kept is bounded (past `MAX_HOSTS` hosts, the others share one account and so one budget); a
limit of a rule that only observes is recorded once per connection and binds nothing.

Counted per host (the normalised name that was decided), upload and download over all its connections and ways in; what
a rule for a wildcard gives is counted for all the hosts below it together, or each of them would have a budget of its
own. A wildcard's count begins with the first connection that its limits bind.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from agent.enforce.egress.accounts import Account, Rate
from agent.enforce.egress.answer import Answer
from agent.policy.decision import Decision
from agent.policy.hosts import is_wildcard
from agent.policy.model import EgressLimits, HostLimits, HostRule, Mode
from agent.policy.request import EgressRequest
from agent.policy.terms import NO_LIMITS, terms
from agent.values import dataclass, replace

LIMIT_CONNECTIONS: Final = "limit-connections"
LIMIT_RATE: Final = "limit-rate"
LIMIT_UPLOAD: Final = "limit-upload"
LIMIT_DOWNLOAD: Final = "limit-download"
LIMIT_BODY: Final = "limit-body"

MAX_HOSTS: Final = 4096
ENDLESS: Final = sys.maxsize
_WAIT: Final = "close connections that are done, or ask for a higher limit in the policy"
_LATER: Final = "wait a minute, or ask for a higher limit in the policy"
_MORE: Final = "ask for a higher limit in the policy"


@dataclass(frozen=True, slots=True)
class Excess:
    """A limit that is hit. `enforced` False: of a rule or a policy that only observes."""

    rule: str
    reason: str
    instead: str
    enforced: bool = True


class LimitExceeded(ConnectionAbortedError):
    """The connection is over: it is refused or reset, never ended as if it were complete."""

    def __init__(self, excess: Excess, request_id: str) -> None:
        super().__init__(excess.reason)
        self.excess = excess
        self.request_id = request_id

    @property
    def answer(self) -> Answer:
        """What the client is told, where it can still be told something."""
        return Answer(403, self.excess.reason, self.excess.rule, self.excess.instead, self.request_id)


type Report = Callable[[EgressRequest, Excess], None]


class Bounds(NamedTuple):
    """`firm` are enforced, `soft` only observed."""

    firm: HostLimits
    soft: HostLimits


_UNBOUND: Final = Bounds(NO_LIMITS, NO_LIMITS)

type Bound = tuple[tuple[Account, Bounds], ...]
"""What binds a connection: as its host, and as one of those below each wildcard whose limits hold for it."""


class Allowance:
    """One direction of one connection. `most`: the account's total at which something must be done about it. `wider`:
    the same for each wildcard whose limits bind the connection."""

    __slots__ = ("_account", "_firm", "_ticket", "meter", "most", "rule", "wider")

    def __init__(self, ticket: Ticket, account: Account, rule: str) -> None:
        self._ticket = ticket
        self._account = account
        self.meter = account.up if rule == LIMIT_UPLOAD else account.down
        self.rule = rule
        self.most = self._firm = ENDLESS
        self.wider: tuple[Allowance, ...] = ()

    def bind(self, own: Bounds, wide: Bound = ()) -> Allowance:
        name = "upload" if self.rule == LIMIT_UPLOAD else "download"
        firm, soft = getattr(own.firm, name), getattr(own.soft, name)
        self._firm = ENDLESS if firm is None else firm
        self.most = self._firm if soft is None else min(self._firm, soft)
        self.wider = tuple(Allowance(self._ticket, account, self.rule).bind(given) for account, given in wide)
        return self

    def take(self, count: int) -> None:
        """Count bytes that are to be passed on. Raises LimitExceeded: they must not be."""
        self.meter.total += count
        if self.meter.total > self.most:
            self._over(self.meter.total)
        for other in self.wider:
            other.take(count)

    def check(self, count: int = 1) -> None:
        """Raises LimitExceeded where `count` more bytes would be too many. Nothing is counted."""
        if self.meter.total + count > self.most:
            self._over(self.meter.total + count)
        for other in self.wider:
            other.check(count)

    def _over(self, total: int) -> None:
        limit, self.most = self.most, self._firm  # an observed limit is told once
        way = "sent to" if self.rule == LIMIT_UPLOAD else "received from"
        host = self._account.name or self._ticket.request.host
        reason = f"{total} bytes {way} {host} are more than the session's {limit}"
        self._ticket.exceed(Excess(self.rule, reason, _MORE, enforced=total > self._firm))


class Ticket:
    """One connection, from its admission to its end.

    `request` and `decision` are what it was last decided by, `idle` its seconds without a byte (None: the session's).
    `inspected`: its requests are decided one by one.
    """

    __slots__ = (
        "_body",
        "_bound",
        "_closed",
        "_cut",
        "_limits",
        "_quota",
        "_report",
        "_revoked",
        "_within",
        "account",
        "decision",
        "down",
        "idle",
        "inspected",
        "request",
        "up",
    )

    def __init__(self, quota: Quota, account: Account, request: EgressRequest, report: Report) -> None:
        self._quota = quota
        self._report = report
        self._cut: Callable[[], None] | None = None
        self._revoked: Excess | None = None
        self._closed = False
        self._body = 0
        self._limits = _UNBOUND
        self._bound: Bound = ((account, _UNBOUND),)
        self._within: list[Account] = []  # those that count this one as open
        self.account = account
        self.request = request
        self.decision: Decision | None = None
        self.inspected = False
        self.idle: int | None = None
        self.up = Allowance(self, account, LIMIT_UPLOAD)
        self.down = Allowance(self, account, LIMIT_DOWNLOAD)

    @property
    def quota(self) -> Quota:
        """Whose ticket it is."""
        return self._quota

    @property
    def accounts(self) -> tuple[Account, ...]:
        """Where it counts now: its host's, and those of the wildcards that bind it."""
        return tuple(account for account, _ in self._bound)

    def bind(self, request: EgressRequest, decision: Decision, *, observing: bool) -> None:
        """One more request (or the first question): what holds from now on is what this decision's rules say."""
        self.request, self._body = request, 0
        self.rebind(decision, observing=observing)

    def rebind(self, decision: Decision, *, observing: bool) -> None:
        """The same request, decided by another policy."""
        if decision is self.decision and self._limits is _UNBOUND:
            return  # as it was, nearly always
        self.decision = decision
        before, self._limits = self._limits, _bounds(decision, decision.grants, observing)
        if before is _UNBOUND and self._limits is _UNBOUND:
            return
        self.idle = self._limits.firm.idle
        self._bound = ((self.account, _UNBOUND),) if self._limits is _UNBOUND else self._apart(decision, observing)
        own, *wide = self._bound
        self.up.bind(own[1], tuple(wide))
        self.down.bind(own[1], tuple(wide))
        if self._within:  # begun already
            self._join()

    def _apart(self, decision: Decision, observing: bool) -> Bound:
        grants = [rule for rule in decision.grants if rule.limits != NO_LIMITS]
        wildcards = dict.fromkeys(rule.pattern for rule in grants if is_wildcard(rule.pattern))
        if not wildcards:
            return ((self.account, self._limits),)
        own = [rule for rule in grants if rule.pattern not in wildcards]
        wide = (
            (
                self._quota.wildcard(name),
                _bounds(decision, [rule for rule in grants if rule.pattern == name], observing),
            )
            for name in wildcards
        )
        return ((self.account, _bounds(decision, own, observing)), *wide)

    def begin(self, now: int) -> None:
        """For `Quota.open` only: it counts as open from here on. `now` in whole seconds. Raises LimitExceeded."""
        for account, (firm, soft) in self._bound:
            for limits, enforced in ((soft, False), (firm, True)):
                if limits is not NO_LIMITS:
                    _check(self, account, limits, now, enforced=enforced)
        self.up.check()
        self.down.check()
        for account in self.accounts:
            account.rate.add(now)
        self._join()

    def _join(self) -> None:
        for account in self.accounts:
            if account not in self._within:
                self._within.append(account)
                account.open += 1

    def leave(self) -> None:
        """For `Quota.closed` only."""
        for account in self._within:
            account.open -= 1
        self._within.clear()

    def add_body(self, count: int) -> None:
        """So much more of the body of the request that was bound last. Raises LimitExceeded."""
        self._body += count
        self.check_body(self._body)

    def check_body(self, length: int) -> None:
        """One request's body, as announced or as counted so far (bytes). Raises LimitExceeded."""
        for limits, enforced in ((self._limits.soft, False), (self._limits.firm, True)):
            if limits.body is not None and length > limits.body:
                reason = f"a body of {length} bytes or more; {limits.body} are allowed in one request"
                self.exceed(Excess(LIMIT_BODY, reason, "send less in one request", enforced))
                if not enforced:
                    self._limits = Bounds(self._limits.firm, replace(limits, body=None))

    @property
    def _request_id(self) -> str:
        return self.request.origin.request_id or ""

    def exceed(self, excess: Excess) -> None:
        """Record it; raises LimitExceeded where the limit is enforced."""
        self._report(self.request, excess)
        if excess.enforced:
            raise LimitExceeded(excess, self._request_id)

    def on_cut(self, cut: Callable[[], None]) -> None:
        """`cut()` ends the connection with a reset. Raises LimitExceeded where it was revoked in the meantime."""
        self.still_good()
        self._cut = cut

    def still_good(self) -> None:
        """Raises LimitExceeded where the connection was revoked: it must not go on."""
        if self._revoked is not None:
            raise LimitExceeded(self._revoked, self._request_id)

    def revoke(self, excess: Excess) -> None:
        """The connection no longer holds (the caller has recorded why): cut it now, or as soon as it can be."""
        self._revoked = excess
        if self._cut is not None:
            self._cut()

    def close(self) -> None:
        """The connection is gone. Any number of times."""
        if not self._closed:
            self._closed = True
            self._cut = None
            self._quota.closed(self)


class Quota:
    """The session's accounts. `clock`: seconds that never go back. `wildcards`: the accounts of those, by pattern."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._others = Account()
        self.wildcards: dict[str, Account] = {}
        self._rate = Rate()
        self._tickets: set[Ticket] = set()

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        """All that is open now; what is opened or closed meanwhile does not matter."""
        return iter(tuple(self._tickets))

    def open(
        self, request: EgressRequest, decision: Decision, session: EgressLimits, report: Report, *, observing: bool
    ) -> Ticket:
        """A ticket for a connection that was allowed. Raises LimitExceeded (recorded by then)."""
        account = self.account(request.host)
        ticket = Ticket(self, account, request, report)
        ticket.bind(request, decision, observing=observing)
        ticket.inspected = decision.inspect
        now = int(self._clock())
        most = session.connections_per_minute
        if most is not None and self._rate.recent(now) >= most:
            reason = f"{most} connections in a minute are what the session may open"
            ticket.exceed(Excess(LIMIT_RATE, reason, _LATER, not observing))
        ticket.begin(now)
        self._rate.add(now)
        self._tickets.add(ticket)
        return ticket

    def account(self, host: str) -> Account:
        """The host's account; past `MAX_HOSTS`, the one that all others share."""
        account = self._accounts.get(host) if host else self._others
        if account is None:
            if len(self._accounts) >= MAX_HOSTS:
                return self._others
            account = self._accounts[host] = Account(host)
        return account

    def wildcard(self, pattern: str) -> Account:
        """The account of all hosts below a wildcard of the policy."""
        return self.wildcards.setdefault(pattern, Account(pattern))

    @property
    def rate(self) -> Rate:
        """How many connections the session has begun."""
        return self._rate

    def now(self) -> int:
        """Whole seconds, as rates are counted in."""
        return int(self._clock())

    def accounts(self) -> Iterator[tuple[str, Account]]:
        """All of them, by the names that `account` and `wildcard` know them by; empty for the one that hosts share."""
        yield from tuple(self._accounts.items())
        yield from tuple(self.wildcards.items())
        yield "", self._others

    def closed(self, ticket: Ticket) -> None:
        """For `Ticket.close` only."""
        self._tickets.discard(ticket)
        ticket.leave()


def _check(ticket: Ticket, account: Account, limits: HostLimits, now: int, *, enforced: bool) -> None:
    host = account.name or ticket.request.host
    most = limits.connections
    if most is not None and account.open >= most:
        reason = f"{account.open} connections to {host} are open; {most} at once are allowed"
        ticket.exceed(Excess(LIMIT_CONNECTIONS, reason, _WAIT, enforced))
    most = limits.connections_per_minute
    if most is not None and account.rate.recent(now) >= most:
        reason = f"{account.rate.recent(now)} connections to {host} in the last minute; {most} are allowed"
        ticket.exceed(Excess(LIMIT_RATE, reason, _LATER, enforced))


def _bounds(decision: Decision, grants: Sequence[HostRule], observing: bool) -> Bounds:
    if all(rule.limits == NO_LIMITS for rule in grants):
        return _UNBOUND
    firm = () if observing else tuple(rule for rule in grants if rule.mode is Mode.ENFORCE)
    soft = tuple(rule for rule in grants if observing or rule.mode is not Mode.ENFORCE)
    return Bounds(terms(replace(decision, grants=firm)).limits, terms(replace(decision, grants=soft)).limits)
