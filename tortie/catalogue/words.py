"""What the page and the AsyncAPI document both say: purposes of streams and subjects, retention, an example as JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from bus_schemas.codec import Message, decode, encode
from bus_schemas.subjects import PREFIX, STREAMS, TOMBSTONE_TTL_S, Family, Stream
from tortie.catalogue.shapes import is_resource, shape_of

STREAM_WORDS: Mapping[Stream, str] = {
    Stream.DESIRED: "What people asked for: the manifests, as they were applied.",
    Stream.BLOCKS: "Which addresses are whose.",
    Stream.ENDPOINTS: "Which pods are plugged in where, and what else the nodes hold.",
    Stream.POLICY: "What policy means, compiled.",
    Stream.ROUTES: "Who reaches what.",
    Stream.STATUS: "Who is alive, who leads, what was counted. Messages expire: silence is death.",
    Stream.EVENTS: "What happened.",
}

MEANING: Mapping[str, str] = {
    "affinity": "A node's claim of a block.",
    "endpoint": "One pod's attachment to the network: it exists while the agent holds the link.",
    "route": "The way to a destination, the same for every node that reads it.",
    "status": "One replica or agent, and how it is.",
    "sessions": "How a node's BGP sessions stand, as its BIRD says.",
    "bgp": "What a node's BGP speaker is to do. No message: the node needs no BGP.",
    "event": "Something that happened.",
}
"""Of families whose message does not say it itself."""

KEY_WORDS: Mapping[str, str] = {
    "namespace": "the namespace; `_` for what is cluster-wide",
    "name": "the name",
    "node": "the node's name (of an event that is of no node: `_`)",
    "cidr": "the range in CIDR notation",
    "handle": "the handle",
    "service": "the service's name",
    "group": "the group's id",
    "segment": "the segment's number, from 0",
    "family": "the name of the family that is packed",
    "part": "the part's number, from 0",
    "rules": "the policy's id, `kind/namespace/name`",
    "direction": "the direction's id",
    "kind": "the kind's token, `networkpolicy`",
    "component": "the service",
    "instance": "the replica; of an agent the node",
    "domain": "see the table of events",
    "what": "see the table of events",
}


def pattern(family: Family[Any]) -> str:
    """`tortie.v1.ipam.block.{cidr}`."""
    return PREFIX + ".".join((*family.words, *(f"{{{token}}}" for token in family.key)))


def meaning(family: Family[Any]) -> str:
    shape = shape_of(family.message)
    if is_resource(family.message):
        kind: str = family.message.KIND
        said = shape.doc if not shape.doc.startswith("Base of") else ""
        return f"The {kind} that was applied ({family.message.API_VERSION})." + (f" {said}" if said else "")
    return MEANING.get(family.name) or shape.doc


def retention(stream: Stream) -> str:
    spec = STREAMS[stream]
    if stream is Stream.STATUS:
        return "the last message of every subject, until its time to live ends (seconds)"
    if spec.last_per_subject:
        hours = TOMBSTONE_TTL_S // 3600
        return f"the last message of every subject; what is gone leaves an empty message for {hours} hour"
    return f"{spec.max_age_s / 86400:.0f} days, at most {spec.max_bytes // 2**20} MiB"


def example(message: Message) -> Any:
    """The message as any msgpack reader has it: encoded, decoded without its class; binary as base64."""
    payload = encode(message)
    assert decode(payload, type(message)) == message, "what was encoded is what is read"
    return _printable(msgspec.msgpack.decode(payload))


def _printable(value: Any) -> Any:
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case dict():
            return {key: _printable(inner) for key, inner in value.items()}
        case list():
            return [_printable(inner) for inner in value]
    return value


def json_lines(value: Any) -> str:
    """Short things on one line, as a person would write them."""
    return _lines(value, "")


def _lines(value: Any, indent: str) -> str:
    flat = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(flat) <= 100 or not isinstance(value, dict | list) or not value:
        return flat
    inner = indent + "  "
    if isinstance(value, dict):
        rows = [f"{inner}{json.dumps(key)}: {_lines(one, inner)}" for key, one in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if all(isinstance(one, int | float) for one in value):
        return flat if len(flat) <= 100 else _wrapped(flat, inner)
    return "[\n" + ",\n".join(f"{inner}{_lines(one, inner)}" for one in value) + f"\n{indent}]"


def _wrapped(flat: str, indent: str) -> str:
    lines, line = [], ""
    for word in flat.split(" "):
        if line and len(indent) + len(line) + len(word) > 100:
            lines.append(line.rstrip())
            line = ""
        line += word + " "
    return ("\n" + indent).join([*lines, line.rstrip()])
