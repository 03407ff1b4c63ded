"""Structs -> structural schemas, and the whole schema of a kind. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, TypeVar

from msgspec import inspect as types

from bus_schemas.manifests.calico_policy import CONVERTED_NAME, POLICY_NAME
from bus_schemas.manifests.names import MAX_NAME
from bus_schemas.resources import GlobalNetworkPolicy, NetworkPolicy, Resource, Tier
from bus_schemas.resources.calico_policy import StagedGlobalNetworkPolicy, StagedNetworkPolicy
from tortie.catalogue.shapes import Field, shape_of
from tortie.crds.alternatives import ITEM_SCHEMAS, ONE_OF_THESE
from tortie.crds.fields import FIELDS, NOT_DEFAULTED, OPTIONAL, REQUIRED
from tortie.crds.passed import OPEN, PASSED
from tortie.crds.rules import ITEM_RULES, ROOT_RULES, RULES
from tortie.crds.values import LABEL, Schema, form

T = TypeVar("T")

OPEN_FIELDS = "x-kubernetes-preserve-unknown-fields"
NUMBER_OR_TEXT = "x-kubernetes-int-or-string"
CEL = "x-kubernetes-validations"

_POLICIES = (NetworkPolicy, GlobalNetworkPolicy, StagedNetworkPolicy, StagedGlobalNetworkPolicy)
_SIMPLE: dict[type, str] = {
    types.StrType: "string",
    types.IntType: "integer",
    types.FloatType: "number",
    types.BoolType: "boolean",
}


def of_kind(kind: type[Resource], *, stored: bool) -> Schema:
    """The schema of an object of this kind. `stored`: of crd.projectcalico.org/v1, where names carry more."""
    read = types.type_info(kind)
    assert isinstance(read, types.StructType)
    spec = next(field for field in read.fields if field.name == "spec")
    assert isinstance(spec.type, types.StructType)
    schema: Schema = {
        "type": "object",
        "description": shape_of(kind).doc or f"{kind.KIND} of Calico's {kind.API_VERSION}.",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": _metadata(kind, stored=stored),
            "spec": of_struct(spec.type.cls),
            "status": STATUS,
        },
    }
    if spec.required:
        schema["required"] = ["spec"]
    if kind in ROOT_RULES:
        schema[CEL] = [rule.schema() for rule in ROOT_RULES[kind]]
    return schema


def _metadata(kind: type[Resource], *, stored: bool) -> Schema:
    """The server allows no more than the form of the name here."""
    name: Schema = {}
    if kind is Tier:
        name = LABEL
    elif kind in _POLICIES and not stored:
        name = {"maxLength": MAX_NAME, **form(*_policy_names(kind))}
    return {"type": "object"} | ({"properties": {"name": {"type": "string", **name}}} if name else {})


def _policy_names(kind: type[Resource]) -> tuple[str, ...]:
    return (POLICY_NAME.pattern, CONVERTED_NAME.pattern) if kind.NAMESPACED else (POLICY_NAME.pattern,)


STATUS: Schema = {
    "type": "object",
    "description": "What became of the object; written by Tortie.",
    "properties": {
        "conditions": {
            "type": "array",
            "description": "Accepted: it is valid and in force; further ones by kind. See docs/kubernetes.md.",
            "items": {
                "type": "object",
                "description": "A condition, as in meta/v1.",
                "properties": {
                    "type": {"type": "string", "maxLength": 316},
                    "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                    "reason": {"type": "string", "maxLength": 1024},
                    "message": {"type": "string", "maxLength": 32768},
                    "lastTransitionTime": {"type": "string", "format": "date-time"},
                    "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                },
                "required": ["type", "status"],
            },
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        }
    },
}


def of_struct(struct: type) -> Schema:
    """An object with the fields of a Struct."""
    shape = shape_of(struct)
    properties = {field.name: _of_field(struct, field) for field in shape.fields}
    for more in _said_of(PASSED, struct):
        properties |= deepcopy(more)
    schema: Schema = {"type": "object", "properties": dict(sorted(properties.items()))}
    if shape.doc:
        schema["description"] = shape.doc
    optional = {name for names in _said_of(OPTIONAL, struct) for name in names}
    required = [field.name for field in shape.fields if field.required and field.name not in optional]
    required += [name for names in _said_of(REQUIRED, struct) for name in names]
    if required:
        schema["required"] = sorted(required)
    if struct in OPEN:
        schema[OPEN_FIELDS] = True
    if every := [one for found in _said_of(ONE_OF_THESE, struct) for one in found]:
        schema["allOf"] = deepcopy(every)
    if rules := [rule.schema() for found in _said_of(RULES, struct) for rule in found]:
        schema[CEL] = rules
    return schema


def _of_field(struct: type, field: Field) -> Schema:
    schema = _of_type(field.type)
    for constraints in _said_of(FIELDS, struct):
        if field.name in constraints:
            schema = _merged(schema, constraints[field.name])
    for base in struct.__mro__:
        rules = ITEM_RULES.get((base, field.name), ())
        if rules:
            schema["items"][CEL] = [*schema["items"].get(CEL, ()), *(rule.schema() for rule in rules)]
        if found := ITEM_SCHEMAS.get((base, field.name)):
            schema["items"]["allOf"] = [*schema["items"].get("allOf", ()), deepcopy(found)]
    schema["description"] = field.doc
    if _is_said(field.default) and not any((base, field.name) in NOT_DEFAULTED for base in struct.__mro__):
        schema["default"] = field.default
    return schema


def _is_said(default: Any) -> bool:
    """A default that is more than nothing."""
    return default is not None and default is not False and default not in ("", 0, [], {})


def _said_of(table: Mapping[type, T], struct: type) -> list[T]:
    """What is said of a Struct and of its bases, theirs first."""
    return [table[base] for base in reversed(struct.__mro__) if base in table]


def _of_type(type_: types.Type) -> Schema:
    match type_:
        case types.StructType(cls=struct):
            return of_struct(struct)
        case types.VarTupleType(item_type=item):
            return {"type": "array", "items": _of_type(item)}
        case types.DictType(value_type=value):
            return {"type": "object", "additionalProperties": _of_type(value)}
        case types.LiteralType(values=values):
            return {"type": "integer" if isinstance(values[0], int) else "string", "enum": list(values)}
        case types.UnionType(types=options):
            given = [option for option in options if not isinstance(option, types.NoneType)]
            if {type(option) for option in given} == {types.IntType, types.StrType}:
                return {NUMBER_OR_TEXT: True}
            assert len(given) == 1, type_
            return _of_type(given[0])
    return {"type": _SIMPLE[type(type_)]}


def _merged(schema: Schema, more: Schema) -> Schema:
    merged = {**schema, **deepcopy(more)}
    if "items" in schema and "items" in more:
        merged["items"] = _merged(schema["items"], more["items"])
    if NUMBER_OR_TEXT in more:
        merged.pop("type", None)
    if "pattern" in more and "enum" not in more:
        merged.pop("enum", None)
    if NUMBER_OR_TEXT in merged:
        merged["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return merged
