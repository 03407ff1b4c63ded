"""What a release may not change without a new version: two snapshots in, sentences out. Pure.

In a cluster that is being upgraded, old and new programs read each other's messages, and subscribers elsewhere are
upgraded when their owners please. So what a reader of the last release understands must stay as it was:

    may come      a field with a default (in an array at its end); a message, a subject, an event, a key of detail
    may not       go, be renamed, have another type, unit, default or value to choose from; become required or optional
    new version   a message with the tag `kind/2` is another message and need not be like `kind/1`
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tortie.catalogue.shapes import kind_of

Json = dict[str, Any]


def faults(old: Json, new: Json) -> list[str]:
    """Why `new` cannot be released after `old`, one sentence each; empty: it can."""
    return list(dict.fromkeys(_Comparison(old, new).faults()))


class _Comparison:
    def __init__(self, old: Json, new: Json) -> None:
        self._old = old
        self._new = new
        self._seen: set[tuple[str, str]] = set()

    def faults(self) -> Iterator[str]:
        if self._old["prefix"] != self._new["prefix"]:
            yield f"subjects begin with {self._new['prefix']}, not {self._old['prefix']} as before"
        for name, was in self._old["families"].items():
            now = self._new["families"].get(name)
            if now is None:
                yield f"{name}: its subject is gone"
                continue
            for what in ("stream", "words", "key"):
                if was[what] != now[what]:
                    yield f"{name}: its {what} changed from {_text(was[what])} to {_text(now[what])}"
            yield from self._message(name, was["message"], now["message"])
        for subject, was in self._old["requests"].items():
            now = self._new["requests"].get(subject)
            if now is None:
                yield f"{subject}: the request is gone"
                continue
            yield from self._message(subject, was["request"], now["request"])
            yield from self._replies(subject, was["replies"], now["replies"])
        for event, detail in self._old["events"].items():
            if event not in self._new["events"]:
                yield f"event {event} is gone"
                continue
            for key in detail:
                if key not in self._new["events"][event]:
                    yield f"event {event}: detail.{key} is gone"

    def _message(self, where: str, old: str, new: str) -> Iterator[str]:
        was, now = self._tag(self._old, old), self._tag(self._new, new)
        if was == now:
            yield from self._struct(was, old, new)
        elif kind_of(was)[0] != kind_of(now)[0] or kind_of(was)[1] > kind_of(now)[1]:
            yield f"{where}: its message is {now}, not {was} as before"

    def _replies(self, subject: str, old: list[str], new: list[str]) -> Iterator[str]:
        before = {self._tag(self._old, name): name for name in old}
        after = {self._tag(self._new, name): name for name in new}
        for tag in after.keys() - before.keys():
            if kind_of(tag)[1] == 1:
                yield f"{subject}: whoever asks does not know the reply {tag}"
        for tag, name in before.items():
            if tag in after:
                yield from self._struct(tag, name, after[tag])

    @staticmethod
    def _tag(snapshot: Json, name: str) -> str:
        return str(snapshot["structs"][name]["tag"])

    def _struct(self, where: str, old: str, new: str) -> Iterator[str]:
        if (old, new) in self._seen:
            return
        self._seen.add((old, new))
        was, now = self._old["structs"][old], self._new["structs"][new]
        if was["array"] != now["array"]:
            yield f"{where}: it is {'an array' if now['array'] else 'a map'} now"
            return
        for name, field in was["fields"].items():
            if name not in now["fields"]:
                yield f"{where}.{name} is gone"
            else:
                yield from self._field(f"{where}.{name}", field, now["fields"][name])
        for name, field in now["fields"].items():
            if name not in was["fields"] and field["required"]:
                yield f"{where}.{name} is new and required: messages of the last release do not have it"
        if was["array"] and list(now["fields"])[: len(was["fields"])] != list(was["fields"]):
            yield f"{where}: the order of its fields changed, and it is an array"

    def _field(self, where: str, was: Json, now: Json) -> Iterator[str]:
        if was["required"] != now["required"]:
            yield f"{where} is {'required' if now['required'] else 'optional'} now"
        elif was.get("default") != now.get("default"):
            yield f"{where}: its default changed from {_text(was['default'])} to {_text(now['default'])}"
        if was.get("unit", "") != now.get("unit", ""):
            yield f"{where}: its unit changed from {was.get('unit') or 'none'} to {now.get('unit') or 'none'}"
        yield from self._type(where, was["type"], now["type"])

    def _type(self, where: str, was: Any, now: Any) -> Iterator[str]:
        if isinstance(was, dict) and isinstance(now, dict) and was.keys() == now.keys():
            (kind,) = was
            a, b = was[kind], now[kind]
            if kind == "struct":
                yield from self._struct(where, a, b)
                return
            if kind in ("list of", "map of"):
                yield from self._type(where, a, b)
                return
            if kind in ("one of", "tuple") and len(a) == len(b):
                for x, y in zip(a, b, strict=True):
                    yield from self._type(where, x, y)
                return
        if was != now:
            yield f"{where}: its type changed from {_text(was)} to {_text(now)}"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "nothing"
    return str(value)
