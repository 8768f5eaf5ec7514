"""What the builders of the sections share: the problems they add to, and the ids they hand out."""

from __future__ import annotations

from agent.policy.decision import Severity
from agent.policy.model import Examples, Where
from agent.policy.problem import Problem
from agent.policy.rule_ids import by_place, is_reserved
from agent.policy.shape import Record, Text, Value


class Bench:
    """The state of building one layer: problems found, ids given."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self._ids: dict[str, Where] = {}

    def fault(self, where: Where, message: str, fix: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(where, message, fix))

    def identify(self, value: Value, section: str, key: str, index: int, prefix: str = "") -> str:
        """The rule's id: its own, or its place."""
        own = value.text("id") if isinstance(value, Record) else ""
        if not own:
            return prefix + by_place(section, key, index)
        where = value.place("id") if isinstance(value, Record) else value.where
        if is_reserved(own):
            self.fault(where, f"the id '{own}' is the agent's own", "choose another id")
        first = self._ids.setdefault(prefix + own, where)
        if first is not where:
            self.fault(where, f"the id '{own}' is given twice (first in {first})", "choose another id")
        return prefix + own


def severity(value: Value, default: Severity) -> Severity:
    """The rule's severity, or the default of its kind."""
    given = value.text("severity") if isinstance(value, Record) else ""
    return Severity(given) if given else default


def examples(value: Value) -> Examples:
    """The rule's examples."""
    record = value.record("examples") if isinstance(value, Record) else None
    if record is None:
        return Examples()
    return Examples(record.words("match"), record.words("no_match"))


def wording(value: Value) -> tuple[str, str]:
    """The rule's reason and instead."""
    return (value.text("reason"), value.text("instead")) if isinstance(value, Record) else ("", "")


def subject(value: Value, key: str) -> Text | None:
    """What the rule is about: the shorthand itself, or the text under `key`."""
    if isinstance(value, Text):
        return value
    inner = value.get(key) if isinstance(value, Record) else None
    return inner if isinstance(inner, Text) else None
