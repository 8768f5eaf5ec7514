"""Nodes to values, by the shapes of the schema: the typed, position-aware half of the loader.

Rules kept here: every mistake becomes a problem with its place and its fix, and reading goes on, so that one run shows
all; what YAML 1.1 would silently turn into something else (`no`, `010`, `1.10`, `12:30`, a date) is a problem where a
text or a number is meant; a value with a problem is left out, never guessed.
"""

from __future__ import annotations

import re
from datetime import date
from difflib import get_close_matches
from typing import Final, assert_never

import yaml

from agent.policy.model import Where
from agent.policy.problem import Problem
from agent.policy.shape import (
    Day,
    DayShape,
    Flag,
    FlagShape,
    Items,
    ListShape,
    MapShape,
    Number,
    NumberShape,
    QuantityShape,
    Record,
    RecordShape,
    Shape,
    Text,
    TextShape,
    Value,
)
from agent.policy.words import hidden_character, shown
from agent.policy.yaml_nodes import place

_TAG: Final = "tag:yaml.org,2002:"
_READ_AS: Final = {
    "bool": "a boolean",
    "int": "a number",
    "float": "a number",
    "null": "nothing",
    "timestamp": "a date",
    "merge": "a merge key",
    "value": "a value key",
}
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
_QUANTITY: Final = re.compile(r"(0|[1-9][0-9]{0,17})([A-Za-z]+)", re.ASCII)
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


class Reader:
    """Reads the nodes of one file; problems are added to the list it was given."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self._file = file
        self._problems = problems

    def read(self, node: yaml.Node, shape: Shape) -> Value | None:
        """The value, None where it has a problem of its own."""
        match shape:
            case TextShape():
                return self._text(node, shape)
            case NumberShape():
                return self._number(node, shape)
            case QuantityShape():
                return self._quantity(node, shape)
            case MapShape():
                return self._map(node, shape)
            case FlagShape():
                return self._flag(node)
            case DayShape():
                return self._day(node)
            case ListShape():
                return self._list(node, shape)
            case RecordShape():
                return self._record(node, shape)
            case _:
                assert_never(shape)

    def _fault(self, node: yaml.Node, message: str, fix: str) -> None:
        self._problems.append(Problem(self._where(node), message, fix))

    def _where(self, node: yaml.Node) -> Where:
        return place(self._file, node.start_mark)

    def _text(self, node: yaml.Node, shape: TextShape) -> Text | None:
        if not isinstance(node, yaml.ScalarNode):
            self._fault(node, f"{_kind(node)} where {shape.meant} is meant", _text_fix(shape))
            return None
        read_as = node.tag.removeprefix(_TAG)
        if read_as != "str":
            found = f"{shown(node.value)!r} is read as {_READ_AS.get(read_as, read_as)}" if node.value else "no value"
            fix = f'put it in quotes: "{shown(node.value)}"' if node.value and not shape.choices else _text_fix(shape)
            self._fault(node, f"{found} where {shape.meant} is meant", fix)
            return None
        fault = _text_fault(node.value, shape)
        if fault is not None:
            self._fault(node, *fault)
            return None
        return Text(node.value, self._where(node))

    def _number(self, node: yaml.Node, shape: NumberShape) -> Number | None:
        fix = f"write a decimal number from {shape.low} to {shape.high}, without quotes"
        if shape.low == shape.high:
            fix = f"write {shape.low}, without quotes"
        if not isinstance(node, yaml.ScalarNode) or node.tag != f"{_TAG}int" or not _DECIMAL.fullmatch(node.value):
            found = shown(node.value) if isinstance(node, yaml.ScalarNode) else _kind(node)
            self._fault(node, f"{found} where a number is meant", fix)
            return None
        value = int(node.value)
        if not shape.low <= value <= shape.high:
            self._fault(node, f"{value} is out of range", fix)
            return None
        return Number(value, self._where(node))

    def _quantity(self, node: yaml.Node, shape: QuantityShape) -> Number | None:
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        plain = node.tag == f"{_TAG}int" and _DECIMAL.fullmatch(text)
        found = _QUANTITY.fullmatch(text)
        factor = 1 if plain else dict(shape.units).get(found[2]) if found else None
        fix = f"write {_range_of(shape)}, such as 10{shape.units[1][0]}, or a whole number of {shape.unit}"
        if factor is None:
            what = repr(shown(text)) if text else _kind(node)
            self._fault(node, f"{what} where a number of {shape.unit} is meant", fix)
            return None
        value = int(found[1] if found and not plain else text) * factor
        if not shape.low <= value <= shape.high:
            self._fault(node, f"{shown(text)} is out of range", fix)
            return None
        return Number(value, self._where(node))

    def _map(self, node: yaml.Node, shape: MapShape) -> Record | None:
        if not isinstance(node, yaml.MappingNode) or not node.value:
            what = "an empty mapping" if isinstance(node, yaml.MappingNode) else _kind(node)
            self._fault(node, f"{what} where {shape.name} is meant", "write {name: value}, or leave the key out")
            return None
        if len(node.value) > shape.longest:
            self._fault(node, f"more than {shape.longest} entries", "keep those that matter")
            return None
        values: dict[str, Value] = {}
        for key, child in node.value:
            name, value = self._text(key, shape.key), self.read(child, shape.value)
            if name is not None and name.value in values:
                self._fault(key, f"the key '{shown(name.value)}' is given twice", "merge the two")
            if name is None or value is None or name.value in values:
                return None
            values[name.value] = value
        return Record(tuple(values.items()), self._where(node))

    def _flag(self, node: yaml.Node) -> Flag | None:
        text = node.value if isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}bool" else ""
        if text not in ("true", "false"):
            found = repr(shown(node.value)) if isinstance(node, yaml.ScalarNode) and node.value else _kind(node)
            self._fault(node, f"{found} where true or false is meant", "write true or false, without quotes")
            return None
        return Flag(text == "true", self._where(node))

    def _day(self, node: yaml.Node) -> Day | None:
        if isinstance(node, yaml.ScalarNode) and _DAY.fullmatch(node.value):
            try:
                return Day(date.fromisoformat(node.value), self._where(node))
            except ValueError:
                pass
        found = shown(node.value) if isinstance(node, yaml.ScalarNode) else _kind(node)
        self._fault(node, f"{found or 'no value'} where a day is meant", "write it as YYYY-MM-DD")
        return None

    def _list(self, node: yaml.Node, shape: ListShape) -> Items | None:
        if not isinstance(node, yaml.SequenceNode):
            if shape.single and not _is_null(node):
                value = self.read(node, shape.item)
                return None if value is None else Items((value,), self._where(node))
            self._fault(node, f"{_kind(node)} where a list is meant", "write a list: [a, b], or [] for none")
            return None
        if shape.nonempty and not node.value:
            self._fault(node, "an empty list", shape.nonempty)
            return None
        if len(node.value) > shape.longest:
            self._fault(node, f"more than {shape.longest} entries", "use wildcards, or split into layers")
            return None
        values = [self.read(entry, shape.item) for entry in node.value]
        if shape.nonempty and any(value is None for value in values):
            return None
        return Items(tuple(value for value in values if value is not None), self._where(node))

    def _record(self, node: yaml.Node, shape: RecordShape) -> Record | Text | None:
        if isinstance(node, yaml.ScalarNode) and shape.shorthand is not None:
            return self._text(node, shape.shorthand)
        if shape.empty and _is_null(node):
            return Record((), self._where(node))
        if not isinstance(node, yaml.MappingNode):
            keys = ", ".join(key.name for key in shape.keys)
            self._fault(node, f"{_kind(node)} where {shape.name} is meant", f"write a mapping with the keys {keys}")
            return None
        values: list[tuple[str, Value]] = []
        faulty: list[str] = []
        for name, child in self._keys(node, shape):
            value = self.read(child, next(key.shape for key in shape.keys if key.name == name))
            if value is None:
                faulty.append(name)
            else:
                values.append((name, value))
        given = {name for name, _ in values} | set(faulty)
        missing = [key.name for key in shape.keys if key.required and key.name not in given]
        for name in missing:
            self._fault(node, f"{shape.name} without '{name}'", f"add '{name}:'")
        return Record(tuple(values), self._where(node), (*faulty, *missing))

    def _keys(self, node: yaml.MappingNode, shape: RecordShape) -> list[tuple[str, yaml.Node]]:
        """The known keys in order, each once, with their nodes."""
        allowed = [key.name for key in shape.keys]
        first: dict[str, Where] = {}
        found: list[tuple[str, yaml.Node]] = []
        for key, child in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if not isinstance(name, str):
                self._fault(key, f"{_kind(key)} as a key", f"keys are texts: {', '.join(allowed)}")
            elif name in first:
                self._fault(
                    key, f"the key '{shown(name)}' is given twice (first in line {first[name].line})", "merge the two"
                )
            elif name not in allowed:
                first[name] = self._where(key)
                self._fault(key, f"unknown key '{shown(name)}' in {shape.name}", _key_fix(name, allowed))
            else:
                first[name] = self._where(key)
                found.append((name, child))
        return found


def _text_fault(text: str, shape: TextShape) -> tuple[str, str] | None:
    if not text:
        return f"an empty text where {shape.meant} is meant", _text_fix(shape)
    if len(text) > shape.longest:
        return f"a text of {len(text)} characters", f"at most {shape.longest}"
    if shape.choices and text not in shape.choices:
        close = get_close_matches(text, shape.choices, 1)
        fix = f"did you mean {close[0]}?" if close else _text_fix(shape)
        return f"{shown(text)!r} where {shape.meant} is meant", fix
    hidden = hidden_character(text.replace("\n", "") if shape.lines else text)
    if hidden is not None:
        where = "this is shown to people and models" if shape.prose else "nobody could see it"
        return f"the invisible character {shown(hidden)}", f"remove it: {where}"
    if shape.pattern is not None and not re.fullmatch(shape.pattern, text, re.ASCII):
        return f"{shown(text)!r} where {shape.meant} is meant", _text_fix(shape)
    return None


def _text_fix(shape: TextShape) -> str:
    return f"write one of: {', '.join(shape.choices)}" if shape.choices else f"write {shape.meant}"


def _range_of(shape: QuantityShape) -> str:
    names = ", ".join(name for name, _ in shape.units)
    return f"a whole number with one of the units {names} behind it ({shape.low} to {shape.high} {shape.unit})"


def _key_fix(name: str, allowed: list[str]) -> str:
    if name == "<<":
        return "merge keys are not used: write the values out"
    close = get_close_matches(name, allowed, 1)
    return f"did you mean '{close[0]}'?" if close else f"the keys here are {', '.join(allowed)}"


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}null"


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "no value" if _is_null(node) else f"the text {shown(str(node.value))!r}"
