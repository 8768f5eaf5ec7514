"""Value classes are dataclasses, but for what making them takes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import values

NAMES = st.lists(st.sampled_from(["a", "b", "name", "value", "scope", "init", "given"]), unique=True, max_size=5)
PLAIN = st.none() | st.integers(0, 3) | st.text("ab", max_size=2) | st.tuples(st.integers(0, 2))
KINDS = st.sampled_from(["needed", "default", "made", "compared not", "shown not", "set by itself"])


@dataclasses.dataclass
class Described:
    """A class to be made by both."""

    kinds: dict[str, str]
    default: object
    frozen: bool
    eq: bool

    def made_with(self, decorator: Any, field: Any) -> Any:
        ways: dict[str, Callable[[], Any]] = {
            "default": lambda: self.default,
            "made": lambda: field(default_factory=list),
            "compared not": lambda: field(default=self.default, compare=False),
            "shown not": lambda: field(default=self.default, repr=False),
            "set by itself": lambda: field(default=self.default, init=False),
        }
        body = {name: ways[kind]() for name, kind in self.kinds.items() if kind != "needed"}
        body["__annotations__"] = dict.fromkeys(self.kinds, "object")
        body["__qualname__"] = "Outer.Made"
        return decorator(slots=True, frozen=self.frozen, eq=self.eq)(type("Made", (), body))

    def both(self) -> tuple[Any, Any]:
        theirs = self.made_with(dataclasses.dataclass, dataclasses.field)
        return self.made_with(values.dataclass, values.field), theirs


@st.composite
def described(draw: st.DrawFn) -> Described:
    names = draw(NAMES)
    kinds = sorted((draw(KINDS) for _ in names), key=lambda kind: kind != "needed")
    return Described(dict(zip(names, kinds, strict=True)), draw(PLAIN), draw(st.booleans()), draw(st.booleans()))


def outcome(of: Callable[[], object]) -> object:
    """What it gives, or how it fails."""
    try:
        return of()
    except (TypeError, ValueError, AttributeError) as error:
        return type(error), str(error)


@contextmanager
def importable(cls: Any) -> Iterator[None]:
    """For pickle, which finds classes by name."""
    module = sys.modules[__name__]
    cls.__module__, cls.__qualname__ = __name__, "Made"
    module.Made = cls  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del module.Made


@given(described(), st.data())
def test_a_value_class_does_what_a_dataclass_does(both: Described, data: st.DataObject) -> None:
    ours, theirs = both.both()
    arguments = data.draw(st.lists(PLAIN, max_size=6))
    named = data.draw(st.dictionaries(st.sampled_from([*both.kinds, "other"]), PLAIN, max_size=4))
    one: Any = outcome(lambda: ours(*arguments, **named))
    other: Any = outcome(lambda: theirs(*arguments, **named))
    if isinstance(other, tuple):
        assert one == other
        return
    assert outcome(lambda: repr(one)) == outcome(lambda: repr(other))
    assert [f.name for f in values.fields(one)] == [f.name for f in dataclasses.fields(other)]
    assert ours.__match_args__ == theirs.__match_args__ and ours.__slots__ == theirs.__slots__
    assert outcome(lambda: values.asdict(one)) == outcome(lambda: dataclasses.asdict(other))
    changes = data.draw(st.dictionaries(st.sampled_from([*both.kinds, "other"]), PLAIN, max_size=2))
    again, theirs_again = (
        outcome(lambda: repr(values.replace(one, **changes))),
        outcome(lambda: repr(dataclasses.replace(other, **changes))),
    )
    assert again == theirs_again or (isinstance(again, tuple) and isinstance(theirs_again, tuple))


@given(described(), st.data())
def test_values_are_compared_hashed_kept_and_copied_as_dataclasses_are(both: Described, data: st.DataObject) -> None:
    ours, theirs = both.both()
    needed = [name for name, kind in both.kinds.items() if kind != "set by itself"]
    pairs = [{name: data.draw(PLAIN) for name in needed} for _ in range(2)]
    (one, two), (other, another) = ([made(**each) for each in pairs] for made in (ours, theirs))
    assert (one == two) == (other == another)
    assert (one == other, one == None, one != one) == (False, False, False)  # noqa: E711
    assert (outcome(lambda: hash(one) == hash(two))) == (outcome(lambda: hash(other) == hash(another))) or not both.eq
    assert (ours.__hash__ is None) == (theirs.__hash__ is None)
    for name in both.kinds:
        assert _kind(partial(setattr, one, name, 1)) == _kind(partial(setattr, other, name, 1))
    assert isinstance(outcome(partial(setattr, one, "other", 1)), tuple)
    if both.kinds:
        first = next(iter(both.kinds))
        assert _kind(partial(delattr, one, first)) == _kind(partial(delattr, other, first))
        setattr(one, first, 1) if not both.frozen else None
    with importable(ours):
        for copied in (pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one)):
            assert type(copied) is ours and values.asdict(copied) == values.asdict(one)


def _kind(of: Callable[[], object]) -> object:
    found = outcome(of)
    return found[0] if isinstance(found, tuple) else found


@given(described(), st.data())
def test_the_standard_functions_take_values_for_dataclasses(both: Described, data: st.DataObject) -> None:
    ours, theirs = both.both()
    value: Any = ours(**{name: data.draw(PLAIN) for name, kind in both.kinds.items() if kind != "set by itself"})
    shown = [[(f.name, f.init, f.repr, f.compare) for f in dataclasses.fields(made)] for made in (ours, theirs)]
    assert shown[0] == shown[1]
    assert dataclasses.asdict(value) == values.asdict(value)


def test_values_within_values_become_plain_together() -> None:
    @values.dataclass(frozen=True, slots=True)
    class Inner:
        number: int

    @values.dataclass(slots=True)
    class Outer:
        one: Inner
        many: tuple[Inner, ...]
        named: dict[str, list[Inner]]

    outer = Outer(Inner(1), (Inner(2), Inner(3)), {"four": [Inner(4)]})
    assert values.asdict(outer) == {
        "one": {"number": 1},
        "many": ({"number": 2}, {"number": 3}),
        "named": {"four": [{"number": 4}]},
    }
    match outer:
        case Outer(Inner(number), _):
            assert number == 1
        case _:
            raise AssertionError("not matched by position")


def test_a_value_completes_itself_and_says_how_it_is_shown() -> None:
    @values.dataclass(frozen=True, slots=True)
    class Sum:
        """Own methods stay."""

        parts: tuple[int, ...]
        whole: int = values.field(init=False, compare=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "whole", sum(self.parts))

        def __repr__(self) -> str:
            return f"sum of {self.whole}"

    assert (Sum((1, 2)).whole, repr(Sum((1, 2))), Sum.__doc__) == (3, "sum of 3", "Own methods stay.")
    assert values.replace(Sum((1, 2)), parts=(4,)).whole == 4


@pytest.mark.parametrize("kind", ["base", "ClassVar", "shared", "order", "no slots"])
def test_what_is_not_to_be_had_is_refused_where_the_class_is_made(kind: str) -> None:
    made = values.dataclass(slots=True)

    class Plain:
        number: int = 0

    bodies: dict[str, dict[str, Any]] = {
        "base": {"__annotations__": {"more": "int"}},
        "ClassVar": {"__annotations__": {"more": ClassVar[int]}},
        "shared": {"__annotations__": {"more": "list[int]"}, "more": []},
        "order": {"__annotations__": {"a": "int", "b": "int"}, "a": 1},
        "no slots": {},
    }
    with pytest.raises((TypeError, ValueError)):
        if kind == "no slots":
            values.dataclass(slots=False)
        made(type("Made", (made(Plain),) if kind == "base" else (), bodies[kind]))
