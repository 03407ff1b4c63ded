"""What a message looks like: its fields with types, defaults and texts, read from the Structs themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect as types

from bus_schemas.field_docs import field_docs
from bus_schemas.glossary import FIELDS
from bus_schemas.resources import Resource
from bus_schemas.subjects import FAMILIES, RPCS

Json = Any

UNITS = (
    "Unix time in seconds",
    *("milliseconds", "microseconds", "seconds", "a Go duration", "RFC 3339"),
    *("Bytes", "bytes", "bits", "UDP port", "TCP port", "AS number", "CIDR", "big-endian"),
)
"""Words by which a text says in what a field is counted or written."""


class Undocumented(ValueError):
    """A field has no text: neither under it nor in the glossary."""


@dataclass(frozen=True)
class Field:
    name: str
    """As on the wire."""
    type: types.Type
    doc: str
    required: bool
    default: Json
    """As on the wire; None with a required field."""

    @property
    def unit(self) -> str:
        return next((unit for unit in UNITS if unit in self.doc), "")


@dataclass(frozen=True)
class Shape:
    name: str
    """Of the class, unique among all."""
    doc: str
    """First paragraph of the class's text; empty: its fields say it all."""
    tag: str
    """`block/1`; empty: it is a part of messages."""
    array: bool
    """On the wire it is an array in the order of the fields."""
    fields: tuple[Field, ...]


def shape_of(class_: type) -> Shape:
    """Raises Undocumented."""
    if class_ not in _shapes:
        _shapes[class_] = _read(class_)
    return _shapes[class_]


_shapes: dict[type, Shape] = {}


def _read(class_: type) -> Shape:
    read = types.type_info(class_)
    assert isinstance(read, types.StructType)
    docs = _docs(class_)
    fields = []
    for field in read.fields:
        doc = docs.get(field.name) or FIELDS.get(f"{class_.__name__}.{field.name}") or FIELDS.get(field.name)
        if not doc:
            raise Undocumented(
                f"{class_.__module__}.{class_.__name__}.{field.name}: no text under it, none in glossary"
            )
        fields.append(Field(field.encode_name, field.type, doc, field.required, _default(field)))
    tag = str(read.tag) if read.tag is not None else ""
    return Shape(class_.__name__, _own_doc(class_), tag, read.array_like, tuple(fields))


def _docs(class_: type) -> dict[str, str]:
    """The texts under the fields, those of the bases too, unless the class has its own."""
    docs: dict[str, str] = {}
    for base in reversed(class_.__mro__):
        if issubclass(base, msgspec.Struct) and base.__module__.split(".")[0] == "bus_schemas":
            docs.update({name: text for name, text in field_docs(base).items() if text})
    return docs


def _own_doc(class_: type) -> str:
    text = class_.__dict__.get("__doc__") or ""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def _default(field: types.Field) -> Json:
    if field.required:
        return None
    value = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    return msgspec.json.decode(msgspec.json.encode(value))


def parts(type_: types.Type) -> Iterator[type]:
    """The Structs that a type names, directly."""
    match type_:
        case types.StructType():
            yield type_.cls
        case types.UnionType():
            for option in type_.types:
                yield from parts(option)
        case types.DictType():
            yield from parts(type_.value_type)
        case types.TupleType():
            for item in type_.item_types:
                yield from parts(item)
        case types.VarTupleType() | types.ListType() | types.SetType() | types.FrozenSetType():
            yield from parts(type_.item_type)


def within(class_: type) -> list[type]:
    """The Structs of which a message consists, itself first, each once, in the order in which they are met."""
    found: dict[type, None] = {}
    pending = [class_]
    while pending:
        one = pending.pop(0)
        if one not in found:
            found[one] = None
            pending += [part for field in shape_of(one).fields for part in parts(field.type)]
    return list(found)


def replies(rpc: Any) -> list[type]:
    return list(parts(types.type_info(rpc.reply)))


def every_message() -> list[type]:
    """Whatever travels by itself."""
    found = [family.message for family in FAMILIES]
    for rpc in RPCS:
        found += [rpc.request, *replies(rpc)]
    return list(dict.fromkeys(found))


def every_shape() -> dict[str, type]:
    """By name: the messages and all their parts."""
    found: dict[str, type] = {}
    for message in every_message():
        for class_ in within(message):
            assert found.setdefault(class_.__name__, class_) is class_, f"two classes are called {class_.__name__}"
    return found


def is_resource(class_: type) -> bool:
    return issubclass(class_, Resource)


def type_words(type_: types.Type) -> str:
    """For people: `text`, `list of text`, `Allocation` ..."""
    match type_:
        case types.StructType():
            return type_.cls.__name__
        case types.UnionType():
            options = [type_words(option) for option in type_.types if not isinstance(option, types.NoneType)]
            absent = any(isinstance(option, types.NoneType) for option in type_.types)
            return " or ".join(options) + (" or null" if absent else "")
        case types.VarTupleType() | types.ListType():
            return f"list of {type_words(type_.item_type)}"
        case types.TupleType():
            return f"({', '.join(map(type_words, type_.item_types))})"
        case types.DictType():
            return f"map of {type_words(type_.value_type)}"
        case types.LiteralType():
            return ", ".join(f"`{value}`" for value in type_.values)
        case types.EnumType():
            return ", ".join(f"`{member.value}`" for member in type_.cls)
    return _SIMPLE[type(type_)]


_SIMPLE: dict[type, str] = {
    types.StrType: "text",
    types.IntType: "integer",
    types.FloatType: "number",
    types.BoolType: "boolean",
    types.BytesType: "binary",
    types.NoneType: "null",
    types.AnyType: "anything",
}


def kind_of(tag: str) -> tuple[str, int]:
    """`block/1` is ("block", 1)."""
    found = re.fullmatch(r"(.+)/(\d+)", tag)
    assert found is not None, f"{tag!r} names no kind and version"
    return found[1], int(found[2])
