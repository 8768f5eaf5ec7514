"""Egress: may the session reach this host, this address, with this request?

Rules kept here: every layer must allow; in a layer a deny beats every allow; nothing named is nothing allowed; an
address that is not public must be granted by the very rule that allows the host, in every layer; where something of
each request decides, or is asked of it, the connection is allowed only to be looked into (`Decision.inspect`); a rule
in observe mode takes nothing away, and what it would have is the decision's rule, not enforced.
"""

from __future__ import annotations

from datetime import date

from agent.policy import rule_ids
from agent.policy.decision import Decision, Severity
from agent.policy.egress_match import (
    Fit,
    allows,
    conditional,
    demanding,
    denies,
    gets_secret,
    looks_inside,
    names,
    not_public,
    ungranted,
)
from agent.policy.git_http import read_git
from agent.policy.hosts import host_and_port, match_host
from agent.policy.model import Condition, EgressSection, HostRule, Layer, Mode, Policy
from agent.policy.request import EgressRequest, Protocol, Stage
from agent.policy.verdicts import Denial, allowed, by_rule, denied, enforces, exceptions_of, worst
from agent.values import dataclass, replace

NOTHING = EgressSection()
KEEP_WITHIN = "keep to what is allowed of this host, or ask for more of it under egress.allow in the policy"


@dataclass(frozen=True, slots=True)
class Pass:
    """One layer's yes, or its no where that is only observed. `rules`: the allow rules that fit; none where the layer
    has no allow list of its own."""

    rules: tuple[HostRule, ...]
    inspect: bool
    observed: Denial | None = None


def decide_egress(policy: Policy, request: EgressRequest) -> Decision:
    """The decision for an egress request at its stage."""
    layers = sections(policy)
    answers = [_answer(layer, section, request) for layer, section in layers]
    passes = [answer for answer in answers if isinstance(answer, Pass)]
    grants = tuple(rule for answer in passes for rule in answer.rules)
    inspect = any(answer.inspect for answer in passes) or (_connecting(request) and gets_secret(policy, request))
    denial = worst([answer for answer in answers if isinstance(answer, Denial)])
    if denial is None and not grants:  # no layer at all; the first one always has an allow list
        denial = Denial(rule_ids.EGRESS_DEFAULT, "no layer of the policy has an allow list")
    enforced = denial is not None and enforces(section.mode for _, section in layers)
    denial = denial or worst([answer.observed for answer in passes if answer.observed is not None])
    if denial is not None:
        denial = _with_offer(policy, request, denial)
        if enforced:
            return denied(policy, denial)
        return replace(denied(policy, denial, enforced=False), inspect=inspect, grants=grants)
    rule = _speaker(next(answer.rules for answer in passes if answer.rules))
    return allowed(
        policy,
        rule.id,
        rule.reason or f"{rule.pattern} is on the allow list",
        where=str(rule.where),
        inspect=inspect,
        grants=grants,
    )


def sections(policy: Policy) -> list[tuple[Layer, EgressSection]]:
    """The layers that have a say; a first layer without the section allows nothing."""
    found = []
    for index, layer in enumerate(policy.layers):
        if layer.egress is not None:
            found.append((layer, layer.egress))
        elif index == 0:
            found.append((layer, NOTHING))
    return found


def _answer(layer: Layer, section: EgressSection, request: EgressRequest) -> Denial | Pass:
    inspect = False
    observed: Denial | None = None
    for rule in section.denies.about(request.host):
        fit = denies(rule, request)
        if fit is Fit.NO or _excepted(layer, rule, request):
            continue
        if fit is Fit.DEPENDS:
            inspect = True
            continue
        denial = by_rule(rule, f"{rule.pattern} is on the deny list", rule.severity)
        if rule.mode is Mode.ENFORCE:
            return denial
        observed = observed or denial
    if not section.allow_given:
        return Pass((), inspect, observed)
    return _by_allows(section.allows.about(request.host), request, inspect, observed)


def _by_allows(near: list[HostRule], request: EgressRequest, inspect: bool, observed: Denial | None) -> Denial | Pass:
    """`near`: the allow rules about this host."""
    fits = [rule for rule in near if allows(rule, request) is not Fit.NO]
    faults = [ungranted(rule, request) for rule in fits]
    rules = tuple(rule for rule, fault in zip(fits, faults, strict=True) if fault is None)
    if not rules:
        refusal = _refusal(near, request, fits, faults)
        watching = [rule for rule in near if _only_watches(rule, request)]
        if not watching:
            return refusal
        first = watching[0]
        rules = tuple(watching)
        observed = observed or Denial(first.id, refusal.reason, first.instead, str(first.where), refusal.severity)
    if _connecting(request):
        inspect = inspect or all(conditional(rule) for rule in rules) or any(demanding(rule) for rule in rules)
    return Pass(rules, inspect, observed)


def _only_watches(rule: HostRule, request: EgressRequest) -> bool:
    """An allow in observe mode whose conditions do not hold lets pass what it names, and says so."""
    return rule.mode is Mode.OBSERVE and names(rule, request) and ungranted(rule, request) is None


def _connecting(request: EgressRequest) -> bool:
    """Is the question about a connection, whose requests could still be looked at?"""
    return request.stage in (Stage.NAME, Stage.CONNECT)


def _speaker(rules: tuple[HostRule, ...]) -> HostRule:
    """The rule an allow is named after: the first that asks nothing further."""
    return next((rule for rule in rules if not looks_inside(rule)), rules[0])


def _excepted(layer: Layer, rule: HostRule, request: EgressRequest) -> bool:
    return any(
        _holds(exception.expires, request.today)
        and (exception.host is None or match_host(exception.host, request.host))
        for exception in exceptions_of(layer, rule.id)
    )


def _holds(expires: date, today: date) -> bool:
    return today <= expires


def _refusal(near: list[HostRule], request: EgressRequest, fits: list[HostRule], faults: list[str | None]) -> Denial:
    if fits:
        return Denial(
            rule_ids.EGRESS_ADDRESS,
            f"{request.host}: {faults[0]}",
            fits[0].instead
            or "a private destination must be granted by range: add `addresses:` to the rule of this host",
            str(fits[0].where),
            Severity.HIGH,
        )
    if near:
        said = "; ".join(dict.fromkeys(_terms(rule) for rule in near[:3]))
        asked = _asked(request, git=any(rule.git is not None for rule in near))
        reason = f"{asked} is not allowed; {request.host} is allowed for {said}"
        return Denial(rule_ids.EGRESS_DEFAULT, reason, near[0].instead or KEEP_WITHIN)
    return Denial(rule_ids.EGRESS_DEFAULT, f"no rule of the policy allows {_asked(request)}{_kind(request)}")


def _asked(request: EgressRequest, *, git: bool = False) -> str:
    if request.stage is Stage.LOOKUP:
        return f"to look up {request.host}"
    what = f"{host_and_port(request.host, request.port)} ({request.protocol})"
    if request.method is None:
        return what
    if request.path is None:
        return f"{request.method} on {what}"
    if git:
        asked = read_git(request.method, request.path, request.query or "")
        return f"{asked or f'{request.method} {request.path}, no request of git,'} on {what}"
    return f"{request.method} {request.path} on {what}"


def _kind(request: EgressRequest) -> str:
    """A destination that is not public is named by its class, so that the log shows what was tried."""
    found = not_public(request)
    return f"; {found[0]}" if found else ""


def _terms(rule: HostRule) -> str:
    ports = "any port" if rule.ports is None else "port " + ", ".join(str(port) for port in rule.ports)
    spoken = {Protocol.TLS: "TLS", Protocol.HTTP: "plain HTTP", Protocol.TCP: "TCP", None: "anything"}[rule.protocol]
    words = [f"{spoken} on {ports}"]
    words += [f"methods {' '.join(rule.methods)}"] if rule.methods is not None else []
    words += [f"paths {' '.join(rule.paths)}"] if rule.paths is not None else []
    words += [f"header {said(condition)}" for condition in rule.headers]
    words += [f"query {said(condition)}" for condition in rule.query]
    if rule.git is not None:
        words += [f"git fetch of {' '.join(rule.git.fetch)}"] if rule.git.fetch else []
        words += [f"git push to {' '.join(rule.git.push)}"] if rule.git.push else []
    return ", ".join(words)


def said(condition: Condition) -> str:
    """A condition in words."""
    return f"{condition.name}: {' or '.join(condition.values) or 'any'}"


def _with_offer(policy: Policy, request: EgressRequest, denial: Denial) -> Denial:
    """A default denial points to the bundle that has the host, or to the ways there are."""
    if denial.rule != rule_ids.EGRESS_DEFAULT or denial.instead not in ("", KEEP_WITHIN):
        return denial
    having = [
        offer.bundle for offer in policy.offers if any(match_host(pattern, request.host) for pattern in offer.patterns)
    ]
    if having:
        instead = f"ask for the bundle that has this host: `use: [{having[0]}]` in the policy"
    elif denial.instead:
        return denial
    elif policy.offers:
        names = ", ".join(offer.bundle for offer in policy.offers)
        instead = f"use an allowed host, or ask for this one under egress.allow or in a bundle (use: {names})"
    else:
        instead = "use an allowed host, or ask for this one under egress.allow in the policy"
    return Denial(denial.rule, denial.reason, instead, denial.where, denial.severity)
