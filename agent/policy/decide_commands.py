"""Commands: may this run?

Rules kept here: the agent's own rules come first and always; a rule that describes any of the commands denies all of
them; a rule of which it cannot be known beforehand whether it applies makes the request unverifiable, like text whose
meaning cannot be known; unverifiable runs only where every exec is decided again and every layer lets it.
"""

from __future__ import annotations

from dataclasses import replace

from agent.policy import rule_ids
from agent.policy.commands import Fit, covers, judge
from agent.policy.decision import Decision, Severity, Verdict
from agent.policy.model import CommandRule, CommandSection, Layer, Policy, Unverifiable
from agent.policy.request import CommandRequest, SimpleCommand
from agent.policy.self_protection import RULES, WHERE
from agent.policy.verdicts import allowed, by_rule, denied, enforces, exceptions_of, worst
from agent.policy.words import shown

_OWN: Layer = Layer(source=WHERE.file)


def decide_commands(policy: Policy, request: CommandRequest) -> Decision:
    """The decision for a command line or an exec."""
    own, _ = _hits(_OWN, RULES, request)
    if own:
        return denied(policy, replace(by_rule(own[0], "", own[0].severity), where=None))  # in no file of the policy
    layers = [(layer, layer.commands) for layer in policy.layers if layer.commands is not None]
    found: list[CommandRule] = []
    perhaps: list[CommandRule] = []
    for layer, section in layers:
        hits, maybe = _hits(layer, section.deny, request)
        found += hits
        perhaps += maybe
    enforced = enforces(section.mode for _, section in layers)
    denial = worst([by_rule(rule, f"{_meaning(rule)} is refused", rule.severity) for rule in found])
    if denial is not None:
        return denied(policy, denial, enforced=enforced)
    if layers and (perhaps or request.unverifiable is not None):
        return _unverifiable(policy, request, perhaps, [section for _, section in layers], enforced)
    return allowed(policy, rule_ids.COMMANDS_DEFAULT, "no rule of the policy refuses this command")


def _hits(
    layer: Layer, rules: tuple[CommandRule, ...], request: CommandRequest
) -> tuple[list[CommandRule], list[CommandRule]]:
    """The rules that describe some command, and those that might."""
    sure, perhaps = [], []
    for rule in rules:
        fits = [
            judge(rule.match, command, home=request.home)
            for command in request.commands
            if not _excepted(layer, rule, command, request)
        ]
        if Fit.YES in fits:
            sure.append(rule)
        elif Fit.MAYBE in fits:
            perhaps.append(rule)
    return sure, perhaps


def _excepted(layer: Layer, rule: CommandRule, command: SimpleCommand, request: CommandRequest) -> bool:
    """An exception must describe the whole command: one excepted operand does not take the others with it."""
    return any(
        request.today <= exception.expires
        and (exception.match is None or covers(exception.match, command, home=request.home))
        for exception in exceptions_of(layer, rule.id)
    )


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
    return " ".join(words)
