"""Does one host rule apply to one egress request? NO, YES, or DEPENDS on what only a later stage knows.

Rules kept here: what is not known yet makes an answer DEPENDS before the REQUEST stage, and at that stage counts
against the request (an allow does not apply, a deny does); a path or query that could be read in two ways fits no allow
and every deny that looks at it; a lookup is judged by the host alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from ipaddress import ip_address

from agent.policy.addresses import address_class, canonical_address
from agent.policy.conditions import Pairs, QueryError, header_holds, parse_query, query_holds
from agent.policy.git_http import allows_git, read_git
from agent.policy.globs import match_segments
from agent.policy.hosts import match_host
from agent.policy.model import Condition, GitRepositories, HostRule, Network, Policy, Tls
from agent.policy.request import EgressRequest, Protocol, Stage
from agent.policy.url_paths import UrlPathError, below, segments


class Fit(IntEnum):
    NO = 0
    DEPENDS = 1
    YES = 2


def names(rule: HostRule, request: EgressRequest) -> bool:
    """Host, port and protocol: what is known from the first. A lookup has neither of the latter two yet."""
    return match_host(rule.pattern, request.host) and (
        request.stage is Stage.LOOKUP
        or (
            (rule.ports is None or request.port in rule.ports)
            and (rule.protocol is None or rule.protocol is request.protocol)
        )
    )


def conditional(rule: HostRule) -> bool:
    """Does it depend on each request whether the rule applies (method, path, header fields, query, repository)?"""
    return bool(
        rule.methods is not None or rule.paths is not None or rule.headers or rule.query or rule.git is not None
    )


def demanding(rule: HostRule) -> bool:
    """Does the rule ask for something of each request that it allows (credential, scan, size), or to look at it?"""
    return bool(rule.credential is not None or rule.scan or rule.limits.body is not None or rule.tls is Tls.INSPECT)


def looks_inside(rule: HostRule) -> bool:
    """Does the rule need to see each request?"""
    return conditional(rule) or demanding(rule)


def intercepted(policy: Policy) -> tuple[str, ...]:
    """THE hosts (patterns) whose TLS the policy looks into: those of rules that look inside, and those that get a
    secret. Empty: no interception engine is needed, and no certificate authority."""
    rules = (
        rule
        for layer in policy.layers
        if layer.egress is not None
        for rule in (*layer.egress.allow, *layer.egress.deny)
        if rule.protocol in (Protocol.TLS, None) and looks_inside(rule)
    )
    secret = (host for secret in policy.secrets for host in secret.hosts)
    return tuple(dict.fromkeys((*(rule.pattern for rule in rules), *secret)))


def gets_secret(policy: Policy, request: EgressRequest) -> bool:
    """Is the request for a host that a secret is for, over TLS?"""
    return request.protocol is Protocol.TLS and any(
        match_host(host, request.host) for secret in policy.secrets for host in secret.hosts
    )


def allows(rule: HostRule, request: EgressRequest) -> Fit:
    """How far an allow applies, addresses left aside (`ungranted`)."""
    return _fit(rule, request, allow=True) if names(rule, request) else Fit.NO


def denies(rule: HostRule, request: EgressRequest) -> Fit:
    """How far a deny applies. A lookup is refused only where the host is closed altogether."""
    if not names(rule, request):
        return Fit.NO
    if request.stage is Stage.LOOKUP:
        return _yes(rule.ports is None and rule.protocol is None and not conditional(rule))
    return _fit(rule, request, allow=False)


def not_public(request: EgressRequest, granted: Iterable[Network] = ()) -> tuple[str, ...]:
    """What is wrong with each address that is neither public nor in a granted range; empty where nothing is.

    The addresses are the resolved ones, and the host itself where it is a literal.
    """
    literal = canonical_address(request.host)
    addresses = dict.fromkeys((*request.addresses, *(() if literal is None else (literal,))))
    ranges = tuple(granted)
    found = []
    for address in addresses:
        kind = address_class(address)
        if kind is not None and not _granted(address, ranges):
            found.append(f"{address} is no public address ({kind})")
    return tuple(found)


def ungranted(rule: HostRule, request: EgressRequest) -> str | None:
    """What is wrong with where the host leads, None where nothing is: every address is public or granted by the rule.

    Before anything is resolved only an address literal can be judged; at CONNECT an address is required.
    """
    if request.stage is Stage.CONNECT and not request.addresses and canonical_address(request.host) is None:
        return "the host has no address"
    return next(iter(not_public(request, rule.addresses)), None)


def _granted(address: str, ranges: tuple[Network, ...]) -> bool:
    canonical = canonical_address(address)
    if canonical is None:
        return False
    parsed = ip_address(canonical)
    return any(parsed in network for network in ranges)


def _fit(rule: HostRule, request: EgressRequest, *, allow: bool) -> Fit:
    if request.stage is Stage.LOOKUP or not conditional(rule):
        return Fit.YES
    unknown = Fit.NO if allow else Fit.YES
    undecided = unknown if request.stage is Stage.REQUEST else Fit.DEPENDS
    parts = [Fit.YES]
    if rule.methods is not None:
        parts.append(undecided if request.method is None else _yes(request.method in rule.methods))
    if rule.paths is not None:
        parts.append(undecided if request.path is None else _path_fit(rule.paths, request.path, unknown))
    if rule.headers:
        parts.append(undecided if request.headers is None else _headers_fit(rule.headers, request.headers, allow=allow))
    if rule.query:
        parts.append(undecided if request.query is None else _query_fit(rule.query, request.query, unknown))
    if rule.git is not None:
        parts.append(_git_fit(rule.git, request, undecided))
    return min(parts)


def _path_fit(globs: tuple[str, ...], path: str, unknown: Fit) -> Fit:
    try:
        parts = below(segments(path))
    except UrlPathError:
        return unknown
    return _yes(any(match_segments(_pieces(glob), parts) for glob in globs))


def _headers_fit(conditions: tuple[Condition, ...], headers: Pairs, *, allow: bool) -> Fit:
    return _yes(all(header_holds(condition, headers, allow=allow) for condition in conditions))


def _query_fit(conditions: tuple[Condition, ...], query: str, unknown: Fit) -> Fit:
    try:
        parameters = parse_query(query)
    except QueryError:
        return unknown
    allow = unknown is Fit.NO
    return _yes(all(query_holds(condition, parameters, allow=allow) for condition in conditions))


def _git_fit(repositories: GitRepositories, request: EgressRequest, undecided: Fit) -> Fit:
    """Only an allow has repositories."""
    if request.method is None or request.path is None or request.query is None:
        return undecided
    asked = read_git(request.method, request.path, request.query)
    return _yes(asked is not None and allows_git(repositories, asked))


def _pieces(glob: str) -> tuple[str, ...]:
    return () if glob == "/" else tuple(glob[1:].split("/"))


def _yes(condition: bool) -> Fit:
    return Fit.YES if condition else Fit.NO
