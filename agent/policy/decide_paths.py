"""Paths: may the session read, write, execute or delete this?

Rules kept here: the agent's own places are never granted; what every session needs always is; every layer must grant;
writing includes reading, reading includes executing; deleting needs a writable directory above; a protected place is
not written, and neither is a directory removed that holds it by name.
"""

from __future__ import annotations

from agent.policy import rule_ids
from agent.policy.decision import Decision, Severity
from agent.policy.model import Layer, PathRule, PathSection, Policy
from agent.policy.paths import (
    AGENT_FILES,
    DEVICES,
    HOOK_SETTINGS,
    PROC,
    PUBLIC,
    below,
    covered,
    covers,
    holds_protected,
    is_normal,
    may_hold_protected,
    may_protect,
    protects,
)
from agent.policy.request import Access, PathRequest
from agent.policy.verdicts import Denial, allowed, by_rule, denied, enforces, worst
from agent.values import dataclass

NOTHING = PathSection()
_CHANGES = (Access.WRITE, Access.DELETE)


@dataclass(frozen=True, slots=True)
class Grant:
    """What grants the access in one layer; `rule` None where the layer is neutral for it."""

    rule: PathRule | None


def decide_paths(policy: Policy, request: PathRequest) -> Decision:
    """The decision for one access to one path."""
    layers = sections(policy)
    enforced = enforces(section.mode for _, section in layers)
    if not is_normal(request.path):
        return denied(policy, Denial(rule_ids.PATHS_DEFAULT, f"{request.path} is not absolute and normalised"))
    own = _agent_denial(policy, request)
    if own is not None:
        return denied(policy, own)
    protected = [denial for _, section in layers for denial in _protected(section, request)]
    if protected:
        return denied(policy, protected[0], enforced=enforced)
    answers = [_answer(policy, section, request) for _, section in layers]
    denial = worst([answer for answer in answers if isinstance(answer, Denial)])
    if denial is None and not answers:
        denial = Denial(rule_ids.PATHS_DEFAULT, "the policy has no layer")
    if denial is not None and _always(request):
        return allowed(policy, rule_ids.PATHS_ALWAYS, "every session has this")
    if denial is not None:
        return denied(policy, denial, enforced=enforced)
    rule = next((answer.rule for answer in answers if isinstance(answer, Grant) and answer.rule is not None), None)
    if rule is None:  # cannot be: the first layer is never neutral
        return denied(policy, Denial(rule_ids.PATHS_DEFAULT, "no layer grants anything"))
    return allowed(policy, rule.id, rule.reason or f"{rule.path} is granted", where=str(rule.where))


def sections(policy: Policy) -> list[tuple[Layer, PathSection]]:
    """The layers that have a say; a first layer without the section grants nothing."""
    found = []
    for index, layer in enumerate(policy.layers):
        if layer.paths is not None:
            found.append((layer, layer.paths))
        elif index == 0:
            found.append((layer, NOTHING))
    return found


def _agent_denial(policy: Policy, request: PathRequest) -> Denial | None:
    if covered(HOOK_SETTINGS, request.path) and request.access in _CHANGES:
        return Denial(rule_ids.HOOK_SETTINGS, "the hook's registration is never written", severity=Severity.CRITICAL)
    for place in (*AGENT_FILES, *policy.agent_files):
        if covers(place, request.path) and not _public(place, request):
            reason = "the agent's own files are never granted, whatever the policy says"
            return Denial(rule_ids.AGENT_FILES, reason, severity=Severity.CRITICAL)
    return None


def _public(place: str, request: PathRequest) -> bool:
    """``<run directory>/<session>/public`` is there to be read by the session."""
    parts = request.path.removeprefix(place).split("/")
    return place == AGENT_FILES[1] and request.access not in _CHANGES and len(parts) > 2 and parts[2] == PUBLIC


def _always(request: PathRequest) -> bool:
    owned = tuple(root for root in (request.home, request.tmpdir) if root and root != "/" and is_normal(root))
    match request.access:
        case Access.DELETE:
            return any(below(root, request.path) for root in owned)
        case Access.WRITE:
            return covered(owned, request.path) or covered(DEVICES, request.path)
        case Access.READ:
            return covered((*owned, *DEVICES, PROC), request.path)
        case Access.EXECUTE:
            return covered((*owned, PROC), request.path)


def _protected(section: PathSection, request: PathRequest) -> list[Denial]:
    if request.access not in _CHANGES:
        return []
    hits: list[PathRule] = []
    if section.protect and may_protect(section.protected, request.path, request.home):
        hits += [rule for rule in section.protect if protects(rule.path, request.path, request.home)]
    if request.access is Access.DELETE and may_hold_protected(section.protected, request.path, request.home):
        hits += [rule for rule in section.protect if holds_protected(rule.path, request.path, request.home)]
    return [by_rule(rule, f"{rule.path} is protected: never written", Severity.HIGH) for rule in hits]


def _answer(policy: Policy, section: PathSection, request: PathRequest) -> Denial | Grant:
    write, read = _first(policy, section.write, request), None
    if request.access in _CHANGES:
        if section.write_given and write is None:
            return _refusal(section, request)
        if section.write_given:
            return Grant(write)
    read = write or _first(policy, section.read, request)
    if section.read_given and read is None:
        return _refusal(section, request)
    return Grant(read)


def _first(policy: Policy, rules: tuple[PathRule, ...], request: PathRequest) -> PathRule | None:
    return next((rule for rule in rules if _grants(policy, rule, request)), None)


def _grants(policy: Policy, rule: PathRule, request: PathRequest) -> bool:
    roots = (rule.path, *(target for written, target in policy.links if written == rule.path))
    reaches = below if request.access is Access.DELETE else covers
    return any(reaches(root, request.path) for root in roots)


def _refusal(section: PathSection, request: PathRequest) -> Denial:
    verb = {
        Access.READ: "reading",
        Access.WRITE: "writing",
        Access.EXECUTE: "executing",
        Access.DELETE: "deleting",
    }[request.access]
    if request.access in _CHANGES:
        roots = [rule.path for rule in section.write]
        near = next((rule for rule in section.read if covers(rule.path, request.path)), None)
        if near is not None and near.instead:
            return Denial(rule_ids.PATHS_DEFAULT, f"no rule of the policy grants {verb} {request.path}", near.instead)
        said = ", ".join(roots[:4]) or "nowhere; the policy grants no writing"
        instead = f"write under {said}, or below $HOME or $TMPDIR" if roots else "write below $HOME or $TMPDIR"
    else:
        instead = "ask for the path under paths.read in the policy"
    return Denial(rule_ids.PATHS_DEFAULT, f"no rule of the policy grants {verb} {request.path}", instead)
