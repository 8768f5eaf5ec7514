"""Tools: may this tool of a coding agent be called at all?

Rules kept here: deny beats allow; every layer that lists what is allowed must list it; a tool whose working the agent
knows needs no entry (what it does is decided as command, path or destination); a policy that says nothing refuses none.
"""

from __future__ import annotations

from agent.policy import rule_ids
from agent.policy.decision import Decision, Severity
from agent.policy.model import Policy
from agent.policy.request import ToolRequest
from agent.policy.tool_rules import ToolRule, ToolSection
from agent.policy.verdicts import Denial, allowed, denied, enforces, worst
from agent.policy.words import shown


def decide_tools(policy: Policy, request: ToolRequest) -> Decision:
    """The decision for one call of one tool."""
    sections = [layer.tools for layer in policy.layers if layer.tools is not None]
    answers = [_answer(section, request) for section in sections]
    denial = worst([answer for answer in answers if isinstance(answer, Denial)])
    if denial is not None:
        return denied(policy, denial, enforced=enforces(section.mode for section in sections))
    rule = next((answer for answer in answers if isinstance(answer, ToolRule)), None)
    if rule is None:
        return allowed(policy, rule_ids.TOOLS_DEFAULT, "no rule refuses the tool")
    return allowed(policy, rule.id, rule.reason or f"{rule.tool} is allowed", where=str(rule.where))


def _answer(section: ToolSection, request: ToolRequest) -> Denial | ToolRule | None:
    """The layer's no, what allows the tool, or None where it says nothing about it."""
    for rule in section.deny:
        if rule.fits(request.tool):
            reason = rule.reason or f"the policy refuses the tool {shown(request.tool)}"
            return Denial(rule.id, reason, rule.instead, str(rule.where), rule.severity)
    if section.allow is None:
        return None
    found = next((rule for rule in section.allow if rule.fits(request.tool)), None)
    if found is None and not request.known:
        reason = f"no rule of the policy allows the tool {shown(request.tool)}"
        return Denial(rule_ids.TOOLS_UNLISTED, reason, "ask for it under tools.allow", severity=Severity.MEDIUM)
    return found
