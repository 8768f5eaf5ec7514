"""Does one host rule apply to one egress request? NO, YES, or DEPENDS on what only a later stage knows.

Rules kept here: what is not known yet makes an answer DEPENDS before the REQUEST stage, and at that stage counts
against the request (an allow does not apply, a deny does); a path that could be read in two ways fits no allow and
every deny that looks at paths.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from ipaddress import ip_address

from agent.policy.addresses import address_class, canonical_address
from agent.policy.globs import match_segments
from agent.policy.hosts import match_host
from agent.policy.model import HostRule, Network
from agent.policy.request import EgressRequest, Stage
from agent.policy.url_paths import UrlPathError, below, segments


class Fit(IntEnum):
    NO = 0
    DEPENDS = 1
    YES = 2


def names(rule: HostRule, request: EgressRequest) -> bool:
    """Host, port and protocol: what is known from the first."""
    if request.stage is Stage.LOOKUP:
        return match_host(rule.pattern, request.host)
    return (
        match_host(rule.pattern, request.host)
        and (rule.ports is None or request.port in rule.ports)
        and (rule.protocol is None or rule.protocol is request.protocol)
    )


def looks_inside(rule: HostRule) -> bool:
    """Does the rule need to see each request (methods, paths)?"""
    return rule.methods is not None or rule.paths is not None


def allows(rule: HostRule, request: EgressRequest) -> Fit:
    """How far an allow applies, addresses left aside (`ungranted`)."""
    return _fit(rule, request, unknown=Fit.NO) if names(rule, request) else Fit.NO


def denies(rule: HostRule, request: EgressRequest) -> Fit:
    """How far a deny applies."""
    return _fit(rule, request, unknown=Fit.YES) if names(rule, request) else Fit.NO


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


def _fit(rule: HostRule, request: EgressRequest, *, unknown: Fit) -> Fit:
    undecided = unknown if request.stage is Stage.REQUEST else Fit.DEPENDS
    parts = [Fit.YES]
    if rule.methods is not None:
        parts.append(undecided if request.method is None else _yes(request.method in rule.methods))
    if rule.paths is not None:
        parts.append(undecided if request.path is None else _path_fit(rule.paths, request.path, unknown))
    return min(parts)


def _path_fit(globs: tuple[str, ...], path: str, unknown: Fit) -> Fit:
    try:
        parts = below(segments(path))
    except UrlPathError:
        return unknown
    return _yes(any(match_segments(_pieces(glob), parts) for glob in globs))


def _pieces(glob: str) -> tuple[str, ...]:
    return () if glob == "/" else tuple(glob[1:].split("/"))


def _yes(condition: bool) -> Fit:
    return Fit.YES if condition else Fit.NO
