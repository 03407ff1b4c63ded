"""Whether a server would take a CustomResourceDefinition: the rules of structural schemas, and those for names,
columns, defaults, lists and CEL rules.

After apiextensions-apiserver: `pkg/apiserver/schema/validation.go` (structural) and
`pkg/apis/apiextensions/validation/validation.go` (the rest), for as much as definitions of ours make use of; any other
construct is a fault, so that whoever uses it first reads what the server makes of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jsonschema

from tests.support.crd_server import defaulted, pruned

Schema = dict[str, Any]

_STRUCTURE = {
    "type",
    "description",
    "default",
    "properties",
    "additionalProperties",
    "items",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
}
"""What says what a value is. Forbidden below allOf, anyOf, oneOf and not, but for properties and items."""
_VALUE = {
    *("enum", "pattern", "format", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "required"),
    *("allOf", "anyOf", "oneOf", "not"),
}
"""What says which values are allowed."""
_TYPES = {"object", "array", "string", "integer", "number", "boolean"}
_FORMATS = {"cidr", "ipv4", "ipv6", "date-time", "int64"}
_NUMBER_OR_TEXT = [{"type": "integer"}, {"type": "string"}]
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_CAMEL = re.compile(r"[A-Z][A-Za-z0-9]*")
_FIELD_PATH = re.compile(r"(\.[A-Za-z_][A-Za-z0-9_]*)+")
_NOT_RE2 = re.compile(r"\(\?[=!<]|\\[1-9]|\\[Zzdw]|[*+?]\+")
MAX_MESSAGE = 2048


def faults(definition: dict[str, Any]) -> list[str]:
    """Everything for which a server would refuse the definition."""
    return [*_names(definition), *(f for version in definition["spec"]["versions"] for f in _version(version))]


def _names(definition: dict[str, Any]) -> Iterator[str]:
    spec = definition["spec"]
    names = spec["names"]
    if definition["metadata"]["name"] != f"{names['plural']}.{spec['group']}":
        yield "metadata.name: must be <plural>.<group>"
    for name in (names["plural"], names["singular"], *names.get("shortNames", ())):
        if not _DNS_1035.fullmatch(name) or len(name) > 63:
            yield f"names: {name} is no DNS label"
    for name in (names["kind"], names["listKind"]):
        if not _CAMEL.fullmatch(name):
            yield f"names: {name} is no kind"
    if spec["scope"] not in ("Namespaced", "Cluster"):
        yield "scope"
    if [version["storage"] for version in spec["versions"]].count(True) != 1:
        yield "versions: exactly one must be stored"


def _version(version: dict[str, Any]) -> Iterator[str]:
    for column in version["additionalPrinterColumns"]:
        if column["type"] not in ("integer", "number", "string", "boolean", "date") or not column["name"]:
            yield f"columns: {column}"
        if not column["jsonPath"].startswith("."):
            yield f"columns: {column['jsonPath']}"
    schema = version["schema"]["openAPIV3Schema"]
    yield from _structure(schema, "", "root")
    if version.get("subresources", {}).get("status") is not None and not {"properties"} <= schema.keys():
        yield "a status subresource needs properties at the root"


def _structure(schema: Schema, path: str, level: str) -> Iterator[str]:
    for key in schema.keys() - _STRUCTURE - _VALUE:
        yield f"{path}: {key} is not known here"
    yield from _type(schema, path, level)
    yield from _values(schema, path, nested=False)
    if "properties" in schema and "additionalProperties" in schema:
        yield f"{path}: properties and additionalProperties"
    if level == "root":
        yield from _root(schema)
    for name, field in schema.get("properties", {}).items():
        yield from _structure(field, f"{path}.{name}", "field")
    if "items" in schema:
        yield from _structure(schema["items"], f"{path}[]", "item")
    if "additionalProperties" in schema:
        yield from _structure(schema["additionalProperties"], f"{path}{{}}", "field")
    yield from _complete(schema, schema, path)
    yield from _list(schema, path)
    yield from _default(schema, path)
    yield from _rules(schema, path)


def _type(schema: Schema, path: str, level: str) -> Iterator[str]:
    either = schema.get("x-kubernetes-int-or-string", False)
    if either:
        if "type" in schema:
            yield f"{path}: a number or text has no type"
        if schema.get("anyOf") != _NUMBER_OR_TEXT:
            yield f"{path}: a number or text says so under anyOf"
        if schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{path}: a number or text keeps no fields"
    elif schema.get("type") not in _TYPES:
        yield f"{path}: a type is needed"
    if level == "root" and schema.get("type") != "object":
        yield "the root must be an object"
    if schema.get("type") == "array" and "items" not in schema:
        yield f"{path}: items are needed"
    known = schema.keys() & {"properties", "additionalProperties", "x-kubernetes-preserve-unknown-fields"}
    if schema.get("type") == "object" and not known and path != ".metadata":
        yield f"{path}: an object of which nothing is known loses everything"


def _root(schema: Schema) -> Iterator[str]:
    metadata = schema["properties"]["metadata"]
    if metadata.keys() - {"type", "properties"} or metadata.get("properties", {}).keys() - {"name", "generateName"}:
        yield "metadata: only name and generateName can be restricted"
    if "additionalProperties" in schema:
        yield "additionalProperties at the root"


def _values(schema: Schema, path: str, *, nested: bool) -> Iterator[str]:
    """Value validations, and what stands below allOf, anyOf, oneOf and not."""
    if nested:
        for key in schema.keys() - _VALUE - {"properties", "items"}:
            yield f"{path}: {key} must not stand under allOf, anyOf, oneOf or not"
        if "metadata" in schema.get("properties", {}):
            yield f"{path}: nothing may be said of metadata here"
        for name, field in schema.get("properties", {}).items():
            yield from _values(field, f"{path}.{name}", nested=True)
        if "items" in schema:
            yield from _values(schema["items"], f"{path}[]", nested=True)
    if schema.get("format", "cidr") not in _FORMATS:
        yield f"{path}: the format {schema['format']} is not checked by servers"
    if "pattern" in schema:
        if _NOT_RE2.search(schema["pattern"]):
            yield f"{path}: {schema['pattern']} is not RE2"
        re.compile(schema["pattern"])
    either = schema.get("x-kubernetes-int-or-string", False)
    for word in ("allOf", "anyOf", "oneOf"):
        if not (word == "anyOf" and either and not nested):
            for one in schema.get(word, ()):
                yield from _values(one, f"{path}.{word}", nested=True)
    if "not" in schema:
        yield from _values(schema["not"], f"{path}.not", nested=True)


def _complete(whole: Schema, part: Schema, path: str) -> Iterator[str]:
    """Every field and item of a value validation is a field or item of the structure."""
    for word in ("allOf", "anyOf", "oneOf"):
        for one in part.get(word, ()):
            yield from _named(whole, one, path)
            yield from _complete(whole, one, path)
    if "not" in part:
        yield from _named(whole, part["not"], path)
        yield from _complete(whole, part["not"], path)


def _named(whole: Schema, part: Schema, path: str) -> Iterator[str]:
    for name in part.get("required", ()):
        if name not in whole.get("properties", {}):
            yield f"{path}: {name} is required but no field"
    for name, field in part.get("properties", {}).items():
        if name not in whole.get("properties", {}):
            yield f"{path}: {name} is no field of the structure"
        else:
            yield from _named(whole["properties"][name], field, f"{path}.{name}")
            yield from _complete(whole["properties"][name], field, f"{path}.{name}")
    if "items" in part:
        if "items" not in whole:
            yield f"{path}: has no items"
        else:
            yield from _named(whole["items"], part["items"], f"{path}[]")


def _list(schema: Schema, path: str) -> Iterator[str]:
    kind = schema.get("x-kubernetes-list-type")
    if kind is None:
        return
    items = schema.get("items", {})
    if schema.get("type") != "array" or kind not in ("set", "map", "atomic"):
        yield f"{path}: a list of type {kind}"
    if kind == "set" and items.get("type") in ("object", "array"):
        yield f"{path}: a set holds plain values"
    keys = schema.get("x-kubernetes-list-map-keys", ())
    if (kind == "map") != bool(keys):
        yield f"{path}: the keys of a map"
    for key in keys:
        if key not in items.get("properties", {}) or key not in items.get("required", ()):
            yield f"{path}: the key {key} must be a required field"


def _default(schema: Schema, path: str) -> Iterator[str]:
    if "default" not in schema:
        return
    value = schema["default"]
    if not path.startswith(".spec."):
        yield f"{path}: no default outside of the spec"
    if not jsonschema.Draft7Validator(schema).is_valid(value):
        yield f"{path}: the default {value!r} is not valid"
    if defaulted(schema, pruned(schema, value)) != value:
        yield f"{path}: the default is not what the server would make of it"


def _rules(schema: Schema, path: str) -> Iterator[str]:
    seen = set()
    for rule in schema.get("x-kubernetes-validations", ()):
        if rule.keys() - {"rule", "message", "fieldPath", "reason"}:
            yield f"{path}: {rule.keys()}"
        if not rule["rule"].strip() or "\n" in rule["message"] or not 0 < len(rule["message"]) <= MAX_MESSAGE:
            yield f"{path}: {rule}"
        if rule["rule"] in seen:
            yield f"{path}: the same rule twice: {rule['rule']}"
        seen.add(rule["rule"])
        place = rule.get("fieldPath")
        if place is not None and not (_FIELD_PATH.fullmatch(place) and place[1:] in schema.get("properties", {})):
            yield f"{path}: {place} is no field"
