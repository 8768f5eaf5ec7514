"""A pack of command rules from its YAML text."""

from __future__ import annotations

from agent.policy.build import Bench
from agent.policy.build_commands import command_rule
from agent.policy.model import CommandRule
from agent.policy.reader import Reader
from agent.policy.schema_commands import PACK
from agent.policy.shape import Record
from agent.policy.yaml_nodes import compose


def pack_file(name: str) -> str:
    """How a pack's file is named in `where` and in problems."""
    return f"policies/packs/{name}.yaml"


def pack_rules(bench: Bench, name: str, text: str) -> list[CommandRule]:
    """The rules of a pack. What is wrong with it is added to the bench."""
    file = pack_file(name)
    node = compose(file, text, bench.problems)
    record = Reader(file, bench.problems).read(node, PACK) if node is not None else None
    if not isinstance(record, Record):
        return []
    rules = [
        command_rule(bench, value, bench.identify(value, name, "", index))
        for index, value in enumerate(record.items("deny"))
    ]
    return [rule for rule in rules if rule is not None]
