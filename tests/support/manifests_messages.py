"""A message of any class with every field filled in, made from its type annotations alone."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import inspect

T = TypeVar("T")


def sample(class_: type[T]) -> T:
    return msgspec.convert(_value(inspect.type_info(class_)), class_)


def _value(type_: inspect.Type) -> Any:
    match type_:
        case inspect.StructType():
            fields = {field.encode_name: _value(field.type) for field in type_.fields}
            if type_.array_like:
                return list(fields.values())
            return fields if type_.tag is None else {type_.tag_field: type_.tag, **fields}
        case inspect.UnionType():
            return _value(next(option for option in type_.types if not isinstance(option, inspect.NoneType)))
        case inspect.VarTupleType() | inspect.ListType():
            return [_value(type_.item_type)]
        case inspect.TupleType():
            return [_value(item) for item in type_.item_types]
        case inspect.DictType():
            return {_value(type_.key_type): _value(type_.value_type)}
        case inspect.LiteralType():
            return type_.values[-1]
        case inspect.EnumType():
            return list(type_.cls)[-1].value
        case inspect.StrType():
            return "ü-1"
        case inspect.IntType():
            return 70000
        case inspect.FloatType():
            return 0.5
        case inspect.BoolType():
            return True
        case inspect.BytesType():
            return b"\x0a\x00\x00\x01"
        case _:
            raise AssertionError(f"no sample for {type_}")
