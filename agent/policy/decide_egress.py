"""Egress: may the session reach this host, this address, with this request?

Rules kept here: every layer must allow; in a layer a deny beats every allow; nothing named is nothing allowed; an
address that is not public must be granted by the very rule that allows the host, in every layer; where methods or paths
decide, the connection is allowed only to be looked into (`Decision.inspect`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from agent.policy import rule_ids
from agent.policy.decision import Decision, Severity
from agent.policy.egress_match import Fit, allows, denies, looks_inside, not_public, ungranted
from agent.policy.hosts import match_host
from agent.policy.model import EgressSection, HostRule, Layer, Policy
from agent.policy.request import EgressRequest, Protocol, Stage
from agent.policy.verdicts import Denial, allowed, by_rule, denied, enforces, exceptions_of, worst

NOTHING = EgressSection()


@dataclass(frozen=True, slots=True)
class Pass:
    """One layer's yes. `rule` None: the layer has no allow list of its own."""

    rule: HostRule | None
    inspect: bool


def decide_egress(policy: Policy, request: EgressRequest) -> Decision:
    """The decision for an egress request at its stage."""
    layers = sections(policy)
    answers = [_answer(layer, section, request) for layer, section in layers]
    denials = [answer for answer in answers if isinstance(answer, Denial)]
    denial = worst(denials)
    if denial is None and not answers:
        denial = Denial(rule_ids.EGRESS_DEFAULT, "the policy has no layer")
    if denial is not None:
        denial = _with_offer(policy, request, denial)
        return denied(policy, denial, enforced=enforces(section.mode for _, section in layers))
    passes = [answer for answer in answers if isinstance(answer, Pass)]
    rule = next((answer.rule for answer in passes if answer.rule is not None), None)
    if rule is None:  # cannot be: the first layer always has an allow list
        return denied(policy, Denial(rule_ids.EGRESS_DEFAULT, "no layer has an allow list"))
    return allowed(
        policy,
        rule.id,
        rule.reason or f"{rule.pattern} is on the allow list",
        where=str(rule.where),
        inspect=any(answer.inspect for answer in passes),
        grants=tuple(answer.rule for answer in passes if answer.rule is not None),
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
    for rule in section.deny:
        fit = denies(rule, request)
        if fit is Fit.NO or _excepted(layer, rule, request):
            continue
        if fit is Fit.YES:
            return by_rule(rule, f"{rule.pattern} is on the deny list", rule.severity)
        inspect = True
    if not section.allow_given:
        return Pass(None, inspect)
    fits = [rule for rule in section.allow if allows(rule, request) is not Fit.NO]
    faults = [ungranted(rule, request) for rule in fits]
    open_rules = [rule for rule, fault in zip(fits, faults, strict=True) if fault is None]
    if not open_rules:
        return _refusal(section, request, fits, faults)
    plain = next((rule for rule in open_rules if not looks_inside(rule)), None)
    depends = plain is None and request.stage is not Stage.REQUEST
    return Pass(plain or open_rules[0], inspect or depends)


def _excepted(layer: Layer, rule: HostRule, request: EgressRequest) -> bool:
    return any(
        _holds(exception.expires, request.today)
        and (exception.host is None or match_host(exception.host, request.host))
        for exception in exceptions_of(layer, rule.id)
    )


def _holds(expires: date, today: date) -> bool:
    return today <= expires


def _refusal(section: EgressSection, request: EgressRequest, fits: list[HostRule], faults: list[str | None]) -> Denial:
    if fits:
        return Denial(
            rule_ids.EGRESS_ADDRESS,
            f"{request.host}: {faults[0]}",
            fits[0].instead
            or "a private destination must be granted by range: add `addresses:` to the rule of this host",
            str(fits[0].where),
            Severity.HIGH,
        )
    near = [rule for rule in section.allow if match_host(rule.pattern, request.host)]
    if near:
        said = "; ".join(dict.fromkeys(_terms(rule) for rule in near[:3]))
        reason = f"{_asked(request)} is not allowed; {request.host} is allowed for {said}"
        return Denial(rule_ids.EGRESS_DEFAULT, reason, near[0].instead)
    return Denial(rule_ids.EGRESS_DEFAULT, f"no rule of the policy allows {_asked(request)}{_kind(request)}")


def _asked(request: EgressRequest) -> str:
    what = f"{request.host}:{request.port} ({request.protocol})"
    if request.method is not None and request.path is not None:
        return f"{request.method} {request.path} on {what}"
    return f"{request.method} on {what}" if request.method is not None else what


def _kind(request: EgressRequest) -> str:
    """A destination that is not public is named by its class, so that the log shows what was tried."""
    found = not_public(request)
    return f"; {found[0]}" if found else ""


def _terms(rule: HostRule) -> str:
    ports = "any port" if rule.ports is None else "port " + ", ".join(str(port) for port in rule.ports)
    spoken = {Protocol.TLS: "TLS", Protocol.HTTP: "plain HTTP", Protocol.TCP: "TCP", None: "anything"}[rule.protocol]
    methods = "" if rule.methods is None else f", methods {' '.join(rule.methods)}"
    paths = "" if rule.paths is None else f", paths {' '.join(rule.paths)}"
    return f"{spoken} on {ports}{methods}{paths}"


def _with_offer(policy: Policy, request: EgressRequest, denial: Denial) -> Denial:
    """A default denial points to the bundle that has the host, or to the ways there are."""
    if denial.rule != rule_ids.EGRESS_DEFAULT or denial.instead:
        return denial
    having = [
        offer.bundle for offer in policy.offers if any(match_host(pattern, request.host) for pattern in offer.patterns)
    ]
    if having:
        instead = f"ask for the bundle that has this host: `use: [{having[0]}]` in the policy"
    elif policy.offers:
        names = ", ".join(offer.bundle for offer in policy.offers)
        instead = f"use an allowed host, or ask for this one under egress.allow or in a bundle (use: {names})"
    else:
        instead = "use an allowed host, or ask for this one under egress.allow in the policy"
    return Denial(denial.rule, denial.reason, instead, denial.where, denial.severity)
