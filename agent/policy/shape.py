"""What a value in a policy file may look like: the vocabulary of `agent.policy.schema`, and the values read by it.

One table (`agent.policy.schema.DOCUMENT`) made of these shapes drives both the reader and `policy schema`, so that the
two cannot disagree.
"""

from __future__ import annotations

from datetime import date

from agent.policy.model import Where
from agent.values import dataclass


@dataclass(frozen=True, slots=True)
class TextShape:
    """A string. `choices`: one of these. `pattern`: a regular expression for the whole of it; `meant` says it in words.
    `prose`: shown to people and models, so nothing invisible in it. `lines`: it may have several."""

    doc: str
    choices: tuple[str, ...] = ()
    pattern: str | None = None
    meant: str = "a text"
    longest: int = 1000
    prose: bool = False
    lines: bool = False


@dataclass(frozen=True, slots=True)
class NumberShape:
    """A decimal integer from `low` to `high`, both included."""

    doc: str
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class QuantityShape:
    """A whole number of `unit` from `low` to `high`, or one with one of `units` (its name, how many of
    `unit`) behind it."""

    doc: str
    units: tuple[tuple[str, int], ...]
    unit: str
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class FlagShape:
    """``true`` or ``false``, and no other spelling."""

    doc: str


@dataclass(frozen=True, slots=True)
class DayShape:
    """A calendar day, ``YYYY-MM-DD``, with or without quotes."""

    doc: str


@dataclass(frozen=True, slots=True)
class ListShape:
    """A list. `single`: one value may stand for a list of one. `longest`: how many entries at most."""

    doc: str
    item: Shape
    single: bool = False
    nonempty: str = ""
    longest: int = 2000


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a record."""

    name: str
    shape: Shape
    required: bool = False


@dataclass(frozen=True, slots=True)
class RecordShape:
    """A mapping with these keys and no others. `shorthand`: a plain text may stand for the record. `empty`: no value at
    all (``egress:``) is the empty record."""

    doc: str
    keys: tuple[Key, ...]
    name: str
    shorthand: TextShape | None = None
    empty: bool = False


@dataclass(frozen=True, slots=True)
class MapShape:
    """A mapping whose keys are the file's own: texts of the shape `key`. It has one entry at least. Read as a
    `Record`."""

    doc: str
    key: TextShape
    value: Shape
    name: str
    longest: int = 50


type Shape = TextShape | NumberShape | QuantityShape | FlagShape | DayShape | ListShape | RecordShape | MapShape


@dataclass(frozen=True, slots=True)
class Text:
    value: str
    where: Where


@dataclass(frozen=True, slots=True)
class Number:
    value: int
    where: Where


@dataclass(frozen=True, slots=True)
class Flag:
    value: bool
    where: Where


@dataclass(frozen=True, slots=True)
class Day:
    value: date
    where: Where


@dataclass(frozen=True, slots=True)
class Items:
    values: tuple[Value, ...]
    where: Where


@dataclass(frozen=True, slots=True)
class Record:
    """A mapping as it was read; keys that had problems are missing from `values` and named in `faulty`."""

    values: tuple[tuple[str, Value], ...]
    where: Where
    faulty: tuple[str, ...] = ()

    def get(self, key: str) -> Value | None:
        return next((value for name, value in self.values if name == key), None)

    def has(self, key: str) -> bool:
        return key in self.faulty or self.get(key) is not None

    def text(self, key: str, default: str = "") -> str:
        value = self.get(key)
        return value.value if isinstance(value, Text) else default

    def items(self, key: str) -> tuple[Value, ...]:
        value = self.get(key)
        return value.values if isinstance(value, Items) else ()

    def texts(self, key: str) -> tuple[Text, ...]:
        return tuple(value for value in self.items(key) if isinstance(value, Text))

    def words(self, key: str) -> tuple[str, ...]:
        return tuple(text.value for text in self.texts(key))

    def flag(self, key: str) -> bool:
        value = self.get(key)
        return isinstance(value, Flag) and value.value

    def number(self, key: str) -> int | None:
        value = self.get(key)
        return value.value if isinstance(value, Number) else None

    def record(self, key: str) -> Record | None:
        value = self.get(key)
        return value if isinstance(value, Record) else None

    def place(self, key: str) -> Where:
        value = self.get(key)
        return self.where if value is None else value.where


type Value = Text | Number | Flag | Day | Items | Record
