"""`docs/asyncapi.yaml`: the same for machines (AsyncAPI 3.0.0, https://www.asyncapi.com/docs/reference/specification/v3.0.0)."""

from __future__ import annotations

from typing import Any

import yaml
from msgspec import inspect as types

from bus_schemas import VERSION
from bus_schemas.happenings import ALL, Happening
from bus_schemas.subjects import EVENT, FAMILIES, PREFIX, RPCS, Family, Rpc, Stream
from tortie.catalogue.event_samples import EVENTS
from tortie.catalogue.samples import samples
from tortie.catalogue.shapes import Field, every_message, every_shape, replies, shape_of
from tortie.catalogue.words import KEY_WORDS, example, meaning, pattern, retention

Json = dict[str, Any]
CONTENT = "application/msgpack"


def document() -> Json:
    families = [family for family in FAMILIES if family is not EVENT]
    channels = {_id(family.name): _channel(family) for family in families}
    channels |= {_id(one.name): _event_channel(one) for one in ALL}
    channels |= {_id(rpc.subject): _request_channel(rpc) for rpc in RPCS}
    channels |= {"replies": _reply_channel()}
    operations = {f"write_{_id(f.name)}": _write(_id(f.name), f"Written by {f.writer}.") for f in families}
    operations |= {f"tell_{_id(one.name)}": _write(_id(one.name), f"Told by {one.writer}.") for one in ALL}
    operations |= {f"answer_{_id(rpc.subject)}": _answer(rpc) for rpc in RPCS}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tortie",
            "version": VERSION,
            "description": "State and events of a pod network. docs/events.md says the same for people, how keys are "
            "escaped into tokens, and what may change.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": CONTENT,
        "servers": {"bus": {"host": "localhost:4222", "protocol": "nats", "description": "NATS 2.12, JetStream."}},
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {_id(shape_of(c).tag): _message(c) for c in every_message()}
            | {_id(one.name): _event_message(one) for one in ALL},
            "schemas": {name: _schema(class_) for name, class_ in sorted(every_shape().items())},
        },
    }


def text() -> str:
    head = "# Made by `make docs` out of bus_schemas/; a test sees that it is up to date.\n"
    return head + yaml.dump(document(), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=116)


class _Plain(yaml.SafeDumper):
    """Without anchors: the same value twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _id(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.removeprefix(PREFIX))


def _reference(*path: str) -> Json:
    return {"$ref": "#/" + "/".join(path)}


# --- channels and operations


def _channel(family: Family[Any]) -> Json:
    said: Json = {
        "address": pattern(family),
        "title": family.name,
        "description": f"{meaning(family)} Read by {', '.join(family.readers) or 'its writers'}. Kept in "
        f"{family.stream}: {retention(family.stream)}. An empty payload: it is gone.",
        "messages": {"message": _reference("components", "messages", _id(shape_of(family.message).tag))},
    }
    if family.key:
        said["parameters"] = {token: {"description": KEY_WORDS[token]} for token in family.key}
    return said


def _event_channel(one: Happening) -> Json:
    advice = f" What to do: {one.advice}" if one.advice else ""
    return {
        "address": f"{PREFIX}event.{one.domain}.{one.what}.{{node}}",
        "title": one.name,
        "description": f"{one.meaning}{advice} Kept in {Stream.EVENTS}: {retention(Stream.EVENTS)}.",
        "parameters": {"node": {"description": KEY_WORDS["node"]}},
        "messages": {"message": _reference("components", "messages", _id(one.name))},
    }


def _request_channel(rpc: Rpc) -> Json:
    return {
        "address": rpc.subject,
        "title": f"{rpc.service} {rpc.name}",
        "description": "A request by core NATS, answered on its reply subject.",
        "messages": {"request": _reference("components", "messages", _id(shape_of(rpc.request).tag))},
    }


def _reply_channel() -> Json:
    tags = dict.fromkeys(shape_of(reply).tag for rpc in RPCS for reply in replies(rpc))
    return {
        "address": None,
        "description": "The reply subject of a request.",
        "messages": {_id(tag): _reference("components", "messages", _id(tag)) for tag in tags},
    }


def _write(channel: str, summary: str) -> Json:
    return {"action": "send", "summary": summary, "channel": _reference("channels", channel)}


def _answer(rpc: Rpc) -> Json:
    return {
        "action": "receive",
        "summary": f"Answered by {rpc.service}.",
        "channel": _reference("channels", _id(rpc.subject)),
        "reply": {
            "channel": _reference("channels", "replies"),
            "messages": [_reference("channels", "replies", "messages", _id(shape_of(r).tag)) for r in replies(rpc)],
        },
    }


# --- messages


def _message(class_: type) -> Json:
    shape = shape_of(class_)
    found = [example(message) for _, _, message in samples().values() if type(message) is class_]
    said: Json = {"name": shape.tag, "title": shape.name, "contentType": CONTENT}
    if shape.doc:
        said["summary"] = shape.doc
    said["payload"] = _reference("components", "schemas", shape.name)
    if found:
        said["examples"] = [{"name": "sample", "payload": found[0]}]
    return said


def _event_message(one: Happening) -> Json:
    own: Json = {"domain": {"const": one.domain}, "what": {"const": one.what}, "object": {"description": one.object}}
    if one.detail:
        keys = {key: {"type": "string", "description": words} for key, words in one.detail.items()}
        own["detail"] = {"type": "object", "properties": keys}
    return {
        "name": one.name,
        "title": one.name,
        "summary": one.meaning,
        "contentType": CONTENT,
        "tags": [{"name": one.domain}, {"name": one.severity}],
        "payload": {"allOf": [_reference("components", "schemas", "Event"), {"type": "object", "properties": own}]},
        "examples": [{"name": "sample", "payload": example(EVENTS[one.name])}],
    }


# --- schemas (JSON Schema draft 7, of the decoded map)


def _schema(class_: type) -> Json:
    shape = shape_of(class_)
    said: Json = {"type": "array" if shape.array else "object", "title": shape.name}
    if shape.doc:
        said["description"] = shape.doc
    if shape.array:
        needed = sum(field.required for field in shape.fields)
        return said | {"items": [_field(field) for field in shape.fields], "minItems": needed}
    properties = {field.name: _field(field) for field in shape.fields}
    required = [field.name for field in shape.fields if field.required]
    if shape.tag:
        properties = {"type": {"const": shape.tag, "description": "Kind and version."}, **properties}
        required = ["type", *required]
    said["properties"] = properties
    if required:
        said["required"] = required
    return said


def _field(field: Field) -> Json:
    said = _type(field.type)
    if "$ref" in said:
        said = {"allOf": [said]}
    said["description"] = field.doc
    if not field.required and field.default is not None:
        said["default"] = field.default
    return said


def _type(type_: types.Type) -> Json:
    match type_:
        case types.StructType():
            return _reference("components", "schemas", type_.cls.__name__)
        case types.UnionType():
            return {"anyOf": [_type(option) for option in type_.types]}
        case types.VarTupleType() | types.ListType():
            return {"type": "array", "items": _type(type_.item_type)}
        case types.TupleType():
            many = len(type_.item_types)
            return {"type": "array", "items": list(map(_type, type_.item_types)), "minItems": many, "maxItems": many}
        case types.DictType():
            return {"type": "object", "additionalProperties": _type(type_.value_type)}
        case types.LiteralType():
            return {"enum": list(type_.values)}
        case types.EnumType():
            return {"enum": [member.value for member in type_.cls]}
        case types.BytesType():
            return {"type": "string", "contentEncoding": "base64"}
        case types.AnyType():
            return {}
    return {"type": _SIMPLE[type(type_)]}


_SIMPLE: dict[type, str] = {
    types.StrType: "string",
    types.IntType: "integer",
    types.FloatType: "number",
    types.BoolType: "boolean",
    types.NoneType: "null",
}
