"""Rules of CEL and what they are put together of: whether a field is there and says something."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec import inspect as types

from tortie.crds.values import Schema


class Rule(NamedTuple):
    """A rule of CEL. `self` is the value it stands at; with `oldSelf` it is about changes alone."""

    rule: str
    message: str
    field: str = ""
    """The name of the field that the server points at; empty: the value itself."""

    def schema(self) -> Schema:
        place = {"fieldPath": f".{self.field}"} if self.field else {}
        return {"rule": self.rule, "message": self.message, **place}


def text(name: str) -> str:
    """The field is there and not empty."""
    return f"(has(self.{name}) && self.{name} != '')"


def no_text(name: str) -> str:
    return f"(!has(self.{name}) || self.{name} == '')"


def empty(name: str) -> str:
    """A list that is not there or has nothing in it."""
    return f"(!has(self.{name}) || size(self.{name}) == 0)"


def not_true(name: str) -> str:
    return f"(!has(self.{name}) || !self.{name})"


def all_of(*parts: str) -> str:
    return " && ".join(parts)


def is_empty(struct: type, name: str) -> str:
    """A field of a Struct says nothing, whatever its type is."""
    read = types.type_info(struct)
    assert isinstance(read, types.StructType)
    field = next(field for field in read.fields if field.encode_name == name)
    match field.type:
        case types.StrType():
            return no_text(name)
        case types.BoolType():
            return not_true(name)
        case types.VarTupleType():
            return empty(name)
        case types.StructType(cls=inner):
            names = msgspec.structs.fields(inner)
            said = " && ".join(f"!has(self.{name}.{part.encode_name})" for part in names)
            return f"(!has(self.{name}) || ({said}))"
    return f"!has(self.{name})"
