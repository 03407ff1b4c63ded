"""What an API server does with a custom object before it stores it, by the schema of its definition: what is unknown is
pruned, nulls go, defaults are filled in, then it is validated, by schema and by CEL.

After apiextensions-apiserver (`pruning`, `defaulting`, `schema/cel`). The JSON schema is judged by jsonschema with the
server's formats, CEL by the C++ implementation of its authors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from datetime import datetime
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import jsonschema
from cel_expr_python import cel
from cel_expr_python.ext import ext_strings

from services.kube_bridge.sources import SOURCES
from tortie.crds.definition import definition

Schema = dict[str, Any]

_RESERVED = frozenset(
    (
        *("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if"),
        *("import", "let", "loop", "package", "namespace", "return", "var", "void", "while"),
    )
)
"""Words of CEL: the server gives fields of these names as `__namespace__`."""


@cache
def definitions() -> dict[tuple[str, str], Schema]:
    """By apiVersion and kind."""
    return {(s.api_version, s.kind): definition(s) for s in SOURCES if s.group.endswith("projectcalico.org")}


def schema_of(api_version: str, kind: str) -> Schema:
    (version,) = definitions()[api_version, kind]["spec"]["versions"]
    schema: Schema = version["schema"]["openAPIV3Schema"]
    return schema


def admitted(value: dict[str, Any], before: dict[str, Any] | None = None) -> tuple[dict[str, Any], list[str]]:
    """What would be stored of an object, and what stands against it. `before`: what it replaces."""
    schema = schema_of(value["apiVersion"], value["kind"])
    stored = defaulted(schema, without_nulls(schema, pruned(schema, value, root=True)))
    faults = [f"{_path(error.absolute_path)}: {error.message}" for error in _validator(value).iter_errors(stored)]
    faults += [*_metadata(stored), *_doubles(schema, stored, "")]
    if not faults:
        faults = list(_cel(schema, stored, None if before is None else before, ""))
    return stored, faults


def pruned(schema: Schema, value: Any, *, root: bool = False) -> Any:
    """Without the fields that the schema does not know."""
    if isinstance(value, list) and "items" in schema:
        return [pruned(schema["items"], item) for item in value]
    if not isinstance(value, dict):
        return deepcopy(value)
    known = schema.get("properties", {})
    every = schema.get("additionalProperties")
    kept = {}
    for name, inner in value.items():
        if root and name == "metadata":
            kept[name] = deepcopy(inner)
        elif name in known:
            kept[name] = pruned(known[name], inner)
        elif every is not None:
            kept[name] = pruned(every, inner)
        elif schema.get("x-kubernetes-preserve-unknown-fields"):
            kept[name] = deepcopy(inner)
    return kept


def without_nulls(schema: Schema, value: Any) -> Any:
    """Nulls of fields that may not be null are as if they were not there."""
    if isinstance(value, list) and "items" in schema:
        return [without_nulls(schema["items"], item) for item in value]
    if not isinstance(value, dict):
        return value
    fields = schema.get("properties", {})
    every = schema.get("additionalProperties", {})
    return {
        name: without_nulls(fields.get(name, every), inner)
        for name, inner in value.items()
        if inner is not None or (name not in fields and "additionalProperties" not in schema)
    }


def defaulted(schema: Schema, value: Any) -> Any:
    if isinstance(value, list) and "items" in schema:
        return [defaulted(schema["items"], item) for item in value]
    if not isinstance(value, dict):
        return value
    filled = dict(value)
    for name, field in schema.get("properties", {}).items():
        if name not in filled and "default" in field:
            filled[name] = deepcopy(field["default"])
        if name in filled:
            filled[name] = defaulted(field, filled[name])
    return filled


# --- by schema


@cache
def _checker() -> jsonschema.FormatChecker:
    checker = jsonschema.FormatChecker(formats=())

    def check(name: str, how: Any) -> None:
        checker.checks(name, raises=ValueError)(lambda value: not isinstance(value, str) or how(value))

    check("cidr", lambda text: "/" in text and "%" not in text and bool(ip_network(text, strict=False)))
    check("ipv4", lambda text: bool(IPv4Address(text)) or True)
    check("ipv6", lambda text: "%" not in text and (bool(IPv6Address(text)) or True))
    check("date-time", lambda text: bool(datetime.fromisoformat(text)))
    return checker


_validators: dict[tuple[str, str], Any] = {}


def _validator(value: dict[str, Any]) -> Any:
    key = (value["apiVersion"], value["kind"])
    if key not in _validators:
        schema = schema_of(*key)
        jsonschema.Draft7Validator.check_schema(schema)
        _validators[key] = jsonschema.Draft7Validator(schema, format_checker=_checker())
    return _validators[key]


def _path(parts: Any) -> str:
    return re.sub(r"\.\[", "[", ".".join(f"[{part}]" if isinstance(part, int) else part for part in parts))


_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_KEY = re.compile(r"([^/]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


def _metadata(value: dict[str, Any]) -> Iterator[str]:
    """What a server asks of the metadata of every object."""
    metadata = value.get("metadata") or {}
    name = metadata.get("name", "")
    if len(name) > 253 or not _NAME.fullmatch(name):
        yield "metadata.name: no DNS subdomain"
    for field in ("labels", "annotations"):
        for key in metadata.get(field) or {}:
            if not _KEY.fullmatch(key):
                yield f"metadata.{field}: {key} is no qualified name"


def _doubles(schema: Schema, value: Any, path: str) -> Iterator[str]:
    """Items of a set are there once, and so are the keys of a list that is a map."""
    if isinstance(value, list):
        kind = schema.get("x-kubernetes-list-type")
        keys = schema.get("x-kubernetes-list-map-keys", ())
        seen = [[item[key] for key in keys] if kind == "map" else item for item in value]
        if kind in ("set", "map") and any(one in seen[:i] for i, one in enumerate(seen)):
            yield f"{path}: duplicate"
        for i, item in enumerate(value):
            yield from _doubles(schema.get("items", {}), item, f"{path}[{i}]")
    if isinstance(value, dict):
        for name, field in schema.get("properties", {}).items():
            if name in value:
                yield from _doubles(field, value[name], f"{path}.{name}")


# --- by CEL


@cache
def environment() -> Any:
    dynamic = cel.Type.DYN
    return cel.NewEnv(variables={"self": dynamic, "oldSelf": dynamic}, extensions=[ext_strings.ExtStrings()])


@cache
def compiled(rule: str) -> Any:
    return environment().compile(rule)


def _cel(schema: Schema, value: Any, before: Any, path: str) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        about_change = "oldSelf" in rule["rule"]
        if about_change and before is None:
            continue
        given = {"self": _escaped(value)} | ({"oldSelf": _escaped(before)} if about_change else {})
        result = compiled(rule["rule"]).eval(data=given)
        if result.value() is not True:
            why = "" if result.value() is False else f" ({result.value()})"
            yield f"{path}{rule.get('fieldPath', '')}: {rule['message']}{why}".lstrip(".")
    if isinstance(value, list) and "items" in schema:
        for i, item in enumerate(value):
            yield from _cel(schema["items"], item, None, f"{path}[{i}]")
    if isinstance(value, dict):
        for name, field in schema.get("properties", {}).items():
            if name in value and name != "metadata":
                old = before.get(name) if isinstance(before, dict) else None
                yield from _cel(field, value[name], old, f"{path}.{name}")


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {f"__{key}__" if key in _RESERVED else key: _escaped(inner) for key, inner in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list) else value
