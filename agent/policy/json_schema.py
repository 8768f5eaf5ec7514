"""The JSON Schema of policy files, made from the table that the reader reads by."""

from __future__ import annotations

from typing import assert_never

from agent.policy.schema import DOCUMENT
from agent.policy.shape import (
    DayShape,
    FlagShape,
    ListShape,
    MapShape,
    NumberShape,
    QuantityShape,
    RecordShape,
    Shape,
    TextShape,
)

type Json = str | int | bool | list["Json"] | dict[str, "Json"]


def json_schema(shape: RecordShape = DOCUMENT) -> dict[str, Json]:
    """The JSON Schema (draft 2020-12) of policy files. It knows shapes, not meanings: `policy lint` checks the rest."""
    schema = _schema(shape)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Parhelia policy file"} | schema


def _schema(shape: Shape) -> dict[str, Json]:
    match shape:
        case TextShape():
            return _text_schema(shape)
        case NumberShape():
            return {"type": "integer", "minimum": shape.low, "maximum": shape.high, "description": shape.doc}
        case DayShape():
            return {
                "type": "string",
                "format": "date",
                "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
                "description": shape.doc,
            }
        case QuantityShape():
            return _quantity_schema(shape)
        case FlagShape():
            return {"type": "boolean", "description": shape.doc}
        case MapShape():
            return {
                "type": "object",
                "propertyNames": _schema(shape.key),
                "additionalProperties": _schema(shape.value),
                "minProperties": 1,
                "maxProperties": shape.longest,
                "description": shape.doc,
            }
        case ListShape():
            return _list_schema(shape)
        case RecordShape():
            return _record_schema(shape)
        case _:
            assert_never(shape)


def _text_schema(shape: TextShape) -> dict[str, Json]:
    schema: dict[str, Json] = {"type": "string", "minLength": 1, "maxLength": shape.longest, "description": shape.doc}
    if shape.choices:
        schema["enum"] = list(shape.choices)
    if shape.pattern is not None:
        schema["pattern"] = f"^(?:{shape.pattern})$"
    return schema


def _quantity_schema(shape: QuantityShape) -> dict[str, Json]:
    units = "|".join(name for name, _ in shape.units)
    return {
        "anyOf": [
            {"type": "integer", "minimum": shape.low, "maximum": shape.high},
            {"type": "string", "pattern": f"^(?:0|[1-9][0-9]{{0,17}})(?:{units})$"},
        ],
        "description": shape.doc,
    }


def _list_schema(shape: ListShape) -> dict[str, Json]:
    item = _schema(shape.item)
    schema: dict[str, Json] = {"type": "array", "items": item, "maxItems": shape.longest, "description": shape.doc}
    if shape.nonempty:
        schema["minItems"] = 1
    return {"anyOf": [schema, item], "description": shape.doc} if shape.single else schema


def _record_schema(shape: RecordShape) -> dict[str, Json]:
    required: list[Json] = [key.name for key in shape.keys if key.required]
    schema: dict[str, Json] = {
        "type": ["object", "null"] if shape.empty else "object",
        "properties": {key.name: _schema(key.shape) for key in shape.keys},
        "additionalProperties": False,
        "description": shape.doc,
    }
    if required:
        schema["required"] = required
    return (
        schema if shape.shorthand is None else {"anyOf": [_schema(shape.shorthand), schema], "description": shape.doc}
    )
