"""The section `tools` from its records.

Rules kept here: a rule that disagrees with its examples is a problem, and so is an allowed tool that a deny of the same
layer takes back whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.policy.build import Bench, examples, severity, subject, wording
from agent.policy.decision import Severity
from agent.policy.model import Mode
from agent.policy.shape import Record, Value
from agent.policy.tool_rules import ToolRule, ToolSection
from agent.policy.words import shown


def tool_section(bench: Bench, records: Sequence[Record], mode: Mode) -> ToolSection | None:
    """The section of one layer, None where it has none."""
    if not records:
        return None
    allow, deny = _rules(bench, records, "allow"), _rules(bench, records, "deny")
    for rule in allow:
        other = next((one for one in deny if one.covers(rule)), None)
        if other is not None:
            bench.fault(rule.where, f"{rule.tool} is refused by {other.id} ({other.where})", "remove one of the two")
    given = any(record.has("allow") for record in records)
    return ToolSection(mode, tuple(allow) if given else None, tuple(deny))


def _rules(bench: Bench, records: Sequence[Record], key: str) -> list[ToolRule]:
    values = [value for record in records for value in record.items(key)]
    rules = [_rule(bench, value, bench.identify(value, "tools", key, index)) for index, value in enumerate(values)]
    return [rule for rule in rules if rule is not None]


def _rule(bench: Bench, value: Value, name: str) -> ToolRule | None:
    text = subject(value, "tool")
    if text is None:
        return None
    reason, instead = wording(value)
    level = severity(value, Severity.MEDIUM)
    rule = ToolRule(name, text.value, value.where, level, reason, instead, examples(value))
    for wanted, listed in ((True, rule.examples.match), (False, rule.examples.no_match)):
        for example in listed:
            if rule.fits(example) is not wanted:
                how = "does not match" if wanted else "matches"
                message = f"{name} {how} its example '{shown(example)}'"
                bench.fault(rule.where, message, "correct the rule or the example")
    return rule
