"""What a server estimates a CEL rule of a CustomResourceDefinition to cost at worst.

The rule is parsed and its macros are unfolded by the C++ implementation of CEL (`serialize()` gives a
cel.expr.CheckedExpr in protobuf). Its cost is counted as cel-go's `checker/cost.go` does, with the sizes that
apiserver's `pkg/cel/common` takes from the schema, and multiplied by how often the rule may be asked (`maxItems` of the
lists around it).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any, NamedTuple

from tests.support.crd_server import compiled

Schema = dict[str, Any]

MAX_RULE = 10_000_000
"""staticEstimatedCostLimit"""
MAX_DEFINITION = 100_000_000
"""staticEstimatedCRDCostLimit"""

_REQUEST = 3 * 1024 * 1024
_UNKNOWN = 2**64 - 1
_STRING, _REGEX = 0.1, 0.25
_CREATE_LIST = 10


class Estimate(NamedTuple):
    path: str
    rule: str
    cost: int


class Unfit(Exception):
    """A rule that the server would not compile."""


def estimates(definition: dict[str, Any]) -> Iterator[Estimate]:
    for version in definition["spec"]["versions"]:
        yield from _within(version["schema"]["openAPIV3Schema"], "", 1)


def _within(schema: Schema, path: str, times: int) -> Iterator[Estimate]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield Estimate(path, rule["rule"], _Counter(schema).cost(_expression(rule["rule"])).cost * times)
    for name, field in schema.get("properties", {}).items():
        yield from _within(field, f"{path}.{name}", times)
    if "items" in schema:
        yield from _within(schema["items"], f"{path}[]", times * _items(schema))


def _items(schema: Schema) -> int:
    most: int = schema.get("maxItems", (_REQUEST - 2) // (_least(schema["items"]) + 1))
    return most


def _least(schema: Schema) -> int:
    """Bytes of the shortest value as JSON."""
    if schema.get("type") != "object":
        return 2 if schema.get("type") in ("array", "string") else 1
    fields = schema.get("properties", {})
    needed = [name for name in schema.get("required", ()) if "default" not in fields[name]]
    return 2 + sum(len(name) + _least(fields[name]) + 4 for name in needed)


def _size(schema: Schema) -> int:
    """Of a value at most: items, or bytes of text."""
    if schema.get("x-kubernetes-int-or-string"):
        return _REQUEST - 2  # servers before v1.32 do not look at maxLength here
    if schema.get("type") == "array":
        return _items(schema)
    if schema.get("type") == "string":
        if "maxLength" in schema:
            return 4 * int(schema["maxLength"])
        return max(map(len, schema["enum"])) if "enum" in schema else _REQUEST - 2
    return 1 if schema.get("type") in ("integer", "number", "boolean") else _UNKNOWN


class _Found(NamedTuple):
    cost: int
    size: int = 1
    """Of the value; 1 for numbers and truths."""
    schema: Schema | None = None
    """Of the value, where it is a part of the object."""


class _Counter:
    def __init__(self, schema: Schema) -> None:
        self._names: dict[str, Schema | None] = {"self": schema, "oldSelf": schema}

    def cost(self, expression: Any) -> _Found:
        kind, parts = expression
        return getattr(self, f"_{kind}")(*parts)  # type: ignore[no-any-return]

    def _constant(self, value: Any) -> _Found:
        return _Found(0, len(value.encode()) if isinstance(value, str) else 1)

    def _name(self, name: str) -> _Found:
        if name in self._names:
            schema = self._names[name]
            return _Found(1, 1 if schema is None else _size(schema), schema)
        raise Unfit(f"{name} is not declared")

    def _field(self, of: Any, name: str, test: bool) -> _Found:
        found = self.cost(of)
        if found.schema is None:
            raise Unfit(f"{name} of something that is no part of the object")
        fields = found.schema.get("properties", {})
        if name == "name" and fields == {}:  # metadata.name
            return _Found(found.cost + 1, _REQUEST - 2, {"type": "string"})
        if name not in fields:
            raise Unfit(f"no field {name}")
        return _Found(
            found.cost + (0 if test else 1), 1 if test else _size(fields[name]), None if test else fields[name]
        )

    def _list(self, *items: Any) -> _Found:
        if len({type(parts[0]) for kind, parts in items if kind == "constant"}) > 1:
            raise Unfit("a list of literals of several types")
        return _Found(_CREATE_LIST + sum(self.cost(item).cost for item in items), len(items))

    def _loop(self, name: str, over: Any, accu: str, init: Any, condition: Any, step: Any, result: Any) -> _Found:
        found = self.cost(over)
        start = self.cost(init).cost
        outer = self._names
        self._names = {**outer, name: (found.schema or {}).get("items"), accu: None}
        once = self.cost(condition).cost + self.cost(step).cost
        end = self.cost(result).cost
        self._names = outer
        return _Found(found.cost + start + end + found.size * once)

    def _call(self, function: str, target: Any, *given: Any) -> _Found:
        found = [self.cost(one) for one in given]
        if target is not None:
            on = self.cost(target)
            spent = on.cost + sum(one.cost for one in found)
            match function:
                case "contains":
                    return _Found(spent + ceil(on.size * _STRING) * ceil(found[0].size * _STRING))
                case "startsWith":
                    return _Found(spent + ceil(found[0].size * _STRING))
                case "matches":
                    return _Found(spent + ceil((on.size + 1) * _STRING) * ceil(found[0].size * _REGEX))
                case "split":
                    return _Found(spent + ceil(on.size * 2 * _STRING), on.size)
            raise Unfit(f"{function} has no cost here yet")
        spent = sum(one.cost for one in found)
        match function:
            case "_&&_" | "_||_":
                return _Found(spent)
            case "_?_:_":
                return _Found(found[0].cost + max(found[1].cost, found[2].cost))
            case "_==_" | "_!=_":
                _comparable(found[0].schema, given[1])
                _comparable(found[1].schema, given[0])
                return _Found(spent + ceil(min(found[0].size, found[1].size) * _STRING))
            case "@in":
                for one in given[1][1] if given[1][0] == "list" else ():
                    _comparable(found[0].schema, one)
                if found[1].schema is not None:
                    _comparable(found[1].schema["items"], given[0])
                return _Found(spent + found[1].size)
            case "_[_]":
                return _Found(spent + 1, _UNKNOWN)
            case "!_" | "_<=_" | "_>=_" | "size" | "int" | "@not_strictly_false":
                return _Found(spent + 1)
        raise Unfit(f"{function} has no cost here yet")


_LITERALS = {"string": str, "integer": int, "number": float, "boolean": bool}


def _comparable(schema: Schema | None, other: Any) -> None:
    """A server knows the types of fields, and refuses a comparison that could never hold."""
    if schema is not None and "type" in schema and other[0] == "constant":
        (value,) = other[1]
        if type(value) is not _LITERALS.get(schema["type"]):
            raise Unfit(f"a {schema['type']} is compared with {value!r}")


# --- cel.expr.CheckedExpr


def _expression(rule: str) -> Any:
    """The parsed rule: (kind, parts)."""
    wrapped = _fields(compiled(rule).serialize())  # google.protobuf.Any
    return _read(_last(_fields(_last(wrapped, 2)), 4))


def _fields(message: bytes) -> dict[int, list[Any]]:
    """A protobuf message by field numbers."""
    found: dict[int, list[Any]] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        value: Any
        if wire == 0:
            value, at = _varint(message, at)
        elif wire == 2:
            length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        else:
            assert wire == 1, "eight bytes: a double"
            value, at = message[at : at + 8], at + 8
        found.setdefault(number, []).append(value)
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _last(fields: dict[int, list[Any]], number: int, default: Any = b"") -> Any:
    return fields.get(number, [default])[-1]


def _read(message: bytes) -> Any:
    fields = _fields(message)
    if 3 in fields:
        constant = _fields(_last(fields, 3))
        if 6 in constant:
            return ("constant", (_last(constant, 6).decode(),))
        return ("constant", (float(0) if 5 in constant else 0 if 3 in constant else False,))
    if 4 in fields:
        return ("name", (_last(_fields(_last(fields, 4)), 1).decode(),))
    if 5 in fields:
        select = _fields(_last(fields, 5))
        return ("field", (_read(_last(select, 1)), _last(select, 2).decode(), bool(_last(select, 3, 0))))
    if 6 in fields:
        call = _fields(_last(fields, 6))
        target = _read(_last(call, 1)) if 1 in call else None
        return ("call", (_last(call, 2).decode(), target, *map(_read, call.get(3, ()))))
    if 7 in fields:
        return ("list", tuple(map(_read, _fields(_last(fields, 7)).get(1, ()))))
    assert 9 in fields, "a kind of expression that no rule has yet"
    loop = _fields(_last(fields, 9))
    name, accu = _last(loop, 1).decode(), _last(loop, 3).decode()
    over, init, condition, step, result = (_read(_last(loop, number)) for number in (2, 4, 5, 6, 7))
    return ("loop", (name, over, accu, init, condition, step, result))
