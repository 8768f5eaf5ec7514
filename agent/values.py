"""Value classes: what `dataclasses.dataclass(slots=True)` gives, for a twentieth of what it takes.

The agent has some two hundred of them, and each process makes those that it imports before it does anything: the
standard decorator writes and compiles five functions a class and makes it twice, 0.6 ms, which was a third of the
agent's start. Here the functions are shared by all classes, and `__init__` is compiled when the first instance is made.
To a type checker, and to whatever asks for `__dataclass_fields__`, these are dataclasses (tests/test_values.py holds
them against the standard ones). Rules kept here: what is not supported (bases with fields, ClassVar, InitVar, classes
without slots) is refused where the class is made; imports nothing that takes time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

__all__ = ["asdict", "dataclass", "field", "fields", "replace"]

_FIELDS: Final = "__value_fields__"
_MISSING: Final = object()
_UNSUPPORTED: Final = ("ClassVar", "InitVar", "KW_ONLY")


class _Field:
    """What is known of one field. `factory`: makes its default, None where there is none to be made."""

    __slots__ = ("compare", "default", "factory", "init", "name", "repr")

    def __init__(
        self, default: Any, factory: Callable[[], Any] | None, *, init: bool, repr: bool, compare: bool
    ) -> None:
        self.name = ""
        self.default = default
        self.factory = factory
        self.init = init
        self.repr = repr
        self.compare = compare


def _field(
    *,
    default: Any = _MISSING,
    default_factory: Callable[[], Any] | None = None,
    init: bool = True,
    repr: bool = True,
    compare: bool = True,
) -> _Field:
    """As dataclasses.field."""
    return _Field(default, default_factory, init=init, repr=repr, compare=compare)


def _fields(value: Any) -> tuple[_Field, ...]:
    """Those of a value or of its class, in order. Raises AttributeError where it is none of these."""
    found: tuple[_Field, ...] = getattr(value, _FIELDS)
    return found


def _replace(value: Any, /, **changes: Any) -> Any:
    """A value of the same class with these fields. Raises TypeError for one that it does not have."""
    for each in getattr(value, _FIELDS):
        if each.init and each.name not in changes:
            changes[each.name] = getattr(value, each.name)
    return value.__class__(**changes)


def _asdict(value: Any) -> dict[str, Any]:
    """Field -> value, and so on for the values in it, in lists, tuples and dictionaries too."""
    return {each.name: _plain(getattr(value, each.name)) for each in _fields(value)}


def _plain(value: Any) -> Any:
    if hasattr(value, _FIELDS):
        return _asdict(value)
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    if type(value) is dict:
        return {_plain(key): _plain(each) for key, each in value.items()}
    return value


def _dataclass(
    *,
    slots: bool,
    frozen: bool = False,
    eq: bool = True,
    repr: bool = True,
) -> Callable[[type], type]:
    """As dataclasses.dataclass. Raises TypeError for a class that is not to be had here."""
    if not slots:
        raise TypeError("a class without slots")

    def make(cls: type) -> type:
        return _made(cls, frozen=frozen, eq=eq, repr=repr)

    return make


def _made(cls: type, *, frozen: bool, eq: bool, repr: bool) -> type:
    body = {name: each for name, each in cls.__dict__.items() if name not in ("__dict__", "__weakref__")}
    known = _read(cls, body)
    body |= {
        _FIELDS: known,
        "__slots__": tuple(each.name for each in known),
        "__qualname__": cls.__qualname__,
        "__match_args__": tuple(each.name for each in known if each.init),
        "__dataclass_fields__": _AS_DATACLASS,
    }
    if repr:
        body.setdefault("__repr__", _repr)
    if eq:
        values = _values_of([each.name for each in known if each.compare])
        body.setdefault("__eq__", _equal(values))
        if body.get("__hash__") is None:
            body["__hash__"] = _hash(values) if frozen else None
    if frozen:
        body |= {"__setattr__": _refuse_setting, "__delattr__": _refuse_deleting}
        body |= {"__getstate__": _state, "__setstate__": _set_state}
    made: Any = type(cls)(cls.__name__, cls.__bases__, body)
    made.__init__ = _first_init(made, known, frozen=frozen)
    return made  # type: ignore[no-any-return]


def _read(cls: type, body: dict[str, Any]) -> tuple[_Field, ...]:
    """The class's fields; their defaults go from `body`, where slots take their place. Raises TypeError, ValueError."""
    if any(hasattr(base, _FIELDS) for base in cls.__mro__):
        raise TypeError(f"{cls.__name__}: a base has fields")
    known: list[_Field] = []
    for name, annotation in cls.__annotations__.items():
        if any(word in str(annotation) for word in _UNSUPPORTED):
            raise TypeError(f"{cls.__name__}.{name}: {annotation} is not to be had here")
        given = body.pop(name, _MISSING)
        each = given if isinstance(given, _Field) else _field(default=given)
        each.name = name
        if each.default.__class__.__hash__ is None:
            raise ValueError(f"{cls.__name__}.{name}: one {type(each.default).__name__} for all instances")
        known.append(each)
    needed = [each.default is _MISSING and each.factory is None for each in known if each.init]
    if needed != sorted(needed, reverse=True):
        raise TypeError(f"{cls.__name__}: a field without a default after one with it")
    return tuple(known)


def _first_init(cls: Any, known: tuple[_Field, ...], *, frozen: bool) -> Callable[..., None]:
    """The class's `__init__` until it is called, which compiles the one that takes its place."""

    def __init__(self: Any, *given: Any, **named: Any) -> None:
        cls.__init__ = init = _compiled(cls, known, frozen=frozen)
        init(self, *given, **named)

    return __init__


def _compiled(cls: type, known: tuple[_Field, ...], *, frozen: bool) -> Callable[..., None]:
    scope: dict[str, Any] = {"_none": _MISSING}
    parameters, lines = ["self"], ["pass"]
    for each in known:
        name = value = each.name
        scope[f"_default_{name}"] = each.default if each.factory is None else each.factory
        scope[f"_set_{name}"] = cls.__dict__[name].__set__
        if each.factory is not None:
            parameters += [f"{name}=_none"] if each.init else []
            value = f"_default_{name}() if {name} is _none else {name}" if each.init else f"_default_{name}()"
        elif each.default is not _MISSING:
            parameters += [f"{name}=_default_{name}"] if each.init else []
            value = name if each.init else f"_default_{name}"
        elif each.init:
            parameters.append(name)
        else:
            continue  # its class sets it
        lines.append(f"_set_{name}(self, {value})" if frozen else f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    exec(f"def __init__({', '.join(parameters)}):\n  " + "\n  ".join(lines), scope)  # noqa: S102  (names of fields only)
    init: Callable[..., None] = scope["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


def _values_of(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    if not names:
        return lambda value: ()
    one = attrgetter(*names)
    return lambda value: (one(value),)


def _equal(values: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any, Any], Any]:
    def __eq__(self: Any, other: Any) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    return __eq__


def _hash(values: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any], int]:
    def __hash__(self: Any) -> int:
        return hash(values(self))

    return __hash__


def _repr(self: Any) -> str:
    shown = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in _fields(self) if each.repr)
    return f"{self.__class__.__qualname__}({shown})"


def _refuse_setting(self: Any, name: str, value: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deleting(self: Any, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    """For pickle and copy, which would set attributes."""
    return [getattr(self, each.name) for each in _fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for each, value in zip(_fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)


class _AsDataclass:
    """What `dataclasses` looks for, made when it is asked for: the fields of a standard twin."""

    def __get__(self, instance: object, owner: type) -> Mapping[str, Any]:
        import dataclasses

        described = []
        for each in _fields(owner):
            more: dict[str, Any] = {"init": each.init, "repr": each.repr, "compare": each.compare}
            if each.factory is not None:
                more["default_factory"] = each.factory
            elif each.default is not _MISSING:
                more["default"] = each.default
            described.append((each.name, owner.__annotations__[each.name], dataclasses.field(**more)))
        twin: Any = dataclasses.make_dataclass(owner.__name__, described)
        found: Mapping[str, Any] = twin.__dataclass_fields__
        return found


_AS_DATACLASS: Final = _AsDataclass()

if TYPE_CHECKING:
    from dataclasses import asdict, dataclass, field, fields, replace
else:
    asdict, dataclass, field, fields, replace = _asdict, _dataclass, _field, _fields, _replace
