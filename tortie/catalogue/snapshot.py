"""All schemas as one JSON value that two releases are compared by (`compare`): without texts, but with units."""

from __future__ import annotations

from typing import Any

from msgspec import inspect as types

from bus_schemas import VERSION
from bus_schemas.happenings import ALL
from bus_schemas.subjects import FAMILIES, PREFIX, RPCS
from tortie.catalogue.shapes import Field, every_shape, replies, shape_of

Json = dict[str, Any]


def snapshot() -> Json:
    return {
        "version": VERSION,
        "prefix": PREFIX,
        "families": {
            family.name: {
                "stream": str(family.stream),
                "words": list(family.words),
                "key": list(family.key),
                "message": family.message.__name__,
            }
            for family in FAMILIES
        },
        "requests": {
            rpc.subject: {"request": rpc.request.__name__, "replies": [reply.__name__ for reply in replies(rpc)]}
            for rpc in RPCS
        },
        "structs": {name: _struct(class_) for name, class_ in sorted(every_shape().items())},
        "events": {one.name: sorted(one.detail) for one in ALL},
    }


def _struct(class_: type) -> Json:
    shape = shape_of(class_)
    fields = {field.name: _field(field) for field in shape.fields}
    return {"tag": shape.tag, "array": shape.array, "fields": fields}


def _field(field: Field) -> Json:
    told: Json = {"type": type_json(field.type), "required": field.required}
    if not field.required:
        told["default"] = field.default
    if field.unit:
        told["unit"] = field.unit
    return told


def type_json(type_: types.Type) -> Any:
    match type_:
        case types.StructType():
            return {"struct": type_.cls.__name__}
        case types.UnionType():
            return {"one of": sorted((type_json(option) for option in type_.types), key=str)}
        case types.VarTupleType() | types.ListType():
            return {"list of": type_json(type_.item_type)}
        case types.TupleType():
            return {"tuple": [type_json(item) for item in type_.item_types]}
        case types.DictType():
            return {"map of": type_json(type_.value_type)}
        case types.LiteralType():
            return {"values": sorted(type_.values, key=str)}
        case types.EnumType():
            return {"values": sorted(member.value for member in type_.cls)}
    return type(type_).__name__.removesuffix("Type").lower()
