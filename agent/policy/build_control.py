"""The section `control` from its records.

Rule kept here: a name has one role; given two, the reader of the file would believe the wrong one.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.policy.build import Bench
from agent.policy.control_roles import ControlSection, Role
from agent.policy.shape import Record, Text


def control_section(bench: Bench, records: Sequence[Record]) -> ControlSection | None:
    """The section of one layer, None where it has none."""
    if not records:
        return None
    seen: dict[str, Role] = {}
    for role in Role:
        for value in (value for record in records for value in record.items(str(role))):
            if not isinstance(value, Text):
                continue
            first = seen.setdefault(value.value, role)
            if first is not role:
                bench.fault(value.where, f"{value.value} is {first} and {role}", "give it one role")
    names = {role: tuple(name for name, given in seen.items() if given is role) for role in Role}
    return ControlSection(names[Role.ADMIN], names[Role.OPERATOR], names[Role.VIEWER])
