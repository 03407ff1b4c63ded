"""`docs/events.md`: everything that is said on the bus, for people."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

from bus_schemas.events import Event
from bus_schemas.happenings import ALL, DOMAINS, Happening
from bus_schemas.subjects import EVENT, FAMILIES, RPCS, STREAMS, Family, Rpc, Stream
from tortie.catalogue.event_samples import EVENTS
from tortie.catalogue.samples import samples
from tortie.catalogue.shapes import is_resource, replies, shape_of, type_words, within
from tortie.catalogue.words import (
    KEY_WORDS,
    STREAM_WORDS,
    example,
    json_lines,
    meaning,
    pattern,
    retention,
)

WIDTH = 120
HEAD = """\
# Events and state on the bus

*Made by `make docs` out of `bus_schemas/`; a test sees that it is up to date. The same for machines is
[asyncapi.yaml](asyncapi.yaml) (AsyncAPI 3.0). Programs that listen are in [examples/](../examples/).*

## How to listen

- Everything is on NATS (2.12 or newer) under `tortie.v1.`. A message is one [msgpack](https://msgpack.org) map that any
  msgpack reader understands; `type` names its kind and version, `block/1`. A field that has its default is left out.
- A key's tokens are escaped: `A-Za-z0-9_-` stand for themselves, every other byte of UTF-8 is `=` and two hex digits,
  the empty text is `_`. `10.244.0.0/26` is `10=2E244=2E0=2E0=2F26`.
- **Events** tell what happened, once. Subscribe to `tortie.v1.event.>` for what comes (core NATS), or make a durable
  JetStream consumer on the stream `TORTIE_EVENTS` to miss nothing. Nothing in Tortie depends on an event.
- **State** is the whole current object under its subject; an empty payload says that it is gone. Read the last message
  of every subject from the stream, then follow.
- Every stored message is at once republished under `tortie.live.v1.`, with its sequence in the header `Nats-Sequence`.
- One sender tells only so many events of a kind at once; what is beyond that comes as one event with an empty `object`
  and `detail.count`: how many more there were.
- `tortie events tail` shows them to people (`--domain`, `--what`, `--node`, `--namespace`, `--pod`, `--severity`,
  `-o json`), `GET /v1/events` of the api streams them as server-sent events.
"""

RULES = """\
## What may change, and what may not

Old and new programs read each other's messages while a cluster is upgraded, and subscribers are upgraded when their
owners please. Without a new version

- there **may come** a field with a default, a message, a subject, an event, a key in an event's `detail`; in what
  travels as an array only at its end. So **ignore what you do not know.**
- there **may not** go, be renamed, or change: a field's type, unit, default, the values to choose from, whether it is
  required; a subject's tokens, its stream, an event's name, a key of `detail`.
- the words of `message` and `advice`, and the severity of an event, may change: they are for people.

What has to change otherwise is another message with the next version in its tag, `block/2`; programs park what they do
not know and say so. `tortie schema check` compares with the last release in [schemas/](schemas/), and so does a test;
`tortie schema release` adds a release there.
"""


def page() -> str:
    lines = [HEAD, *_contents(), RULES, *_events(), *_state(), *_requests(), *_parts()]
    return "\n".join(lines).rstrip() + "\n"


def _anchor(title: str) -> str:
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def _link(title: str) -> str:
    return f"[{title}](#{_anchor(title)})"


def _contents() -> Iterator[str]:
    yield "## Contents\n"
    yield f"- {_link('What may change, and what may not')}"
    yield f"- {_link('Events')}"
    for domain, title in DOMAINS.items():
        names = ", ".join(f"[{one.what}](#{_anchor(one.name)})" for one in ALL if one.domain == domain)
        yield _item(f"{title}: {names}", "  ")
    yield f"- {_link('State')}"
    for stream in STREAMS:
        if stream is not Stream.EVENTS:
            names = ", ".join(_link(_title(family)) for family in FAMILIES if family.stream is stream)
            yield _item(f"{stream}: {names}", "  ")
    yield f"- {_link('Requests')}"
    yield f"- {_link('Parts of messages')}\n"


# --- events


def _events() -> Iterator[str]:
    yield "## Events\n"
    yield f"Stream `{Stream.EVENTS}`, subject `{pattern(EVENT)}`, kept for {retention(Stream.EVENTS)}.\n"
    yield from _table(Event)
    for domain, title in DOMAINS.items():
        yield f"### {title}\n"
        for one in ALL:
            if one.domain == domain:
                yield from _event(one)


def _event(one: Happening) -> Iterator[str]:
    node = "{node}"
    yield f"#### {one.name}\n"
    yield f"{one.meaning}\n"
    yield f"- subject: `{EVENT.subject(one.domain, one.what, '').removesuffix('_')}{node}`"
    yield f"- written by: {one.writer}; severity: {one.severity}; kept for {retention(Stream.EVENTS)}"
    yield f"- `object`: {one.object}"
    for key, words in one.detail.items():
        yield _item(f"`detail.{key}`: {words}")
    if one.advice:
        yield _item(f"what to do: {one.advice}")
    yield f"\n```json\n{json_lines(example(EVENTS[one.name]))}\n```\n"


# --- state


def _title(family: Family[Any]) -> str:
    if not is_resource(family.message):
        return family.name.capitalize()
    kind: str = family.message.KIND
    alike = [f for f in FAMILIES if is_resource(f.message) and kind == f.message.KIND]
    return kind if len(alike) == 1 else f"{kind} of {family.message.API_VERSION.partition('/')[0]}"


def _state() -> Iterator[str]:
    yield "## State\n"
    for stream in STREAMS:
        if stream is Stream.EVENTS:
            continue
        yield f"### {stream}\n"
        yield f"{STREAM_WORDS[stream]} Kept: {retention(stream)}.\n"
        for family in FAMILIES:
            if family.stream is stream:
                yield from _family(family)


def _family(family: Family[Any]) -> Iterator[str]:
    _, key, message = samples()[family.name]
    yield f"#### {_title(family)}\n"
    yield f"{meaning(family)}\n"
    yield f"- subject: `{pattern(family)}`"
    for token in family.key:
        yield f"  - `{token}`: {KEY_WORDS[token]}"
    yield f"- written by: {family.writer}; read by: {', '.join(family.readers) or 'its writers'}"
    yield f"- kept: {retention(family.stream)}\n"
    yield from _table(family.message)
    yield f"`{family.subject(*key)}`\n"
    yield f"```json\n{json_lines(example(message))}\n```\n"


def _requests() -> Iterator[str]:
    yield "## Requests\n"
    yield "Asked and answered by core NATS; the only calls between services. Not kept.\n"
    for rpc in RPCS:
        yield from _request(rpc)


def _request(rpc: Rpc) -> Iterator[str]:
    yield f"### {rpc.service} {rpc.name}\n"
    yield f"- subject: `{rpc.subject}`, and `{rpc.subject}.{{part}}` for the replica whose part the node is"
    yield f"- asked by: node_dataplane, tortie ipam; answered by: {rpc.service}\n"
    for class_ in (rpc.request, *replies(rpc)):
        shape = shape_of(class_)
        yield f"**{shape.tag}** {shape.doc}\n"
        yield from _table(class_)


def _parts() -> Iterator[str]:
    yield "## Parts of messages\n"
    messages = {family.message for family in FAMILIES}
    for rpc in RPCS:
        messages |= {rpc.request, *replies(rpc)}
    parts = {part.__name__: part for message in messages for part in within(message) if part not in messages}
    for name, part in sorted(parts.items()):
        shape = shape_of(part)
        yield f"### {name}\n"
        if shape.doc:
            yield f"{shape.doc}\n"
        if shape.array:
            yield "It travels as an array, its fields in this order.\n"
        yield from _table(part)


def _table(class_: type) -> Iterator[str]:
    shape = shape_of(class_)
    rows = [("type", f"`{shape.tag}`", "yes", "Kind and version.")] if shape.tag else []
    for field in shape.fields:
        default = "yes" if field.required else _default(field.default)
        rows.append((field.name, _linked(class_, type_words(field.type)), default, field.doc))
    if not rows:
        yield "It has no fields.\n"
        return
    yield "| field | type | required, or default | meaning |"
    yield "|---|---|---|---|"
    for name, type_, default, doc in rows:
        yield f"| `{name}` | {_cell(type_)} | {_cell(default)} | {_cell(doc)} |"
    yield ""


def _linked(class_: type, words: str) -> str:
    for part in within(class_)[1:]:
        if part.__name__ in words.replace(",", " ").replace("(", " ").replace(")", " ").split():
            return words.replace(part.__name__, f"[{part.__name__}](#{_anchor(part.__name__)})")
    return words


def _default(value: Any) -> str:
    if value is None:
        return "null"
    if value in ("", [], {}):
        return "empty"
    return f"`{json_lines(value)}`" if not isinstance(value, dict) else "its own"


def _cell(text: str) -> str:
    return re.sub(r"\bNone(?=[:, ])", "null", text).replace("|", "\\|")


def _item(text: str, indent: str = "") -> str:
    """A point of a list, its lines no longer than a page is wide."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=f"{indent}- ",
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
