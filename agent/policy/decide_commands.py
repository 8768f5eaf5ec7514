"""Commands: may this run?

Rules kept here: the agent's own rules come first and always; a rule that describes any of the commands denies all of
them; a rule of which it cannot be known beforehand whether it applies makes the request unverifiable, like text whose
meaning cannot be known; unverifiable runs only where every exec is decided again and every layer lets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from agent.policy import rule_ids
from agent.policy.command_index import CommandIndex
from agent.policy.commands import Fit, Places, covers, judge
from agent.policy.decision import Decision, Severity, Verdict
from agent.policy.model import (
    CommandRule,
    CommandSection,
    InDoubt,
    Layer,
    Policy,
    RuleException,
    Unverifiable,
)
from agent.policy.request import CommandRequest, SimpleCommand
from agent.policy.self_protection import RULES, WHERE
from agent.policy.verdicts import by_rule, denied, enforces, exceptions_of, worst
from agent.policy.words import shown
from agent.values import dataclass, replace

_RANK: Final = {severity: rank for rank, severity in enumerate(reversed(Severity))}
"""The most severe of the rules that deny is the one that is reported; of equals, the policy's first."""

_OWN: Final = Layer(source=WHERE.file)
_OWN_INDEX: Final = CommandIndex(RULES)


def decide_commands(policy: Policy, request: CommandRequest) -> Decision:
    """The decision for a command line or an exec."""
    places = Places(request.home, policy.workspace, request.cwd)
    own, _ = _hits(_OWN, _OWN_INDEX, request, places)
    if own:
        return denied(policy, replace(by_rule(own[0], "", own[0].severity), where=None))  # in no file of the policy
    layers = [(layer, layer.commands) for layer in policy.layers if layer.commands is not None]
    found: list[CommandRule] = []
    perhaps: list[CommandRule] = []
    for layer, section in layers:
        hits, maybe = _hits(layer, section.denies, request, places)
        found += hits
        perhaps += maybe
    if not found and not perhaps and request.unverifiable is None:
        return _passes(policy.digest)
    enforced = enforces(section.mode for _, section in layers)
    found.sort(key=lambda rule: _RANK[rule.severity])
    denial = worst([by_rule(rule, f"{_meaning(rule)} is refused", rule.severity) for rule in found])
    if denial is not None:
        return denied(policy, denial, enforced=enforced)
    if layers and not request.certain and (perhaps or request.unverifiable is not None):
        return _unverifiable(policy, request, perhaps, [section for _, section in layers], enforced)
    return _passes(policy.digest)


@lru_cache(maxsize=16)
def _passes(digest: str) -> Decision:
    """Always the same for one policy, whatever the command is."""
    return Decision(
        verdict=Verdict.ALLOW,
        rule=rule_ids.COMMANDS_DEFAULT,
        reason="no rule of the policy refuses this command",
        severity=Severity.LOW,
        policy_digest=digest,
    )


@dataclass(frozen=True, slots=True)
class RuleFit:
    """How a rule fits one of the request's commands (its position). `excepted`: an exception lets it pass."""

    rule: CommandRule
    command: int
    fit: Fit
    excepted: RuleException | None = None


def command_fits(policy: Policy, request: CommandRequest) -> tuple[RuleFit, ...]:
    """Every rule that describes, or may describe, some command of the request: for the reader, it decides nothing."""
    places = Places(request.home, policy.workspace, request.cwd)
    found = list(_fits(_OWN, _OWN_INDEX, request, places))
    for layer in policy.layers:
        if layer.commands is not None:
            found += _fits(layer, layer.commands.denies, request, places)
    return tuple(found)


def _fits(layer: Layer, rules: CommandIndex, request: CommandRequest, places: Places) -> Iterator[RuleFit]:
    for position, command in enumerate(request.commands):
        for rule in rules.about(command):
            if rule.unless_from_itself and command.program == request.caller and not command.wrappers:
                continue
            fit = judge(rule.match, command, places)
            if fit is not Fit.NO:
                yield RuleFit(rule, position, fit, _excepted(layer, rule, command, request, places))


def _hits(
    layer: Layer, rules: CommandIndex, request: CommandRequest, places: Places
) -> tuple[list[CommandRule], list[CommandRule]]:
    """The rules that describe some command, and those that might."""
    fits = list(_fits(layer, rules, request, places))
    if not fits:
        return [], []
    sure: dict[str, CommandRule] = {}
    perhaps: dict[str, CommandRule] = {}
    for found in fits:
        if found.excepted is not None:
            continue
        if found.fit is Fit.YES:
            sure[found.rule.id] = found.rule
        elif found.rule.in_doubt is InDoubt.UNVERIFIABLE:
            perhaps[found.rule.id] = found.rule
    return list(sure.values()), [rule for rule in perhaps.values() if rule.id not in sure]


def _excepted(
    layer: Layer, rule: CommandRule, command: SimpleCommand, request: CommandRequest, places: Places
) -> RuleException | None:
    """An exception must describe the whole command: one excepted operand does not take the others with it."""
    for exception in exceptions_of(layer, rule.id):
        if request.today > exception.expires:
            continue
        if exception.match is None or covers(exception.match, command, places):
            return exception
    return None


def _unverifiable(
    policy: Policy,
    request: CommandRequest,
    perhaps: list[CommandRule],
    sections: list[CommandSection],
    enforced: bool,
) -> Decision:
    why = request.unverifiable
    if perhaps:
        hanging = f"whether {perhaps[0].id} applies is known only when it runs"
        why = hanging if why is None else f"{why}; {hanging}"
    tolerated = all(section.unverifiable is Unverifiable.SUPERVISE for section in sections)
    return Decision(
        verdict=Verdict.UNVERIFIABLE,
        rule=rule_ids.COMMANDS_UNVERIFIABLE,
        reason=shown(f"what this command does cannot be known before it runs: {why}"),
        instead="write the command out: no computed program names, no eval, no text from elsewhere piped into a shell",
        severity=Severity.MEDIUM,
        policy_digest=policy.digest,
        enforced=enforced,
        supervised=tolerated and request.supervised,
    )


def _meaning(rule: CommandRule) -> str:
    match = rule.match
    words = [*match.program[:1], *match.subcommand, *(f"--{option}" for option in match.options), *match.operands[:3]]
    return " ".join(words) or rule.id
